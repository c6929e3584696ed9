// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
)

// explained is what kube-nft explain says of a packet, as far as packets can show it.
type explained struct {
	Fates     []string `json:"fates"`
	Why       string   `json:"reason"`
	Frontend  string   `json:"servicePort"`
	Endpoints []struct {
		Endpoint    netip.AddrPort `json:"endpoint"`
		Share       float64        `json:"share"`
		Fate        string         `json:"fate"`
		Masqueraded bool           `json:"masqueraded"`
		Sees        netip.Addr     `json:"sees"`
	} `json:"endpoints"`
	Candidates []struct {
		Endpoint netip.AddrPort `json:"endpoint"`
		In       bool           `json:"in"`
		Why      string         `json:"reason"`
		Wanted   bool           `json:"wanted"`
	} `json:"candidates"`
	Remembered *struct {
		Endpoint       netip.AddrPort `json:"endpoint"`
		TimeoutSeconds int            `json:"timeoutSeconds"`
	} `json:"remembered"`
	Affinity bool           `json:"sessionAffinity"`
	OnlyFrom []netip.Prefix `json:"onlyFrom"`
	Drift    []string       `json:"drift"`
	Notes    []string       `json:"notes"`
	Others   []struct {
		Action string `json:"action"`
		Place  string `json:"place"`
		Sure   bool   `json:"sure"`
	} `json:"others"`
	Claims []struct {
		Service string `json:"service"`
		Granted bool   `json:"granted"`
	} `json:"claims"`
}

// explain asks kube-nft explain on the node.
func (c *cluster) explain(t *testing.T, args ...string) (x explained) {
	t.Helper()
	out, err := c.node.Run(program(t), append([]string{"explain", "-o", "json"}, args...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &x)
	}
	if err != nil {
		t.Fatalf("explain %v: %v: %s", args, err, out)
	}
	return x
}

// named is how a host is named to explain.
func (c *cluster) named(from *host, f family) string {
	if from == c.node {
		return "node"
	}
	return from.addrs[f].String()
}

// agree checks that packets fare as explain says, and returns what it said.
func (c *cluster) agree(t *testing.T, from *host, network string, dst netip.AddrPort) explained {
	t.Helper()
	f := familyOf(dst)
	op := fmt.Sprintf("from %s to %s %s", from.Name(), network, dst)
	x := c.explain(t, c.named(from, f), dst.String()+"/"+network)
	if len(x.Fates) != 1 {
		t.Errorf("%s: explained as %v", op, x.Fates)
		return x
	}
	switch x.Fates[0] {
	case "endpoint":
		if err := c.meetsEndpoints(from, network, dst, x); err != nil {
			t.Errorf("%s: %v; explained as %+v", op, err, x)
		}
	case "rejected":
		if err := c.tryRefused(from, network, dst); err != nil {
			t.Errorf("%s: explained as rejected, %s: %v", op, x.Why, err)
		}
	case "dropped":
		c.vanishes(t, from, network, dst)
	case "host", "forwarded":
		a, err := from.ask(network, dst, silence)
		if err == nil && (a.Server != "plain" || a.Source.Addr() != from.addrs[f] && from != c.node) {
			t.Errorf("%s: explained as %s, answered by %s, which saw %s", op, x.Fates[0], a.Server, a.Source)
		}
	case "unroutable":
		if a, err := from.ask(network, dst, silence); err == nil {
			t.Errorf("%s: explained as without a way, answered by %s", op, a.Server)
		}
	default:
		t.Errorf("%s: explained as %q", op, x.Fates[0])
	}
	if len(x.Drift) > 0 {
		t.Errorf("%s: explained with drift: %q", op, x.Drift)
	}
	return x
}

