// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// connecting is a ConnectionCounter.
type connecting struct {
	frontends map[view.Counter]nft.Value
	packets   map[view.Counter]uint64
	table     uint64
	torn      bool
	err       error
}

func (c *connecting) Connections(_ context.Context, _ nft.Family, each func(uint64, nft.Element, uint64)) (bool, error) {
	for k, v := range c.frontends {
		each(c.table, nft.Element{Set: k.Set, Key: k.Key, Value: v}, c.packets[k])
	}
	return !c.torn && c.err == nil, c.err
}

// set makes a frontend, or changes it.
func (c *connecting) set(set nft.Set, port uint16, comment string, packets uint64) {
	k := view.Counter{Set: set, Key: nft.Key{Proto: nft.TCP, Port: port}}
	v := nft.Value{Comment: comment, Verdict: nft.Chain{Kind: nft.Service, N: 1}}
	c.frontends[k], c.packets[k] = v, packets
}

func (c *connecting) remove(set nft.Set, port uint16) {
	delete(c.frontends, view.Counter{Set: set, Key: nft.Key{Proto: nft.TCP, Port: port}})
}

// connected returns what connects, and what is scraped of it.
func connected(t *testing.T, limit int, log *bytes.Buffer) (*connecting, func() map[string]float64) {
	config := testConfig()
	delete(config.Options, nft.IPv6)
	registry := prometheus.NewPedanticRegistry()
	counter := &connecting{table: 1, frontends: make(map[view.Counter]nft.Value), packets: make(map[view.Counter]uint64)}
	config.Metrics, config.ServiceConnections, config.ServiceConnectionsLimit = registry, counter, limit
	config.Logger = slog.New(slog.NewTextHandler(log, nil))
	New(config, newFake())
	return counter, func() map[string]float64 { t.Helper(); return connectionsIn(t, registry) }
}

// connectionsIn returns the connections of a registry's Service ports, zero or not.
func connectionsIn(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.Metric {
			labels := make(map[string]string)
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			switch family.GetName() {
			case "kube_nft_service_connections_total":
				all[fmt.Sprintf("%s/%s:%s %s %s", labels["namespace"], labels["service"], labels["port"], labels["protocol"], labels["ip_family"])] = m.GetCounter().GetValue()
			case "kube_nft_service_ports_omitted":
				if n := m.GetGauge().GetValue(); n > 0 {
					all["omitted"] = n
				}
			}
		}
	}
	return all
}

