// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

var (
	vip      = netip.MustParseAddrPort("10.1.0.0:80")
	podAddr  = netip.MustParseAddr("10.249.0.2")
	clientIP = netip.MustParseAddr("198.18.0.2")
)

// newLane makes a lane in which the router sends all endpoints' addresses to the pods.
// There is no IPv6: what hosts say of themselves when they get an address would arrive,
// too, and be counted.
func newLane(t *testing.T, l *netlab.T, name string) Lane {
	t.Helper()
	lane := Lane{
		Client: l.Namespace(name + "-client"), Node: l.Namespace(name + "-node"), Pods: l.Namespace(name + "-pods"),
		ClientIf: "eth0", ToClient: "client", ToPods: "pods", PodsIf: "eth0",
	}
	for _, n := range []*netlab.Namespace{lane.Client, lane.Node, lane.Pods} {
		l.Must(n.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"))
	}
	l.Must(
		netlab.Link(lane.Client, "eth0", lane.Node, "client"),
		netlab.Link(lane.Node, "pods", lane.Pods, "eth0"),
		lane.Client.Addr("eth0", netip.PrefixFrom(clientIP, 24)),
		lane.Node.Addr("client", netip.PrefixFrom(clientIP.Prev(), 24)),
		lane.Node.Addr("pods", netip.PrefixFrom(podAddr.Prev(), 24)),
		lane.Pods.Addr("eth0", netip.PrefixFrom(podAddr, 24)),
		lane.Node.Route(netip.MustParsePrefix("10.128.0.0/10"), podAddr),
		lane.Node.IP("route add blackhole 10.0.0.0/13"),
		lane.Node.Forward())
	return lane
}

func newTestMeter(t *testing.T, lane Lane) *meter {
	t.Helper()
	m, err := newMeter(lane)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestTrial(t *testing.T) {
	l := netlab.NewT(t)
	one, other := newLane(t, l, "one"), newLane(t, l, "other")
	l.Must(one.Node.NFT(bare(vip, false)), other.Node.NFT(bare(vip, true)))
	// The packets after the first are those of an established connection.
	for _, n := range []*netlab.Namespace{one.Node, other.Node} {
		l.Must(n.NFT("table ip strict { chain forward { type filter hook forward priority 0; tcp flags & (syn | ack) == ack ct state != established drop\n}\n}"))
	}
	trial := trial{name: "hot", bare: newTestMeter(t, one), target: vip, sources: inside,
		lanes: []contender{{"other", newTestMeter(t, other), always(vip)}}}
	got, err := trial.run(t.Context(), 3, 2*burst)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.bare) != 3 || len(got.lanes["other"]) != 3 || len(got.pairs["other"]) != 3 || got.bare[0].first < 100 || got.bare[0].next < 100 {
		t.Errorf("figures %+v", got)
	}
	var f result.File
	trial.rows(&f, result.Row{Shape: "1x1"}, got)
	if len(f.Rows) != 6 || f.Rows[2].Unit != "ratio" || f.Rows[2].Proxy != "other" || f.Rows[2].N != 3 || f.Rows[2].Case != "hot" || f.Rows[2].Metric != "first-packet" || f.Rows[5].Metric != "next-packet" {
		t.Errorf("rows %+v", f.Rows)
	}
	samples, err := generator(trial.bare, inside, vip, 2, burst)
	if err != nil || len(samples) != 2 || slices.Min(samples) > 2*got.bare[0].first {
		t.Errorf("generator %v, %v", samples, err)
	}
}

// Packets that go nowhere are no measurement, and neither are those of flows that the
// node does not track.
func TestLost(t *testing.T) {
	l := netlab.NewT(t)
	lane := newLane(t, l, "node")
	m := newTestMeter(t, lane)
	flows := make([]Flow, burst)
	traffic{inside, []netip.AddrPort{vip}}.fill(flows, 1)
	if reached, err := m.reaches(flows); reached || err != nil {
		t.Errorf("reaches %t, %v", reached, err)
	}
	if _, err := m.send(flows); err == nil || !strings.Contains(err.Error(), " 0 arrived") {
		t.Errorf("nothing translates, got %v", err)
	}
	endpoint := netip.AddrPortFrom(flowEndpoint, 8080)
	traffic{inside, []netip.AddrPort{endpoint}}.fill(flows, 1)
	if _, err := m.send(flows); err == nil || !strings.Contains(err.Error(), " 0 are tracked") {
		t.Errorf("nothing tracks, got %v", err)
	}
	l.Must(lane.Node.NFT(untranslated))
	if _, err := m.send(flows); err != nil {
		t.Error(err)
	}
	l.Must(lane.Node.NFT(bare(vip, false)))
	traffic{inside, []netip.AddrPort{vip}}.fill(flows, 1)
	if reached, err := m.reaches(flows); !reached || err != nil {
		t.Errorf("reaches %t, %v", reached, err)
	}
}

// The pods hear again once they are not measured, and the checksums of frames are
// right: a server answers.
func TestHear(t *testing.T) {
	l := netlab.NewT(t)
	lane := newLane(t, l, "node")
	l.Must(lane.Pods.DefaultRoute(podAddr.Prev()), lane.Client.DefaultRoute(clientIP.Prev()))
	dst := netip.AddrPortFrom(podAddr, 8080)
	l.Serve(lane.Pods, "tcp", dst, "pod")
	m, err := newMeter(lane)
	l.Must(err)
	l.Must(m.close())
	l.Ask(lane.Client, "tcp", dst)

	gateway, _, err := nicOf(lane.Node, lane.ToClient)
	l.Must(err)
	s, err := NewSender(lane.Client, lane.ClientIf, gateway)
	l.Must(err)
	defer s.Close()
	before, err := received(lane.Node, "pods")
	l.Must(err)
	_, err = s.Send([]segment{Flow{Source: netip.AddrPortFrom(clientIP, 4321), Target: dst}.syn()})
	l.Must(err)
	// The SYN is answered, which the node receives from the pods: not before Send
	// returns, if the kernel has left packets to a thread of its own.
	l.Eventually(10*time.Second, func() error {
		after, err := received(lane.Node, "pods")
		if err == nil && after <= before {
			err = fmt.Errorf("received %d, then %d packets of pods", before, after)
		}
		return err
	})
}

func TestFrame(t *testing.T) {
	b := make([]byte, frameLen)
	syn := Flow{Source: netip.MustParseAddrPort("198.51.100.9:4321"), Target: netip.MustParseAddrPort("10.0.0.10:80")}.syn()
	putFrame(b, Link{Source: [6]byte{1}, Target: [6]byte{2}}, syn)
	if got, ok := parseSYN(b); !ok || got != syn {
		t.Errorf("read back %+v, %t", got, ok)
	}
	if b[0] != 2 || b[6] != 1 || !bytes.Equal(b[12:16], []byte{8, 0, 0x45, 0}) {
		t.Errorf("head % x", b[:16])
	}
	if !bytes.Equal(b[26:38], []byte{198, 51, 100, 9, 10, 0, 0, 10, 4321 >> 8, 4321 & 255, 0, 80}) {
		t.Errorf("addresses and ports % x", b[26:38])
	}
	// What has its own checksum in it sums up to nothing.
	if got := checksum(sum(0, b[14:34])); got != 0 {
		t.Errorf("IP checksum is off by %#x", got)
	}
	if got := checksum(sum(sum(6+20, b[26:34]), b[34:])); got != 0 {
		t.Errorf("TCP checksum is off by %#x", got)
	}
}

func TestTraffic(t *testing.T) {
	targets := []netip.AddrPort{vip, netip.MustParseAddrPort("10.1.0.1:80")}
	way := traffic{regular, targets}
	flows, again := make([]Flow, 1000), make([]Flow, 1000)
	way.fill(flows, 7)
	way.fill(again, 7)
	if !slices.Equal(flows, again) {
		t.Error("one seed makes two kinds of traffic")
	}
	seen := make(map[netip.AddrPort]int)
	for _, f := range flows {
		if !regular.Contains(f.Source.Addr()) || f.Source.Port() < firstPort {
			t.Fatalf("source %s", f.Source)
		}
		seen[f.Target]++
	}
	if len(seen) != 2 || seen[vip] < 400 || seen[vip] > 600 {
		t.Errorf("targets %v", seen)
	}
	if each := way.each(1); len(each) != 2 || each[0].Target != vip || each[1].Target != targets[1] {
		t.Errorf("each %v", each)
	}
}

func TestParseReceived(t *testing.T) {
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       1    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth0: 1080000   20000    0    0    0     0          0         0      700      10    0    0    0     0       0          0
`
	if n, err := parseReceived(text, "eth0"); n != 20000 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := parseReceived(text, "eth1"); err == nil {
		t.Error("no error for an interface that is not there")
	}
}
