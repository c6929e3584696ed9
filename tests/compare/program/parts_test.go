// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestSYN(t *testing.T) {
	from, to := netip.MustParseAddrPort("10.250.1.2:4321"), netip.MustParseAddrPort("10.1.0.7:80")
	packet := make([]byte, 20+headerSize)
	packet[0] = 0x45
	a, b := from.Addr().As4(), to.Addr().As4()
	copy(packet[12:], a[:])
	copy(packet[16:], b[:])
	putSYN(packet[20:], from, to)
	if got, ok := parse(packet); !ok || got != (seen{from, to, flagSYN}) {
		t.Errorf("parsed as %+v", got)
	}
	if sum := binary.BigEndian.Uint16(packet[36:]); sum == 0 {
		t.Error("no checksum")
	}
	if sum := checksum(packet[20:], from.Addr(), to.Addr()); sum != 0 { // over itself
		t.Errorf("the checksum is off by %#x", sum)
	}
	for n := range packet {
		if _, ok := parse(packet[:n]); ok {
			t.Errorf("%d bytes are a packet", n)
		}
	}
}

func TestProc(t *testing.T) {
	const stat = "1234 (a (b) c) S 1 1234 1234 0 -1 4194560 1 2 3 4 100 20 7 3 20 0 9 0 55 1 2 3"
	if own, ended := statTicks([]byte(stat)); own != 120 || ended != 10 {
		t.Errorf("%d ticks and %d of children, want 120 and 10", own, ended)
	}
	if got := kilobytes("VmPeak:\t  99 kB\nVmHWM:\t  1234 kB\n", "VmHWM"); got != 1234 {
		t.Errorf("%d kB, want 1234", got)
	}
	if rss, peak := resident(os.Getpid()), highWater(os.Getpid()); rss == 0 || peak == 0 {
		t.Errorf("this process has %d bytes, at most %d", rss, peak)
	}
	if kernelMemory() == 0 {
		t.Error("the kernel has no memory")
	}
}

// TestTree: what a child of a child uses counts.
func TestTree(t *testing.T) {
	n := netlab.NewT(t).Namespace("n")
	// Not t.Context(), which ends before the cleanup: the child would be nobody's then,
	// not be found, and go on for good.
	cmd := n.Command(context.Background(), "bash", "-c", "bash -c 'while :; do :; done' & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, child := range tree(cmd.Process.Pid)[1:] {
			if p, err := os.FindProcess(child); err == nil {
				_ = p.Kill()
			}
		}
		_ = cmd.Wait()
	})
	err := netlab.Poll(10*time.Second, func() error {
		if cpuTime(cmd.Process.Pid) < 50*time.Millisecond {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	if err != nil {
		t.Errorf("%v of %v: %v", cpuTime(cmd.Process.Pid), tree(cmd.Process.Pid), err)
	}
}

func TestTrace(t *testing.T) {
	const trace = `7 setsockopt(3<NETLINK:[1]>, SOL_NETLINK, NETLINK_EXT_ACK, [1], 4) = 0
7 sendto(3<NETLINK:[NETFILTER:7]>, [{nlmsg_len=20, nlmsg_flags=NLM_F_REQUEST|NLM_F_DUMP}], 20, 0, {sa_family=AF_NETLINK}, 12) = 20
8 sendmsg(9<NETLINK:[NETFILTER:8]>, {msg_name={sa_family=AF_NETLINK}, msg_iov=[{iov_base=[]} <unfinished ...>
7 sendto(5<TCP:[1.1.1.1:1->2.2.2.2:2]>, "x"..., 500, 0, NULL, 0) = 500
8 <... sendmsg resumed>, msg_iovlen=1}, 0) = 1000
7 sendmsg(3<NETLINK:[NETFILTER:7]>, {}, 0) = -1 EMSGSIZE (Message too long)
9 setsockopt(4<RAW:[1]>, SOL_IP, IPT_SO_SET_REPLACE, ""..., 880) = 0
9 setsockopt(4<RAW:[1]>, SOL_IP, IPT_SO_SET_ADD_COUNTERS, ""..., 120) = 0
7 sendmsg(3<NETLINK:[NETFI`
	got, err := readTrace(strings.NewReader(trace))
	if want := (written{bytes: 20 + 1000 + 880, dumps: 1}); got != want || err != nil {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

// TestLock: the prober waits for whoever has the lock, and changes nothing.
func TestLock(t *testing.T) {
	n := netlab.NewT(t).Namespace("n")
	if err := n.NFT("add table ip t\nadd chain ip t c"); err != nil {
		t.Fatal(err)
	}
	before, err := n.Ruleset()
	if err != nil {
		t.Fatal(err)
	}
	p, err := probeLock(n)
	if err != nil {
		t.Fatal(err)
	}
	var waits []float64
	err = netlab.Poll(20*time.Second, func() error { // others may have the processors, or the lock
		more, err := p.take()
		if waits = append(waits, more...); err == nil && len(waits) < 5 {
			err = fmt.Errorf("%d samples", len(waits))
		}
		return err
	})
	p.close()
	if err != nil {
		t.Error(err)
	}
	if after, err := n.Ruleset(); after != before || err != nil {
		t.Errorf("%v, before:\n%s\nafter:\n%s", err, before, after)
	}
}

// TestCollector: samples of the same row come together, over rounds.
func TestCollector(t *testing.T) {
	p, s := peer.Peer{Name: "p"}, shape.Shape{Name: "1x1", Services: 1, Endpoints: 1}
	c := &collector{log: discard(), file: &result.File{}, path: t.TempDir() + "/x.json"}
	c.add(of(p, s, "start", "", "all-carried", "s"), 1)
	c.add(of(p, s, "start", "", "cpu", "s"), 5)
	row := of(p, s, "start", "", "all-carried", "s")
	row.Note = "slowly"
	c.add(row, 3)
	c.skip(result.Skip{Why: "so"})
	c.skip(result.Skip{Why: "so"})
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	got, err := result.Load(c.path)
	if err != nil || len(got.Rows) != 2 || len(got.Skipped) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if r := got.Rows[0]; r.N != 2 || r.P50 != 2 || r.Note != "slowly" {
		t.Errorf("%+v", r)
	}
}
