// SPDX-License-Identifier: Apache-2.0

package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Node is a node on which nothing runs yet, with a client and all pods beside it.
type Node struct {
	Name string
	// Client asks, Router is the node itself, and Pods is where all endpoints are.
	Client, Router, Pods *netlab.Namespace
	// Outside and Inside are addresses of the client: Inside is one of a pod, so that
	// what it sends is not masqueraded.
	Outside, Inside netip.Addr
	// Addr is the node's own, in the Node object.
	Addr netip.Addr

	api     *API
	lab     *netlab.Lab
	number  int64
	dir     string // for files of what runs here
	running []*Running
	closers []io.Closer
}

// Interfaces of the router.
const (
	ToClient = "client"
	ToPods   = "pods"
	toAPI    = "api"
)

// NewNode makes a node, and registers it at the API server.
func (a *API) NewNode(ctx context.Context) (*Node, error) {
	lab, err := netlab.New()
	if err != nil {
		return nil, err
	}
	n := &Node{api: a, lab: lab, number: a.nodes.Add(1)}
	n.Name = fmt.Sprintf("node-%d", n.number)
	n.Outside, n.Addr, n.Inside = n.addr(198, 18, 2), n.addr(198, 18, 1), n.addr(10, 250, 2)
	if err := n.make(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", n.Name, err), n.Close())
	}
	return n, nil
}

// addr is an address of this node's in a range that nodes share.
func (n *Node) addr(first, second, last byte) netip.Addr {
	return netip.AddrFrom4([4]byte{first, second, byte(n.number), last})
}

func (n *Node) make(ctx context.Context) (err error) {
	if n.dir, err = os.MkdirTemp("", "kube-nft-compare-"); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		at   **netlab.Namespace
	}{{"client", &n.Client}, {"node", &n.Router}, {"pods", &n.Pods}} {
		if *s.at, err = n.lab.Namespace(s.name); err != nil {
			return err
		}
	}
	for _, step := range []func() error{n.Router.Forward, n.linkAPI, n.linkClient, n.linkPods, n.serve} {
		if err := step(); err != nil {
			return err
		}
	}
	_, err = n.api.Create(ctx, n.object())
	return err
}

// linkAPI links the router with the API server, which knows the way to the client.
func (n *Node) linkAPI() error {
	link, addr := fmt.Sprintf("node%d", n.number), netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + n.number%240)})
	if err := netlab.Link(n.Router, toAPI, n.api.Namespace, link); err != nil {
		return err
	}
	return errors.Join(
		n.api.Namespace.IP(fmt.Sprintf("link set %s master nodes", link)),
		n.Router.Addr(toAPI, netip.PrefixFrom(addr, 24)),
		n.api.Namespace.Route(netip.PrefixFrom(n.Outside, 24).Masked(), addr),
		n.api.Namespace.Route(netip.PrefixFrom(n.Inside, 24).Masked(), addr))
}

func (n *Node) linkClient() error {
	if err := netlab.Link(n.Client, "eth0", n.Router, ToClient); err != nil {
		return err
	}
	return errors.Join(
		n.Client.Addr("eth0", netip.PrefixFrom(n.Outside, 24), netip.PrefixFrom(n.Inside, 24)),
		n.Router.Addr(ToClient, netip.PrefixFrom(n.Addr, 24), netip.PrefixFrom(n.Inside.Prev(), 24)),
		n.Client.DefaultRoute(n.Addr),
		n.Router.IP("route add blackhole "+shape.ServiceCIDR.String()))
}

// linkPods links the router with the pods, who are at home at every endpoint's address.
func (n *Node) linkPods() error {
	if err := netlab.Link(n.Pods, "eth0", n.Router, ToPods); err != nil {
		return err
	}
	own := n.addr(10, 249, 2)
	return errors.Join(
		n.Pods.Addr("eth0", netip.PrefixFrom(own, 24)),
		n.Router.Addr(ToPods, netip.PrefixFrom(own.Prev(), 24)),
		n.Pods.DefaultRoute(own.Prev()),
		n.Pods.IP("route add local "+shape.EndpointCIDR.String()+" dev lo"),
		n.Router.Route(shape.EndpointCIDR, own))
}

// object is the node as its kubelet would write it.
func (n *Node) object() iter.Seq[shape.Object] {
	node := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{corev1.LabelHostname: n.Name}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.Addr.String()}}},
	}
	return slices.Values([]shape.Object{node})
}

// Close ends what runs on the node, and removes it with its tables.
func (n *Node) Close() error {
	var errs []error
	for _, r := range n.running {
		errs = append(errs, r.Kill())
	}
	for _, c := range n.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, n.lab.Close(), os.RemoveAll(n.dir))...)
}