// meetsEndpoints asks until all endpoints have answered, and sees that no others do and
// that they see what is explained.
func (c *cluster) meetsEndpoints(from *host, network string, dst netip.AddrPort, x explained) error {
	f := familyOf(dst)
	sees, missing := make(map[string]netip.Addr), make(map[string]bool)
	for _, e := range x.Endpoints {
		server := e.Endpoint.String()
		for _, h := range []*host{c.a, c.b, c.r, c.s, c.node} {
			if h.at(f, targetPort) == e.Endpoint {
				server = h.Name()
			}
		}
		sees[server], missing[server] = e.Sees, true
	}
	const enough = 5
	for i := 0; i < enough || len(missing) > 0 && !x.Affinity; i++ {
		if i == 40*len(sees) {
			return fmt.Errorf("never answered by %v", missing)
		}
		a, err := from.ask(network, dst, patience)
		if err != nil {
			return err
		}
		want, ok := sees[a.Server]
		if !ok {
			return fmt.Errorf("answered by %s", a.Server)
		}
		delete(missing, a.Server)
		if a.Source.Addr() != want {
			return fmt.Errorf("%s saw %s, explained as %s", a.Server, a.Source.Addr(), want)
		}
	}
	return nil
}

// explainable writes Services of all kinds.
func (c *cluster) explainable(t *testing.T) {
	t.Helper()
	c.write(t, "node.yaml", inZone("here"))
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a, c.b, c.r)...)
	c.write(t, "local.yaml", withSlices(externalLocal(everywhere("local", 2)), c.a, c.r)...)
	c.write(t, "away.yaml", withSlices(externalLocal(everywhere("away", 3)), c.r)...)
	c.write(t, "inner.yaml", withSlices(internalLocal(everywhere("inner", 4)), c.b, c.r)...)
	c.write(t, "inner-away.yaml", withSlices(internalLocal(everywhere("inner-away", 5)), c.r)...)
	c.write(t, "empty.yaml", withSlices(everywhere("empty", 6))...)
	c.write(t, "ranges.yaml", withSlices(restricted(everywhere("ranges", 7), "192.168.1.2/32", "10.128.0.0/24", "fd00:1::2/128", "fd00:10:128::/64"), c.a, c.r)...)
	c.write(t, "sticky.yaml", withSlices(sticky(everywhere("sticky", 8), 600), c.a, c.b, c.r)...)
	c.write(t, "sticky-local.yaml", withSlices(sticky(externalLocal(everywhere("sticky-local", 9)), 600), c.a, c.b, c.r)...)
	c.write(t, "hints.yaml", withHints(withSlices(everywhere("hints", 10), c.a, c.r), zones("here"), zones("there"))...)
	c.write(t, "host.yaml", withSlices(everywhere("host", 11), c.node, c.r)...)
	for _, network := range networks {
		for _, f := range families {
			c.Serve(c.node.Namespace, network, c.node.at(f, targetPort), "node")
		}
	}
}

// explainableTo lists what can be asked of these Services, and what is none.
func explainableTo(f family) (all []netip.AddrPort) {
	for n := 1; n <= 11; n++ {
		all = append(all, frontends(n, f)...)
	}
	return append(all,
		netip.AddrPortFrom(clusterIP(1)[f], 81),  // a port that it does not have
		netip.AddrPortFrom(secondary[f], 30001),  // an address of the node, where node ports may not be served
		netip.AddrPortFrom(outside[f], 30099),    // no node port
		netip.AddrPortFrom(clusterIP(77)[f], 80), // no Service's
		netip.AddrPortFrom(peer[f], 9999))        // another host
}

// TestExplain: whatever is asked from wherever, packets fare as explain says: the same
// endpoints, which see the same source, or the same refusal, under every configuration
// that the rules depend on.
func TestExplain(t *testing.T) {
	t.Parallel()
	froms := func(c *cluster) []*host { return []*host{c.client, c.node, c.a, c.b, c.s} }
	for n, tt := range []struct {
		name  string
		flags []string
	}{
		{"cluster CIDR", []string{"--cluster-cidr", clusterCIDR}},
		{"nothing known of pods", nil},
		{"masquerade all", []string{"--cluster-cidr", clusterCIDR, "--masquerade-all", "--iptables-masquerade-bit", "7"}},
		{"interfaces, all node ports", []string{"--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "pod-", "--nodeport-addresses", "all"}},
		{"a bridge that is not there", []string{"--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "cni0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.explainable(t)
			c.run(t, tt.flags...)
			asked := 0
			for _, f := range families {
				for i, dst := range explainableTo(f) {
					for j, from := range froms(c) {
						// All of it once; of other configurations one in five, each another one.
						if n == 0 && !testing.Short() || (i+j+n)%5 == 0 {
							c.agree(t, from, networks[(i+j)%2], dst)
							asked++
						}
					}
				}
			}
			t.Logf("%d questions", asked)
		})
	}
}
