// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// three are Services web, dns and empty; the last one has no endpoints.
func three() *View {
	dns := &model.Service{
		Name:       types.NamespacedName{Namespace: "kube-system", Name: "dns"},
		ClusterIPs: [...]netip.Addr{addr("10.96.0.10"), addr("fd00:10:96::10")},
		Ports: []model.ServicePort{
			{Name: "dns", Protocol: model.UDP, Port: 53},
			{Name: "dns-tcp", Protocol: model.TCP, Port: 53},
		},
	}
	empty := &model.Service{
		Name:       types.NamespacedName{Namespace: "default", Name: "empty"},
		ClusterIPs: [...]netip.Addr{addr("10.96.0.3"), {}},
		Ports:      []model.ServicePort{{Protocol: model.SCTP, Port: 80}},
	}
	full := compiled(podsKnown, func(f model.Family) model.Selection { return pods(f, 3) }, web(nil), dns)
	none := compiled(podsKnown, func(model.Family) model.Selection { return model.Selection{} }, empty)
	for e := range none[0].Contents.Elements[nft.NoEndpoints] {
		full[0].Contents.Put(nft.Element{Set: nft.NoEndpoints, Key: e, Value: none[0].Contents.Elements[nft.NoEndpoints][e]})
	}
	full[0].Counters[Counter{nft.Services, nft.Key{Addr: addr("10.96.0.10"), Proto: nft.UDP, Port: 53}}] = 9
	full[0].Counters[Counter{nft.Services, nft.Key{Addr: addr("10.96.0.1"), Proto: nft.TCP, Port: 80}}] = 3
	return Of(full...)
}

func names(ports []ServicePort) string {
	var all []string
	for _, p := range ports {
		all = append(all, fmt.Sprintf("%s/%s", p.Name, p.Protocol))
	}
	return strings.Join(all, " ")
}

func TestChoose(t *testing.T) {
	const web, empty, dns, dnsTCP = "default/web:http/tcp", "default/empty/sctp", "kube-system/dns:dns/udp", "kube-system/dns:dns-tcp/tcp"
	v := three()
	cases := []struct {
		name   string
		filter Filter
		want   []string
	}{
		{"all", Filter{}, []string{empty, web, dns, dnsTCP}},
		{"a namespace", Filter{Namespace: "kube-system"}, []string{dns, dnsTCP}},
		{"a name in any namespace", Filter{Names: []string{"web"}}, []string{web}},
		{"a name in another namespace", Filter{Names: []string{"kube-system/web"}}, nil},
		{"a port", Filter{Names: []string{"kube-system/dns:dns-tcp", "empty"}}, []string{empty, dnsTCP}},
		{"a protocol", Filter{Protocol: nft.UDP}, []string{dns}},
		{"a ClusterIP", Filter{Addr: addr("fd00:10:96::10")}, []string{dns, dnsTCP}},
		{"an endpoint", Filter{Addr: addr("10.128.0.3")}, []string{web, dns, dnsTCP}},
		{"no endpoint", Filter{Addr: addr("10.128.0.4")}, nil},
		{"an address of the node", Filter{Addr: addr("192.0.2.7")}, []string{web}},
		{"a frontend", Filter{AddrPort: netip.MustParseAddrPort("10.96.0.1:80")}, []string{web}},
		{"a node port", Filter{AddrPort: netip.MustParseAddrPort("192.0.2.7:30080")}, []string{web}},
		{"another port", Filter{AddrPort: netip.MustParseAddrPort("10.96.0.1:81")}, nil},
		{"unserved", Filter{Unserved: true}, []string{empty}},
		{"text of a name", Filter{Text: "ystem/d"}, []string{dns, dnsTCP}},
		{"text of an address", Filter{Text: "198.51."}, []string{web}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := names(tc.filter.Choose(v)); got != strings.Join(tc.want, " ") {
				t.Errorf("got %s, want %v", got, tc.want)
			}
		})
	}
}

func TestSort(t *testing.T) {
	for by, want := range map[Order]string{
		ByName:        "default/empty/sctp default/web:http/tcp kube-system/dns:dns/udp kube-system/dns:dns-tcp/tcp",
		ByConnections: "kube-system/dns:dns/udp default/web:http/tcp default/empty/sctp kube-system/dns:dns-tcp/tcp",
		ByEndpoints:   "default/empty/sctp default/web:http/tcp kube-system/dns:dns/udp kube-system/dns:dns-tcp/tcp",
		ByAddress:     "default/web:http/tcp default/empty/sctp kube-system/dns:dns/udp kube-system/dns:dns-tcp/tcp",
		ByState:       "default/empty/sctp default/web:http/tcp kube-system/dns:dns/udp kube-system/dns:dns-tcp/tcp",
	} {
		o, err := ParseOrder(string(by))
		ports := three().Ports
		if Sort(ports, o); names(ports) != want || err != nil {
			t.Errorf("%s: %s, %v", by, names(ports), err)
		}
	}
	if _, err := ParseOrder("colour"); err == nil {
		t.Error("colour is an order")
	}
}

func TestRates(t *testing.T) {
	tally := NewTally()
	read := func(packets uint64) {
		tally.Begin()
		tally.Add(1, nft.Element{Set: nft.Services, Key: nft.Key{Proto: nft.TCP, Port: 80},
			Value: nft.Value{Comment: "default/web:http", Verdict: nft.Chain{Kind: nft.Service, N: 1}}}, packets)
		tally.End(true)
	}
	name := Name{"default", "web", "http", nft.TCP}
	var r Rates
	now := time.Unix(1000, 0)
	read(100)
	if r.Update(now, tally); r.Known() {
		t.Error("a rate is known of one reading")
	}
	read(130)
	r.Update(now, tally)
	if r.Known() {
		t.Error("a rate is known of one moment")
	}
	if r.Update(now.Add(2*time.Second), tally); r.Of(name) != 15 || r.Total() != 15 || !r.Known() {
		t.Errorf("%v a second, want 15", r.Of(name))
	}
	read(130)
	if r.Update(now.Add(3*time.Second), tally); r.Of(name) != 0 || r.Total() != 0 {
		t.Errorf("%v a second, want none", r.Of(name))
	}
}
