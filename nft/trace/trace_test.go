// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// know is a Lookup of a host with one Service and one table of others.
type know struct{}

var (
	client   = netip.MustParseAddrPort("192.168.1.2:40000")
	frontAt  = netip.MustParseAddrPort("10.96.0.1:80")
	podAt    = netip.MustParseAddrPort("10.128.0.3:8080")
	ourTable = Table{nft.IPv4, nft.TableName}
	others   = Table{Inet, "guard"}
)

func (know) Base(t Table, chain string) (hook string, nat, ok bool) {
	switch chain {
	case "PREROUTING":
		return "prerouting", true, true
	case "KUBE-UNSERVED-FORWARD", "pass":
		return "forward", false, true
	case "KUBE-POSTROUTING":
		return "postrouting", true, true
	}
	return "", false, false
}

func (know) Rule(_ Table, chain string, handle uint64) (comment string, rejects, ok bool) {
	return "why not", chain == "refuse", true
}

func (know) Frontend(_ nft.Family, set nft.Set, key nft.Key) (nft.Element, bool) {
	e := nft.Element{Set: set, Key: key, Value: nft.Value{Comment: "default/web:http", Verdict: nft.Chain{Kind: nft.Service, N: 2}}}
	return e, set == nft.Services && key.Addr == frontAt.Addr()
}

func (know) Slots(_ nft.Family, e nft.Element) []nft.Element {
	e.Set = nft.Endpoints
	first, second := e, e
	first.Value.To = netip.MustParseAddrPort("10.128.0.2:8080")
	second.Key.Slot, second.Value.To = 1, podAt
	return []nft.Element{first, second}
}

func (know) Device(index uint32) string {
	return map[uint32]string{1: "lo", 2: "eth0", 3: "pod"}[index]
}

// way makes events of one packet.
type way struct {
	events []Event
	id     uint32
	header Header
	in     uint32
	out    uint32
}

func begun() *way {
	w := &way{id: 7, in: 2, header: Header{Src: client, Dst: frontAt, Proto: nft.TCP, TTL: 64, Length: 60, Begins: true}}
	return w.enter(OwnTable, follow).rule(follow, Continue, "").policy("PREROUTING-BEGINS")
}

// enter comes to a base chain.
func (w *way) enter(t Table, chain string) *way {
	h := w.header
	w.events = append(w.events, Event{ID: w.id, Table: t, Chain: chain, Header: &h, In: w.in, Out: w.out, Type: Return, Verdict: Verdict{Code: Continue}})
	return w
}

func (w *way) add(e Event) *way {
	e.ID, e.Table = w.id, w.events[len(w.events)-1].Table
	w.events = append(w.events, e)
	return w
}

func (w *way) rule(chain string, code int32, to string) *way {
	return w.add(Event{Chain: chain, Rule: 5, Type: Rule, Verdict: Verdict{code, to}})
}

func (w *way) policy(chain string) *way {
	return w.add(Event{Chain: chain, Type: Policy, Verdict: Verdict{Code: Accept}})
}

func (w *way) witness(chain string) *way { return w.enter(OwnTable, chain).policy(chain) }

// served goes through PREROUTING to the endpoint.
func (w *way) served() *way {
	w.enter(ourTable, "PREROUTING").rule("PREROUTING", Goto, "KUBE-SVC-2").rule("KUBE-SVC-2", Jump, "KUBE-MARK-MASQ").rule("KUBE-SVC-2", Accept, "")
	w.header.Dst = podAt
	return w.witness("PREROUTING-ENDS")
}

func (w *way) forwarded() *way {
	w.out = 3
	return w.witness("FORWARD-BEGINS")
}

// told is the part of a story that a case is about.
type told struct {
	Outcome  Outcome
	Service  string
	Endpoint string
	Slot     uint32
	SeenAs   string
	Masq     bool
	By       string
	Reason   string
}