// TestServiceConnections: sums rise by what frontends count and never fall, whatever
// becomes of the frontends.
func TestServiceConnections(t *testing.T) {
	const web, dns = "default/web:http tcp IPv4", "kube-system/dns: tcp IPv4"
	c, scrape := connected(t, 10, &bytes.Buffer{})
	check := func(name string, want map[string]float64) {
		t.Helper()
		if d := cmp.Diff(want, scrape()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	c.set(nft.Services, 80, "default/web:http", 1000)
	c.set(nft.Services, 53, "kube-system/dns", 50)
	check("what was counted before begins at nothing", map[string]float64{web: 0, dns: 0})
	c.set(nft.Services, 80, "default/web:http", 1010)
	c.set(nft.NodePorts, 30080, "default/web:http", 5)
	check("more, and a new frontend", map[string]float64{web: 15, dns: 0})
	c.set(nft.LocalServices, 80, "default/web:http", 100)
	c.set(nft.LocalServices, 81, "", 100)
	check("a frontend in another map, and somebody else's", map[string]float64{web: 115, dns: 0})
	c.set(nft.Services, 80, "default/web:http", 1009)
	check("a counter was carried over while it counted", map[string]float64{web: 115, dns: 0})
	c.set(nft.Services, 80, "default/web:http", 3)
	check("it went and came again", map[string]float64{web: 118, dns: 0})
	c.remove(nft.NodePorts, 30080)
	check("a frontend goes", map[string]float64{web: 118, dns: 0})
	c.set(nft.NodePorts, 30080, "default/web:http", 4)
	check("and comes again", map[string]float64{web: 122, dns: 0})
	c.set(nft.NodePorts, 30080, "kube-system/dns", 6)
	check("it passes on to another Service", map[string]float64{web: 122, dns: 2})

	c.remove(nft.Services, 53)
	c.remove(nft.NodePorts, 30080)
	c.set(nft.NoEndpoints, 53, "kube-system/dns", 0)
	check("no endpoints", map[string]float64{web: 122, dns: 2})
	c.remove(nft.NoEndpoints, 53)
	c.set(nft.Services, 53, "kube-system/dns", 1)
	check("and endpoints again", map[string]float64{web: 122, dns: 3})
	c.remove(nft.Services, 53)
	check("a Service goes", map[string]float64{web: 122})

	drop := view.Counter{Set: nft.LocalServices, Key: nft.Key{Proto: nft.TCP, Port: 80}}
	c.frontends[drop] = nft.Value{Comment: "default/web:http", Verdict: nft.Chain{Kind: nft.Drop}}
	c.packets[drop] = 500
	check("what is dropped is no connection", map[string]float64{web: 122})
	c.set(nft.LocalServices, 80, "default/web:http", 501)
	check("nor later", map[string]float64{web: 123})

	c.table = 2
	check("a table made anew, in which as much has come", map[string]float64{web: 123 + 3 + 501})
}

// TestServiceConnectionsTorn: a reading that lacks something forgets nothing, and
// what it lacked is not taken for new.
func TestServiceConnectionsTorn(t *testing.T) {
	const web = "default/web: tcp IPv4"
	var log bytes.Buffer
	c, scrape := connected(t, 10, &log)
	check := func(name string, want map[string]float64) {
		t.Helper()
		if d := cmp.Diff(want, scrape()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	c.torn = true
	check("nothing", map[string]float64{})
	c.set(nft.Services, 80, "default/web", 1000)
	check("it may have been there", map[string]float64{web: 0})
	c.set(nft.Services, 80, "default/web", 1001)
	c.torn = false
	check("it counts", map[string]float64{web: 1})
	c.torn = true
	c.remove(nft.Services, 80)
	check("it is left out", map[string]float64{web: 1})
	c.set(nft.Services, 80, "default/web", 1003)
	check("it is there again", map[string]float64{web: 3})
	c.err = errors.New("no buffer space")
	c.remove(nft.Services, 80)
	check("nothing can be read", map[string]float64{web: 3})
	check("nothing can be read again", map[string]float64{web: 3})
	c.err, c.torn = nil, false
	c.set(nft.Services, 80, "default/web", 1004)
	check("it can", map[string]float64{web: 4})
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines, want one:\n%s", n, &log)
	}

	c.torn = true
	for i := range 3 * view.FewFrontends {
		c.set(nft.NodePorts, uint16(i), "default/web", 7)
	}
	scrape()
	for i := range 3 * view.FewFrontends {
		c.remove(nft.NodePorts, uint16(i))
	}
	before := scrape()[web]
	c.torn = false
	c.set(nft.NodePorts, 1, "default/web", 9)
	check("too much to keep was forgotten, so that nothing is known to be new", map[string]float64{web: before})
}

// TestServiceConnectionsLimit: those with most connections are listed.
func TestServiceConnectionsLimit(t *testing.T) {
	c, scrape := connected(t, 2, &bytes.Buffer{})
	scrape()
	for i, n := range []uint64{3, 9, 0, 5} {
		c.set(nft.Services, uint16(i), fmt.Sprintf("default/s%d:http", i), n)
	}
	want := map[string]float64{"default/s1:http tcp IPv4": 9, "default/s3:http tcp IPv4": 5, "omitted": 2}
	if d := cmp.Diff(want, scrape()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestServiceConnectionsUncounted: tables without counters have nothing to tell.
func TestServiceConnectionsUncounted(t *testing.T) {
	c := newConnections(&connecting{}, 1, []*table{{schema: nft.NewSchema(nft.IPv4, nft.Options{})}}, slog.Default())
	if len(c.tallies) != 0 {
		t.Errorf("%d tables", len(c.tallies))
	}
}

// TestConnectionsOfPackets: real connections through all frontends of a Service are
// counted once each, and go on while endpoints and the whole table change.
func TestConnectionsOfPackets(t *testing.T) {
	lab := netlab.NewT(t)
	node := lab.Namespace("node")
	lab.Must(node.IP("link add pods type veth peer name peer", "link set peer up", "addr add 10.128.0.2/24 dev pods", "addr add 10.128.0.3/24 dev pods",
		"addr add 203.0.113.7/24 dev pods", "link set pods up", "route add default dev pods"))
	config := testConfig()
	delete(config.Options, nft.IPv6)
	registry := prometheus.NewPedanticRegistry()
	config.Metrics, config.ServiceConnections, config.ServiceConnectionsLimit = registry, openKernel(t, node), 10
	c := New(config, openKernel(t, node))
	service := wanting("web", "10.96.0.1", 1)
	cluster := corev1.ServiceInternalTrafficPolicyCluster
	service.Spec.InternalTrafficPolicy, service.Spec.ExternalTrafficPolicy = &cluster, corev1.ServiceExternalTrafficPolicyCluster
	service.Spec.Type, service.Spec.Ports = corev1.ServiceTypeNodePort, service.Spec.Ports[:1]
	service.Spec.Ports[0].NodePort = 30080
	slice := elsewhere("web")
	endpoints := func(addrs ...string) {
		t.Helper()
		slice.Endpoints = nil
		for _, a := range addrs {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
		}
		c.queue.SetSlice(slice)
		c.mustPass(t)
	}
	want := 0
	ask := func(name string) {
		t.Helper()
		for _, dst := range []string{"10.96.0.1:80", "192.0.2.1:80", "203.0.113.7:30080"} {
			for range 3 {
				lab.Ask(node, "tcp", netip.MustParseAddrPort(dst))
				want++
			}
		}
		if got := connectionsIn(t, registry)["default/web: tcp IPv4"]; got != float64(want) {
			t.Errorf("%s: %v connections, want %d", name, got, want)
		}
	}
	lab.Serve(node, "tcp", netip.MustParseAddrPort("10.128.0.2:8080"), "one")
	lab.Serve(node, "tcp", netip.MustParseAddrPort("10.128.0.3:8080"), "two")
	c.queue.SetService(service)
	c.queue.Synced()
	connectionsIn(t, registry)
	endpoints("10.128.0.2")
	ask("one endpoint")
	endpoints("10.128.0.2", "10.128.0.3")
	ask("two endpoints")
	endpoints()
	endpoints("10.128.0.3")
	ask("none, and one again")
	for _, t := range c.tables {
		t.resync = true
	}
	lab.Must(node.NFT("delete table ip kube-nft"))
	c.mustPass(t)
	ask("a table made anew")
}
