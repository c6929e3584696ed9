// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/controller/config"
)

func TestChanges(t *testing.T) {
	decode := func(text string) *config.Configuration {
		c, unknown, err := config.Decode([]byte("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n" + text))
		if err != nil || len(unknown) > 0 {
			t.Fatal(err, unknown)
		}
		config.SetDefaults(c)
		return c
	}
	for _, tt := range []struct {
		name     string
		facts    Facts
		want     []string // in this order
		breaking int
		not      []string
	}{
		{name: "unknown", want: []string{"session affinity", "Metrics"}, not: []string{"IPVS", "FORWARD"}},
		{
			name:  "ipvs",
			facts: Facts{Mode: "ipvs", Schedulers: []string{"lc"}, Config: decode("mode: ipvs\nipvs: {scheduler: sh, strictARP: true, excludeCIDRs: [10.0.0.0/8], udpTimeout: 10s}\n"), Connections: 3},
			want: []string{"fewest connections (lc)", "client's address (sh)", "does not answer ping", "ipvs.udpTimeout (10s)",
				"3 connections go through IPVS", "strictARP", "excludeCIDRs 10.0.0.0/8", "invalid"},
			breaking: 4,
			not:      []string{"127.0.0.1", "ipvs.scheduler"},
		},
		{name: "ipvs, default", facts: Facts{Mode: "ipvs"}, want: []string{"ping", "in turn (rr)"}, breaking: 1},
		{name: "iptables", facts: Facts{Mode: "iptables", Accepts: true, RouteLocalnet: true}, want: []string{"FORWARD is DROP", "relay", "route_localnet", "refused at once"}, breaking: 1},
		{name: "iptables, not on localhost", facts: Facts{Mode: "iptables", Config: decode("iptables: {localhostNodePorts: false}\n")}, want: []string{"invalid"}, not: []string{"relay", "DROP"}},
		{name: "nftables", facts: Facts{Mode: "nftables", Config: decode("mode: nftables\nnodePortAddresses: [primary]\n")}, want: []string{"UDP flows"}, not: []string{"invalid", "no effect"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var text strings.Builder
			breaking := 0
			for _, c := range Changes(tt.facts) {
				text.WriteString(c.What + "\n")
				if c.Do == "" || !strings.HasSuffix(c.What, ".") {
					t.Errorf("%q: do %q", c.What, c.Do)
				}
				if c.Breaks {
					breaking++
				}
			}
			rest := text.String()
			for _, want := range tt.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Errorf("no %q, or not in its place:\n%s", want, text.String())
					continue
				}
				rest = after
			}
			for _, not := range tt.not {
				if strings.Contains(text.String(), not) {
					t.Errorf("%q is there:\n%s", not, text.String())
				}
			}
			if breaking != tt.breaking {
				t.Errorf("%d may break, want %d:\n%s", breaking, tt.breaking, text.String())
			}
		})
	}
}