func TestTell(t *testing.T) {
	masqueraded := begun().served().forwarded().enter(ourTable, "KUBE-UNSERVED-FORWARD").rule("KUBE-UNSERVED-FORWARD", Accept, "").
		witness("FORWARD-ENDS").witness("POSTROUTING-BEGINS").enter(ourTable, "KUBE-POSTROUTING").rule("KUBE-POSTROUTING", Goto, "KUBE-MASQ").rule("KUBE-MASQ", Accept, "")
	masqueraded.header.Src = netip.MustParseAddrPort("10.128.0.1:5000")
	masqueraded.witness("POSTROUTING-ENDS")
	tracked := begun()
	tracked.header.Dst = podAt
	tracked.witness("PREROUTING-ENDS").forwarded().witness("FORWARD-ENDS").witness("POSTROUTING-ENDS")
	for _, tt := range []struct {
		name string
		way  *way
		want told
	}{
		{"served and masqueraded", masqueraded, told{Outcome: Forwarded, Service: "default/web:http", Endpoint: podAt.String(), Slot: 1, SeenAs: "10.128.0.1:5000", Masq: true}},
		{"dropped by others", begun().served().forwarded().enter(others, "pass").rule("pass", Drop, ""),
			told{Outcome: Dropped, Service: "default/web:http", Endpoint: podAt.String(), Slot: 1, By: "inet guard pass",
				Reason: `dropped by table inet guard, chain pass, rule handle 5 "why not"`}},
		{"rejected by others", begun().served().forwarded().enter(others, "pass").rule("pass", Jump, "refuse").rule("refuse", Drop, ""),
			told{Outcome: Rejected, Service: "default/web:http", Endpoint: podAt.String(), Slot: 1, By: "inet guard refuse",
				Reason: `rejected by table inet guard, chain refuse, rule handle 5 "why not"`}},
		{"a policy", begun().served().forwarded().enter(others, "pass").add(Event{Chain: "pass", Type: Policy, Verdict: Verdict{Code: Drop}}),
			told{Outcome: Dropped, Service: "default/web:http", Endpoint: podAt.String(), Slot: 1, By: "inet guard pass",
				Reason: "dropped by table inet guard, chain pass, policy"}},
		{"queued", begun().served().forwarded().enter(others, "pass").rule("pass", 3|7<<16, ""),
			told{Outcome: Queued, Service: "default/web:http", Endpoint: podAt.String(), Slot: 1, By: "inet guard pass",
				Reason: `handed to a process by table inet guard, chain pass, rule handle 5 "why not"`}},
		{"lost in routing", begun().served(), told{Outcome: Lost, Service: "default/web:http", Endpoint: podAt.String(), Slot: 1,
			Reason: "vanished after hook prerouting, in routing: no rule dropped it"}},
		{"lost in a hook", begun(), told{Outcome: Lost, Reason: "vanished within hook prerouting, and no rule of nftables says that it did it: conntrack, legacy iptables, IPVS or another module is there"}},
		{"lost between hooks", begun().served().forwarded().witness("FORWARD-ENDS"), told{Outcome: Lost, Service: "default/web:http", Endpoint: podAt.String(), Slot: 1,
			Reason: "vanished between the hooks forward and postrouting: no rule dropped it; it may be too long for the next link, or for IPsec to decide"}},
		{"a later packet of a connection", tracked, told{Outcome: Forwarded}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, ok := Tell(tt.way.events, know{})
			if !ok {
				t.Fatal("no story")
			}
			got := told{Outcome: p.Outcome, Masq: p.Masqueraded, Reason: p.Reason}
			if p.Service != nil {
				got.Service = p.Service.String()
			}
			if p.Endpoint != nil {
				got.Endpoint, got.Slot = p.Endpoint.Address.String(), p.Endpoint.Slot
			}
			if p.SeenAs != nil {
				got.SeenAs = p.SeenAs.String()
			}
			if p.By != nil {
				got.By = p.By.Table + " " + p.By.Chain
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			var text bytes.Buffer
			if err := p.Format(&text); err != nil || strings.Count(text.String(), "=> ") != 1 {
				t.Errorf("text: %v\n%s", err, &text)
			}
		})
	}
}

// TestTellOthers: what somebody else has traced is no story of ours.
func TestTellOthers(t *testing.T) {
	w := &way{id: 1, header: Header{Src: client, Dst: frontAt}}
	if p, ok := Tell(w.enter(others, "pass").policy("pass").events, know{}); ok {
		t.Errorf("told %+v", p)
	}
	if p, ok := Tell(nil, know{}); ok {
		t.Errorf("of nothing told %+v", p)
	}
}

