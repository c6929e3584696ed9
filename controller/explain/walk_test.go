// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
)

// contents are a table that is kept in memory.
type contents struct {
	nft.Contents
	schema *nft.Schema
}

func (c contents) Schema() *nft.Schema { return c.schema }

func (c contents) Get(set nft.Set, k nft.Key) (nft.Element, bool) {
	v, ok := c.Elements[set][k]
	return nft.Element{Set: set, Key: k, Value: v}, ok
}

func (c contents) Slots(set nft.Set, frontend nft.Key, n uint32) []netip.AddrPort {
	slots := make([]netip.AddrPort, n)
	for i := range slots {
		frontend.Slot = uint32(i)
		slots[i] = c.Elements[set][frontend].To
	}
	return slots
}

func (contents) Client(string, netip.Addr) (Remembered, bool) { return Remembered{}, false }
func (contents) Sources(nft.Key) []netip.Prefix               { return nil }

// host is one with a device to the outside and one to pods.
type host struct{}

func (host) Route(to, _ netip.Addr, _ string) Route {
	switch {
	case to == netip.MustParseAddr("192.0.2.1"):
		return Route{Local: true, Out: "lo", Source: to}
	case netip.MustParsePrefix("10.128.0.0/16").Contains(to):
		return Route{Out: "cni0", Source: netip.MustParseAddr("10.128.0.1")}
	}
	return Route{Out: "eth0", Via: netip.MustParseAddr("192.0.2.254"), Source: netip.MustParseAddr("192.0.2.1")}
}

func (host) Addrs() []Addr {
	return []Addr{
		{Prefix: netip.MustParsePrefix("127.0.0.1/8"), Interface: "lo", Narrow: true},
		{Prefix: netip.MustParsePrefix("192.0.2.1/24"), Interface: "eth0"},
		{Prefix: netip.MustParsePrefix("10.128.0.1/24"), Interface: "cni0"},
	}
}

func (host) Forwards(netip.Addr) bool { return true }

// crowd is a table with one Service of n endpoints.
func crowd(n int) contents {
	c := contents{schema: nft.NewSchema(nft.IPv4, nft.Options{MasqueradeBit: 14, LocalPods: nft.LocalPods{Prefix: netip.MustParsePrefix("10.128.0.0/16")}})}
	frontend := nft.Key{Addr: netip.MustParseAddr("10.96.0.1"), Proto: nft.TCP, Port: 80}
	c.Put(nft.Element{Set: nft.Services, Key: frontend, Value: nft.Value{Verdict: nft.Chain{Kind: nft.Service, N: nft.Modulus(n)}, Comment: "default/web:http"}})
	for i := range n {
		frontend.Slot = uint32(i)
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 128, byte(1 + i/256), byte(i)}), 8080)
		c.Put(nft.Element{Set: nft.Endpoints, Key: frontend, Value: nft.Value{To: to}})
	}
	return c
}

var webPacket = Packet{Origin: Device, Source: netip.MustParseAddr("198.51.100.9"), Destination: netip.MustParseAddrPort("10.96.0.1:80"), Protocol: nft.TCP}

// TestShares: endpoints share connections evenly, but for what empty slots make of it:
// the chain draws four times, and then takes slot 0 (nft.Modulus).
func TestShares(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 300; n++ {
		x := Walk(crowd(n), host{}, webPacket)
		if len(x.Ends) != n || len(x.Fates) != 1 || x.Fates[0] != ToEndpoint {
			t.Fatalf("%d endpoints: %d ends, fates %v", n, len(x.Ends), x.Fates)
		}
		empty := 1 - float64(n)/float64(nft.Modulus(n))
		missed := math.Pow(empty, 4)
		sum := 0.0
		for _, e := range x.Ends {
			want := (1 - missed) / float64(n)
			if e.Slot == 0 {
				want += missed
			}
			if sum += e.Share; math.Abs(e.Share-want) > 1e-9 {
				t.Fatalf("%d endpoints: slot %d has %v, want %v", n, e.Slot, e.Share, want)
			}
			if !e.Masqueraded || e.Sees != netip.MustParseAddr("10.128.0.1") {
				t.Fatalf("%d endpoints: slot %d sees %v", n, e.Slot, e.Sees)
			}
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Fatalf("%d endpoints: shares sum up to %v", n, sum)
		}
	}
}

// TestDamaged: a table that leads to no slot at all is told as it is.
func TestDamaged(t *testing.T) {
	t.Parallel()
	c := crowd(3)
	c.Elements[nft.Endpoints] = nil
	x := Walk(c, host{}, webPacket)
	if len(x.Ends) != 0 || len(x.Fates) != 1 || x.Fates[0] != Forwarded {
		t.Errorf("without endpoints: %+v", x)
	}
	if last := x.Steps[len(x.Steps)-1]; !strings.Contains(last.Says, "empty") {
		t.Errorf("the last step says %q", last.Says)
	}
}

// TestMasqueradeSource: the kernel's choice of an address (inet_select_addr,
// ipv6_dev_get_saddr).
func TestMasqueradeSource(t *testing.T) {
	t.Parallel()
	addr := func(prefix, device string) Addr {
		return Addr{Prefix: netip.MustParsePrefix(prefix), Interface: device}
	}
	secondary := addr("10.1.0.3/24", "eth0")
	secondary.Secondary = true
	narrow, old := addr("fe80::1/64", "eth0"), addr("2001:db8:1::9/64", "eth0")
	narrow.Narrow, old.Deprecated = true, true
	loopback := addr("127.0.0.1/8", "lo")
	loopback.Narrow = true
	all := []Addr{loopback, addr("172.16.0.1/32", "lo"), addr("10.1.0.2/24", "eth0"), addr("10.2.0.2/24", "eth0"), secondary,
		narrow, old, addr("fd00::2/64", "eth0"), addr("2001:db8:1::2/64", "eth0"), addr("2001:db8:2::2/64", "eth1")}
	for _, tt := range []struct{ out, to, want string }{
		{"eth0", "10.1.0.254", "10.1.0.2"},
		{"eth0", "10.2.0.254", "10.2.0.2"},
		{"eth0", "203.0.113.1", "10.1.0.2"},
		{"eth1", "203.0.113.1", "172.16.0.1"},
		{"lo", "10.1.0.2", "172.16.0.1"},
		{"eth0", "fd00:9::1", "fd00::2"},
		{"eth0", "2001:db8:2::1", "2001:db8:1::2"},
		{"eth1", "2001:db8:1::1", "2001:db8:2::2"},
		{"eth1", "fd00:9::1", "2001:db8:2::2"},
	} {
		if got := MasqueradeSource(all, tt.out, netip.MustParseAddr(tt.to)); got.String() != tt.want {
			t.Errorf("by %s to %s: %s, want %s", tt.out, tt.to, got, tt.want)
		}
	}
}
