// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestFullAffinity fills the map in which the kernel remembers the clients of a
// Service. Those who come then are served all the same, and endpoints come and go.
func TestFullAffinity(t *testing.T) {
	s := newSite(t)
	s.start()
	s.ready()
	o := outcome{fault: "a full affinity map", before: s.vitals()}
	var script strings.Builder
	const together = 8192
	for i := range nft.AffinitySize {
		if i%together == 0 {
			script.WriteString("add element ip kube-nft KUBE-AFFINITY-default/sticky/tcp/t80 {\n")
		}
		fmt.Fprintf(&script, "10.77.%d.%d timeout 3h expires 1h : %s . %d,\n", i>>8, i&0xff, podAddr(realPod(i % 3))[0], targetPort)
		if i%together == together-1 {
			script.WriteString("}\n")
		}
	}
	s.Must(s.node.NFT(script.String()))
	full := "add element ip kube-nft KUBE-AFFINITY-default/sticky/tcp/t80 { 10.78.0.1 timeout 3h : 10.244.0.2 . 8080 }"
	if err := s.node.NFT(full); err == nil {
		t.Error("the map is not full")
	}
	tr := s.carry(steady, sticky)
	o.injected = nft.AffinitySize
	for step := range 6 {
		one := sticky
		one.pods = sticky.pods[:1+step%3]
		began := time.Now()
		s.objects.put(t, one.objects()...)
		s.right(soon)
		o.repair = max(o.repair, time.Since(began))
	}
	o.after = s.vitals()
	s.conclude(o, tr)
}

// TestFullSet fills a set up to its size, and in the same moment Services come that
// need room in it.
func TestFullSet(t *testing.T) {
	s := newSite(t, moving(0).objects()...)
	s.start()
	s.ready()
	tr := s.carry(steady, sticky)
	o := outcome{fault: "a set at its size", before: s.vitals()}
	for round := range 4 {
		var lines strings.Builder
		added := 0
		// One by one, so that the last one is the one that does not fit.
		for i := 0; i < 4096; i += 64 {
			lines.Reset()
			for k := range 64 {
				fmt.Fprintf(&lines, "%s10.95.%d.%d", [...]string{"", ", "}[btoi(k > 0)], (i+k)>>8, (i+k)&0xff)
			}
			if err := s.node.NFT("add element ip kube-nft KUBE-CLUSTER-IP { " + lines.String() + " }"); err != nil {
				break
			}
			added += 64
		}
		began := time.Now()
		s.objects.put(t, crowd(100*(round+1))...)
		s.right(soon)
		o.repair = max(o.repair, time.Since(began))
		o.injected += added
	}
	o.after = s.vitals()
	s.conclude(o, tr)
}

// TestFullConntrack fills the node's table of connections, up to the limit that is the
// machine's, with some that the kernel does not give up. New connections are refused by
// the kernel then, whoever translates them; established ones go on, kube-nft goes on
// programming, and when there is room all is right.
func TestFullConntrack(t *testing.T) {
	s := newSite(t, moving(3).objects()...)
	s.start()
	s.ready()
	tr := s.carryOnly(func(f flow) bool { return f.stays }, askEvery, steady, sticky)
	o := outcome{fault: "a full conntrack table", before: s.vitals()}
	o.injected = s.fillConntrack(20 * time.Second)
	refused := 0
	for step := range 6 {
		if _, err := s.client.Ask(t.Context(), "udp", steady.at(0), netlab.Timeout(100*time.Millisecond)); err != nil {
			refused++
		}
		began := time.Now()
		s.objects.put(t, moving(step).objects()...) // some of them leave stale flows, so that conntrack is walked
		s.right(soon)
		o.repair = max(o.repair, time.Since(began))
	}
	if refused == 0 {
		t.Error("new connections went through: the table was not full")
	}
	began := time.Now()
	s.must("new connections when there is room", time.Minute, func() error {
		_, err := s.client.Ask(t.Context(), "udp", steady.at(0), netlab.Timeout(time.Second))
		return err
	})
	t.Logf("the kernel refused %d of 6 new connections while the table was full, and took them again %v later", refused, time.Since(began).Round(time.Millisecond))
	o.after = s.vitals()
	s.conclude(o, tr)
}

// fillConntrack makes entries, as if two hosts had talked, until the kernel takes no
// more, and returns how many it took.
func (s *site) fillConntrack(last time.Duration) int {
	s.t.Helper()
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	s.Must(err)
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	s.Must(err)
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: s.node.Fd()})
	s.Must(err)
	defer conn.Close()
	s.Must(conn.SetReadBuffer(8 << 20)) // each that does not fit is answered
	const together = 500
	for made := 0; made <= limit+together; made += together {
		messages := make([]netlink.Message, together)
		for i := range messages {
			messages[i], err = conntrackEntry(made+i, last)
			s.Must(err)
		}
		messages[together-1].Header.Flags |= netlink.Acknowledge
		if _, err := conn.SendMessages(messages); err != nil {
			s.t.Fatal(err)
		}
		if _, err := conn.Receive(); err != nil {
			if !errors.Is(err, unix.ENOMEM) {
				s.t.Fatalf("make conntrack entries: %v", err)
			}
			entries, err := s.connections()
			s.Must(err)
			return entries
		}
	}
	s.t.Fatalf("the kernel takes more than %d entries", limit)
	return 0
}

// conntrackEntry is a request for the entry of a UDP flow that is assured, and hence
// not given up for a new one (linux/netfilter/nfnetlink_conntrack.h).
func conntrackEntry(i int, last time.Duration) (netlink.Message, error) {
	const assured = 1<<1 | 1<<2 | 1<<3 // IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
	from, to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 88, byte(i >> 24), byte(i >> 16)}), uint16(i)), netip.MustParseAddrPort("10.89.0.1:9")
	e := netlink.NewAttributeEncoder()
	for k, ends := range [][2]netip.AddrPort{{from, to}, {to, from}} {
		e.Nested(uint16(1+k), func(e *netlink.AttributeEncoder) error { // CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
			e.Nested(1, func(e *netlink.AttributeEncoder) error { // CTA_TUPLE_IP
				e.Bytes(1, ends[0].Addr().AsSlice())
				e.Bytes(2, ends[1].Addr().AsSlice())
				return nil
			})
			e.Nested(2, func(e *netlink.AttributeEncoder) error { // CTA_TUPLE_PROTO
				e.Uint8(1, unix.IPPROTO_UDP)
				e.Bytes(2, []byte{byte(ends[0].Port() >> 8), byte(ends[0].Port())})
				e.Bytes(3, []byte{byte(ends[1].Port() >> 8), byte(ends[1].Port())})
				return nil
			})
			return nil
		})
	}
	e.Bytes(3, []byte{0, 0, 0, assured})                                                // CTA_STATUS
	e.Bytes(7, []byte{0, 0, byte(int(last.Seconds()) >> 8), byte(int(last.Seconds()))}) // CTA_TIMEOUT
	attrs, err := e.Encode()
	return netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK << 8, Flags: netlink.Request | netlink.Create | netlink.Excl},
		Data:   append([]byte{unix.AF_INET, 0, 0, 0}, attrs...),
	}, err
}

// connections counts those that conntrack knows on the node.
func (s *site) connections() (n int, err error) {
	err = s.node.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	return n, err
}