// TestGatherer: events of packets are told apart by number and time, a number may
// come again, and what a host sends to itself is one packet.
func TestGatherer(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(w *way) []Event {
		for i := range w.events {
			w.events[i].Time = now
		}
		return w.events
	}
	first, second := begun().served(), begun().served()
	second.id = 8
	for i := range second.events {
		second.events[i].ID = 8
	}
	var g Gatherer
	for i, e := range at(first) {
		g.Add(e)
		g.Add(at(second)[i])
	}
	if got := g.Ripe(now.Add(quiet / 2)); got != nil {
		t.Errorf("%d packets are ripe before their time", len(got))
	}
	if got := g.Next(); !got.Equal(now.Add(quiet)) {
		t.Errorf("next at %v", got)
	}
	if got := g.Ripe(now.Add(quiet)); len(got) != 2 || len(got[0]) != len(first.events) || len(got[1]) != len(second.events) {
		t.Errorf("got %d packets", len(got))
	}

	done := begun().served().forwarded().witness("POSTROUTING-ENDS")
	for _, e := range append(at(done), at(begun())...) {
		g.Add(e)
	}
	if got := g.Ripe(time.Time{}); len(got) != 2 {
		t.Errorf("a number that came again: %d packets", len(got))
	}

	own := &way{id: 3, out: 1, header: Header{Src: client, Dst: podAt, Proto: nft.TCP}}
	own.enter(OwnTable, follow).policy("OUTPUT-BEGINS").witness("POSTROUTING-ENDS")
	back := &way{id: 4, in: 1, header: own.header}
	back.enter(OwnTable, "PREROUTING-BEGINS").policy("PREROUTING-BEGINS").witness("INPUT-ENDS")
	for _, e := range append(at(own), at(back)...) {
		g.Add(e)
	}
	got := g.Ripe(time.Time{})
	if len(got) != 1 {
		t.Fatalf("what a host sends to itself: %d packets", len(got))
	}
	if p, _ := Tell(got[0], know{}); p.Outcome != Delivered || p.In != "" || p.Out != "lo" {
		t.Errorf("told %+v", p)
	}
	if len(g.byID) != 0 {
		t.Errorf("%d numbers are kept", len(g.byID))
	}

	for i := range maxGathered {
		g.Add(Event{ID: uint32(i)})
	}
	if g.Full {
		t.Errorf("full of %d packets", len(g.open))
	}
	g.Add(Event{ID: maxGathered})
	if got := g.Ripe(time.Time{}); len(got) != maxGathered || !g.Full {
		t.Errorf("%d packets, one of them too many: full is %t", len(got), g.Full)
	}
}

// TestParseHeader: what is not whole is told as far as it goes.
func TestParseHeader(t *testing.T) {
	network := append([]byte{0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0}, 192, 168, 1, 2, 10, 96, 0, 1)
	transport := []byte{0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12}
	want := Header{Src: client, Dst: frontAt, Proto: nft.TCP, TTL: 64, Length: 60}
	if got, ok := ParseHeader(network, transport); !ok || got != want {
		t.Errorf("got %+v", got)
	}
	want.Begins, want.Src, want.Dst = true, netip.AddrPortFrom(client.Addr(), 0), netip.AddrPortFrom(frontAt.Addr(), 0)
	if got, ok := ParseHeader(network, nil); !ok || got != want {
		t.Errorf("without the transport header got %+v", got)
	}
	if got, ok := ParseHeader(network[:19], transport); ok {
		t.Errorf("of half a header got %+v", got)
	}
}

// FuzzDecode: whatever a message holds, there is no panic, and of its story neither.
func FuzzDecode(f *testing.F) {
	body := []byte{1, 0, 0, 0}
	body = wire.AppendAttr(body, unix.NFTA_TRACE_TABLE, []byte(TableName+"\x00")...)
	body = wire.AppendAttr(body, unix.NFTA_TRACE_CHAIN, []byte("PREROUTING-BEGINS\x00")...)
	body = wire.AppendAttr(body, unix.NFTA_TRACE_TYPE, 0, 0, 0, 3)
	body = wire.AppendAttr(body, unix.NFTA_TRACE_NETWORK_HEADER, append([]byte{0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0}, 192, 168, 1, 2, 10, 96, 0, 1)...)
	body = wire.AppendAttr(body, unix.NFTA_TRACE_TRANSPORT_HEADER, 0x9c, 0x40, 0, 80)
	f.Add(body)
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			return
		}
		var g Gatherer
		g.Add(e)
		g.Add(e)
		for _, events := range g.Ripe(time.Time{}) {
			if p, ok := Tell(events, know{}); ok {
				p.Gap()
				if err := p.Format(&bytes.Buffer{}); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
