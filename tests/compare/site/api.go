// SPDX-License-Identifier: Apache-2.0

// Package site makes the places in which proxies are measured: an API server with
// a cluster's objects, and for each proxy a node of its own:
//
//	client ── veth ── node ── veth ── pods
//	                   |
//	                  veth
//	                   |
//	                  api     etcd and kube-apiserver
//
// The proxy runs in the namespace node, which is a router. The pods of all other nodes
// are one namespace that answers at every endpoint's address. Where the node does not
// translate a packet to a ClusterIP, it goes nowhere.
package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// API is a running API server. Nodes that read it may come and go.
type API struct {
	*cluster.Cluster
	*shape.Loader
	Namespace *netlab.Namespace

	log   *slog.Logger
	lab   *netlab.Lab
	nodes atomic.Int64
}

// apiAddr is the API server's.
var apiAddr = netip.MustParseAddr("192.0.2.2")

// User is who the proxies are: the account that the API server has a role for.
const User = "system:kube-proxy"

// connections is how many of HTTP/2 write objects.
const connections = 4

// StartAPI starts an API server that has no objects but its own.
func StartAPI(ctx context.Context, log *slog.Logger) (*API, error) {
	lab, err := netlab.New()
	if err != nil {
		return nil, err
	}
	a := &API{log: log, lab: lab}
	if err := a.start(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *API) start(ctx context.Context) (err error) {
	if a.Namespace, err = a.lab.Namespace("api"); err != nil {
		return err
	}
	err = errors.Join(
		a.Namespace.Bridge("nodes"),
		a.Namespace.Addr("nodes", netip.PrefixFrom(apiAddr, 24)))
	if err != nil {
		return err
	}
	a.Cluster, err = cluster.Start(ctx, cluster.Config{
		Listen:       apiAddr,
		Advertise:    apiAddr,
		ServiceCIDRs: []netip.Prefix{shape.ServiceCIDR},
		Users:        []cluster.User{{Name: User}},
		Args:         serverArgs,
		Command:      a.command,
		Dial:         a.Namespace.DialContext,
		Log:          a.log,
	})
	if err != nil {
		return err
	}
	clients := make([]*http.Client, connections)
	for i := range clients {
		clients[i] = a.ClientVia(cluster.Admin, a.Namespace.DialContext)
	}
	a.Loader = shape.NewLoader(a.URL, clients...)
	return nil
}

// command has the programs of the API collect garbage less often than others do: that is
// a third of their work while objects are loaded. Not so inside user-mode Linux: each page
// of a process is a mapping of the host's there, which grants it 65,530 of them if
// vm.max_map_count is as the kernel has it, some 256 MB. One that wants more is killed.
func (a *API) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := cluster.InNamespace(a.Namespace.Path())(ctx, name, args...)
	if result.UML() {
		cmd.Env = append(os.Environ(), "GOGC=20", "GOMEMLIMIT=100MiB")
	} else {
		cmd.Env = append(os.Environ(), "GOGC=400", "GOMEMLIMIT=4GiB")
	}
	return cmd
}

// serverArgs leave out what costs the server time and shows a proxy nothing.
var serverArgs = []string{
	"--max-requests-inflight=0",
	"--max-mutating-requests-inflight=0",
	"--enable-priority-and-fairness=false",
	"--disable-admission-plugins=ServiceAccount,LimitRanger,ResourceQuota,PodSecurity,MutatingAdmissionWebhook,ValidatingAdmissionWebhook,MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
	"--profiling=false",
	"--etcd-compaction-interval=0",
}

// Load writes the objects of a shape, to where the API server has its own; see
// shape.Store.
func (a *API) Load(ctx context.Context, s shape.Shape) error {
	began := time.Now()
	n, err := shape.NewStore(a.EtcdSocket()).Write(ctx, s.Objects())
	if err != nil {
		return fmt.Errorf("load %s: %w\n%s", s.Name, err, a.Logs(5))
	}
	for _, path := range []string{"/api/v1/services", "/apis/networking.k8s.io/v1/ipaddresses", "/apis/discovery.k8s.io/v1/endpointslices"} {
		if err := a.awaitCached(ctx, path); err != nil {
			return err
		}
	}
	a.awaitQuiet(ctx)
	took := time.Since(began)
	a.log.Info("the API server has the objects", "shape", s.Name, "objects", n, "took", took.Round(time.Millisecond), "per_second", int(float64(n)/took.Seconds()))
	return nil
}

// awaitCached waits until the API server has read of its store what is there now, as it
// has when it wrote it itself.
func (a *API) awaitCached(ctx context.Context, path string) error {
	var list metav1.PartialObjectMetadataList
	if err := a.Do(ctx, http.MethodGet, path+"?limit=1", nil, &list); err != nil { // from the store
		return err
	}
	query := url.Values{"resourceVersion": {list.ResourceVersion}, "resourceVersionMatch": {"NotOlderThan"}, "labelSelector": {"app=nobody"}}
	return netlab.Poll(cacheLimit, func() error { return a.Do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, nil) })
}

// cacheLimit is how long the API server may take for that; it says after some seconds
// that it has not done it.
const cacheLimit = 3 * time.Minute

// awaitQuiet waits until the API server has nothing to do: it compares all Services with
// their addresses once it has them. No proxy is to wait for that.
func (a *API) awaitQuiet(ctx context.Context) {
	const little = 10 // hundredths of a second, in each
	for last, end := a.ticks(), time.Now().Add(quietLimit); time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(time.Second)
		now := a.ticks()
		if now-last < little {
			return
		}
		last = now
	}
}

// quietLimit is when the API server is taken as it is.
const quietLimit = 2 * time.Minute

// ticks is the processor time of the API server, in hundredths of a second.
func (a *API) ticks() (sum int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.PID()))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	for i := 11; i < 13 && i < len(fields); i++ {
		n, _ := strconv.Atoi(fields[i]) // the kernel writes numbers
		sum += n
	}
	return sum
}

// Close ends the API server and everything at it.
func (a *API) Close() error {
	var err error
	if a.Cluster != nil {
		err = a.Cluster.Stop()
	}
	return errors.Join(err, a.lab.Close())
}
