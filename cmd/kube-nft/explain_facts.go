// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
)

// informant knows what Services should be: the running kube-nft, or the objects that
// flags name.
type informant struct {
	// Whence says who tells; Missing why nobody does.
	Whence  string `json:"from,omitempty"`
	Missing string `json:"missing,omitempty"`

	service  func(types.NamespacedName) (explain.Service, error)
	frontend func(netip.AddrPort, nft.Proto) (explain.Frontend, error)
}

// informant finds one: objects that flags name go before the running kube-nft.
func (o *options) informant(ctx context.Context) (informant, error) {
	for _, name := range []string{"manifests", "kubeconfig", "config", "master"} {
		if o.flags.Changed(name) {
			return o.objects(ctx, "--"+name)
		}
	}
	s, err := askStatus(ctx)
	switch {
	case errors.Is(err, errNotRunning), errors.Is(err, errStranger):
		return informant{Missing: err.Error() + "; --manifests or --kubeconfig tell what Services should be"}, nil
	case err != nil:
		return informant{}, err
	}
	whence := fmt.Sprintf("the running kube-nft, process %d, for node %s", s.PID, s.Node)
	if s.Zone != "" {
		whence += " in zone " + s.Zone
	}
	switch {
	case !s.Synced:
		whence += ", which has not been told of everything yet"
	case s.Failing:
		whence += ", whose last transaction failed"
	case !s.Programmed:
		whence += ", which is about to compare the tables"
	}
	return informant{
		Whence: whence,
		service: func(name types.NamespacedName) (out explain.Service, err error) {
			return out, askRunning(ctx, "/v1/services/"+url.PathEscape(name.Namespace)+"/"+url.PathEscape(name.Name), &out)
		},
		frontend: func(at netip.AddrPort, proto nft.Proto) (out explain.Frontend, err error) {
			q := url.Values{"address": {at.Addr().String()}, "port": {fmt.Sprint(at.Port())}, "protocol": {proto.String()}}
			return out, askRunning(ctx, "/v1/frontend?"+q.Encode(), &out)
		},
	}, nil
}

// objects reads the objects that flags name, as render does.
func (o *options) objects(ctx context.Context, flag string) (in informant, err error) {
	p, log, err := o.prepare()
	if err != nil {
		return in, err
	}
	config := o.controller(p, log.Logger)
	config.NodeIPs = nodeIPs
	src, err := o.source(p, log.Logger)
	if err != nil {
		return in, err
	}
	waiting, cancel := context.WithTimeout(ctx, renderTime)
	defer cancel()
	err = controller.Snapshot(waiting, config, src, func(f controller.Facts) { in = factual(f) })
	if errors.Is(err, controller.ErrNotSynced) && ctx.Err() == nil {
		return in, fmt.Errorf("the Kubernetes API has not told of all Services, EndpointSlices and the Node within %v: see the log above", renderTime)
	}
	in.Whence = fmt.Sprintf("%s, for node %s", flag, p.nodeName)
	return in, err
}

// factual asks facts that nobody else owns any more.
func factual(f controller.Facts) informant {
	return informant{
		service: func(name types.NamespacedName) (explain.Service, error) { return explain.OfService(f, name), nil },
		frontend: func(at netip.AddrPort, p nft.Proto) (explain.Frontend, error) {
			return explain.OfFrontend(f, at, p), nil
		},
	}
}

// nameOf reads the Service's name in an element's comment, namespace/name:port.
func nameOf(comment string) types.NamespacedName {
	name, _, _ := strings.Cut(comment, ":")
	namespace, name, _ := strings.Cut(name, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}
}
