// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

var ctx = context.Background()

func TestMain(m *testing.M) { netlab.Main(m) }

func openIn(t testing.TB, ns *netlab.Namespace) *Conn {
	t.Helper()
	c, err := Open(Options{NetNS: ns.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

const (
	attrProtoinfo = 4
	attrTimeout   = 7
	confirmed     = Status(1 << 3)
)

// insert makes entries in the kernel's table, as if their packets had passed.
func (c *Conn) insert(entries ...Entry) error {
	for part := range slices.Chunk(entries, maxBatch) {
		s := &c.change
		var b buffer
		for i := range part {
			flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
			if i == len(part)-1 {
				flags |= unix.NLM_F_ACK
			}
			s.seq++
			b.create(s.seq, flags, &part[i])
		}
		failed, err := s.errors(b, func(errno unix.Errno) error { return errno })
		if err := errors.Join(failed, err); err != nil {
			return fmt.Errorf("insert: %w", err)
		}
	}
	return nil
}

func (b *buffer) create(seq uint32, flags uint16, e *Entry) {
	start := b.open(messageNew, flags, seq, e.Family)
	b.tuple(attrOriginal, e.Proto, e.Original)
	b.tuple(attrReply, e.Proto, e.Reply)
	b.u32(attrStatus, uint32(confirmed))
	b.u32(attrTimeout, 600)
	if e.Zone != 0 {
		b.u16(attrZone, e.Zone)
	}
	if e.Proto == nft.TCP {
		info := b.nest(attrProtoinfo)
		tcp := b.nest(1)
		b.attr(1, 3) // established
		b.end(tcp)
		b.end(info)
	}
	b.close(start)
}

// entry is a connection from client to dst that server answers.
func entry(p nft.Proto, client, dst, server string) Entry {
	from, to, by := netip.MustParseAddrPort(client), netip.MustParseAddrPort(dst), netip.MustParseAddrPort(server)
	return Entry{
		Family: nft.FamilyOf(to.Addr()), Proto: p,
		Original: Tuple{Src: from, Dst: to},
		Reply:    Tuple{Src: by, Dst: from},
		Status:   confirmed,
	}
}

// all walks a table.
func (c *Conn) all(t *testing.T, f nft.Family, p nft.Proto) (entries []Entry) {
	t.Helper()
	if err := c.Walk(ctx, Filter{Family: f, Proto: p}, func(e *Entry) bool { entries = append(entries, *e); return true }); err != nil {
		t.Fatal(err)
	}
	return entries
}

// same compares entries but for their order and what only the kernel knows.
var same = cmp.Options{
	cmpopts.IgnoreFields(Entry{}, "ID"),
	cmpopts.EquateComparable(netip.AddrPort{}),
	cmpopts.SortSlices(func(a, b Entry) bool { return fmt.Sprint(a) < fmt.Sprint(b) }),
}

// TestWalk: entries come as they were made, those of other families and protocols
// do not come.
func TestWalk(t *testing.T) {
	lab := netlab.NewT(t)
	c := openIn(t, lab.Namespace("node"))
	masqueraded := entry(nft.UDP, "10.0.0.1:1000", "10.96.0.10:53", "10.128.0.2:5353")
	masqueraded.Reply.Dst = netip.MustParseAddrPort("192.0.2.1:7777")
	zoned := entry(nft.UDP, "10.0.0.3:1000", "10.96.0.10:53", "10.128.0.2:5353")
	zoned.Zone = 7
	half := entry(nft.UDP, "10.0.0.4:1000", "10.96.0.10:53", "10.128.0.2:5353")
	half.Original.Zone = 8
	six := entry(nft.UDP, "[fd00::1]:1000", "[fd00:96::10]:53", "[fd00:128::2]:5353")
	tcp := entry(nft.TCP, "10.0.0.1:1000", "10.96.0.10:53", "10.128.0.2:5353")
	tcp.State = 3 // established
	other := entry(nft.UDP, "10.0.0.1:1000", "10.96.0.10:54", "10.128.0.2:53")
	lab.Must(c.insert(masqueraded, zoned, half, six, tcp, other))
	cases := []struct {
		name   string
		filter Filter
		want   []Entry
	}{
		{"IPv4 UDP", Filter{Family: nft.IPv4, Proto: nft.UDP}, []Entry{masqueraded, zoned, half, other}},
		{"IPv4 UDP 53", Filter{Family: nft.IPv4, Proto: nft.UDP, Port: 53}, []Entry{masqueraded, zoned, half}},
		{"IPv6 UDP", Filter{Family: nft.IPv6, Proto: nft.UDP}, []Entry{six}},
		{"IPv6 UDP 54", Filter{Family: nft.IPv6, Proto: nft.UDP, Port: 54}, nil},
		{"IPv4 TCP", Filter{Family: nft.IPv4, Proto: nft.TCP, Port: 53}, []Entry{tcp}},
		{"IPv4 SCTP", Filter{Family: nft.IPv4, Proto: nft.SCTP}, nil},
		{"IPv4", Filter{Family: nft.IPv4}, []Entry{masqueraded, zoned, half, other, tcp}},
		{"IPv4 53", Filter{Family: nft.IPv4, Port: 53}, []Entry{masqueraded, zoned, half, tcp}},
		{"translated", Filter{Family: nft.IPv4, Translated: true}, nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			for _, filtered := range []bool{true, false} {
				var got []Entry
				whole, err := c.list(ctx, tc.filter, filtered, func(e *Entry) bool { got = append(got, *e); return true })
				if d := cmp.Diff(tc.want, got, same, cmpopts.EquateEmpty()); !whole || err != nil || d != "" {
					t.Errorf("filtered by the kernel %t: %t, %v (-want +got):\n%s", filtered, whole, err, d)
				}
			}
		})
	}
	t.Run("ends when told to", func(t *testing.T) {
		for range 3 {
			n := 0
			lab.Must(c.Walk(ctx, Filter{Family: nft.IPv4, Proto: nft.UDP}, func(*Entry) bool { n++; return false }))
			if n != 1 {
				t.Errorf("visited %d entries", n)
			}
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := c.Walk(gone, Filter{Family: nft.IPv4, Proto: nft.UDP}, func(*Entry) bool { return true }); !errors.Is(err, context.Canceled) {
			t.Errorf("Walk: %v", err)
		}
	})
}

// TestDelete: what is deleted is the entry itself, in its zone, and nothing that
// has come in its place.
func TestDelete(t *testing.T) {
	plain := entry(nft.UDP, "10.0.0.1:1000", "10.96.0.10:53", "10.128.0.2:5353")
	zoned, fromZone, toZone := plain, plain, plain
	zoned.Zone, fromZone.Original.Zone, toZone.Reply.Zone = 7, 7, 7
	six := entry(nft.UDP, "[fd00::1]:1000", "[fd00:96::10]:53", "[fd00:128::2]:5353")
	for _, tc := range []struct {
		name string
		e    Entry
	}{{"IPv4", plain}, {"IPv6", six}, {"zone", zoned}, {"zone of the original", fromZone}, {"zone of the reply", toZone}} {
		t.Run(tc.name, func(t *testing.T) {
			lab := netlab.NewT(t)
			c := openIn(t, lab.Namespace("node"))
			other := tc.e
			other.Original.Src = netip.AddrPortFrom(other.Original.Src.Addr(), 2000)
			other.Reply.Dst = other.Original.Src
			lab.Must(c.insert(tc.e, other))
			have := c.all(t, tc.e.Family, nft.UDP)
			i := slices.IndexFunc(have, func(e Entry) bool { return e.Original == tc.e.Original })
			if n, err := c.Delete(have[i]); n != 1 || err != nil {
				t.Fatalf("Delete: %d, %v", n, err)
			}
			if n, err := c.Delete(have[i]); n != 0 || err != nil {
				t.Errorf("Delete of what is gone: %d, %v", n, err)
			}
			successor := tc.e
			successor.Reply.Src = netip.AddrPortFrom(successor.Reply.Src.Addr().Next(), 5353)
			lab.Must(c.insert(successor))
			again := c.all(t, tc.e.Family, nft.UDP)
			if n, err := c.Delete(have[i]); n != 0 || err != nil {
				t.Errorf("Delete hit the successor: %d, %v", n, err)
			}
			if d := cmp.Diff([]Entry{successor, other}, again, same); d != "" {
				t.Errorf("left (-want +got):\n%s", d)
			}
			mistaken := again[0]
			mistaken.ID++
			if n, err := c.Delete(mistaken); n != 0 || err != nil {
				t.Errorf("Delete with another ID: %d, %v", n, err)
			}
		})
	}
}

// crowd makes n entries to one frontend, every fourth answered by server "gone".
func crowd(n int) []Entry {
	entries := make([]Entry, 0, n)
	e := entry(nft.UDP, "10.0.0.1:1000", "10.96.0.10:53", "10.128.0.2:5353")
	for i := range n {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 14), byte(i >> 6)}), uint16(1024+i&63))
		e.Original.Src, e.Reply.Dst = src, src
		e.Reply.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 128, 0, byte(i & 3)}), 5353)
		entries = append(entries, e)
	}
	return entries
}

func gone(_, server netip.AddrPort) bool { return server.Addr().As4()[3] == 0 }

// TestPurge: the stale ones go, all of them, the others stay.
func TestPurge(t *testing.T) {
	lab := netlab.NewT(t)
	c := openIn(t, lab.Namespace("node"))
	lab.Must(c.insert(crowd(10_000)...))
	foreign := entry(nft.UDP, "10.0.0.9:1", "10.96.0.10:53", "10.96.0.0:53")
	foreign.Zone = 7
	lab.Must(c.insert(foreign))
	for _, want := range []int{2500, 0} {
		seen, deleted, err := c.Purge(ctx, nft.IPv4, nft.UDP, 53, gone)
		lab.Must(err)
		// A bucket in which an entry goes while it is listed may be listed again.
		if deleted != want || seen < 7501 {
			t.Errorf("deleted %d of %d, want %d", deleted, seen, want)
		}
	}
	if n := len(c.all(t, nft.IPv4, nft.UDP)); n != 7501 {
		t.Errorf("%d are left, want 7501", n)
	}
}

// TestPersist: disturbed listings begin again, but not for ever (A4.7).
func TestPersist(t *testing.T) {
	type outcome struct {
		whole bool
		err   error
	}
	whole, part := outcome{true, nil}, outcome{false, nil}
	fails := func(errno unix.Errno) outcome { return outcome{false, errno} }
	other := errors.New("no entry")
	cases := []struct {
		name  string
		lists []outcome
		want  error
	}{
		{"at once", []outcome{whole}, nil},
		{"interrupted", []outcome{part, fails(unix.EINTR), whole}, nil},
		{"always interrupted, and that must do", []outcome{part, part, fails(unix.EINTR)}, nil},
		{"answers lost", []outcome{fails(unix.ENOBUFS), whole}, nil},
		{"answers always lost", []outcome{fails(unix.ENOBUFS), fails(unix.ENOBUFS), fails(unix.ENOBUFS)}, unix.ENOBUFS},
		{"no filter", []outcome{fails(unix.EINVAL), whole}, nil},
		{"no ctnetlink", []outcome{fails(unix.EINVAL), fails(unix.EINVAL)}, unix.EINVAL},
		{"not allowed", []outcome{fails(unix.EPERM)}, fs.ErrPermission},
		{"nonsense", []outcome{{false, other}}, other},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			left, refused := tc.lists, false
			err := persist(func(filtered bool) (bool, error) {
				if filtered == refused {
					t.Errorf("filtered is %t after a refusal: %t", filtered, refused)
				}
				now := left[0]
				left = left[1:]
				refused = refused || now.err == unix.EINVAL
				return now.whole, now.err
			})
			if !errors.Is(err, tc.want) || len(left) > 0 {
				t.Errorf("%v, %d listings less than expected", err, len(left))
			}
		})
	}
}

// TestReopen: after an exchange that failed the next one works.
func TestReopen(t *testing.T) {
	lab := netlab.NewT(t)
	c := openIn(t, lab.Namespace("node"))
	lab.Must(c.insert(crowd(8)...), c.listing.close(), c.change.close())
	if _, deleted, err := c.Purge(ctx, nft.IPv4, nft.UDP, 53, gone); deleted != 2 || err != nil {
		t.Errorf("deleted %d, %v", deleted, err)
	}
}

// TestUnprivileged: without privileges there is one clear error.
func TestUnprivileged(t *testing.T) {
	lab := netlab.NewT(t)
	err := lab.Namespace("node").Do(func() error {
		return asNobody(func() error {
			c, err := Open(Options{})
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Walk(ctx, Filter{Family: nft.IPv4, Proto: nft.UDP}, func(*Entry) bool { return true })
		})
	})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("Walk without privileges: %v", err)
	}
}

// asNobody drops this thread's effective user for the time of f.
func asNobody(f func() error) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
		return errno
	}
	defer syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
	return f()
}

// FuzzParse: whatever the kernel might say, reading it ends, and what reads well
// writes and reads the same.
func FuzzParse(f *testing.F) {
	for _, e := range []Entry{
		entry(nft.UDP, "10.0.0.1:1000", "10.96.0.10:53", "10.128.0.2:5353"),
		entry(nft.UDP, "[fd00::1]:1000", "[fd00:96::10]:53", "[fd00:128::2]:5353"),
	} {
		var b buffer
		b.create(1, 0, &e)
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for m := range messages(data) {
			var e, again Entry
			if e.parse(m.body) != nil || !e.Original.Src.IsValid() || !e.Reply.Dst.IsValid() {
				continue
			}
			var b buffer
			b.create(1, 0, &e)
			if n := binary.NativeEndian.Uint32(b); int(n) != len(b) {
				t.Fatalf("length %d of %d", n, len(b))
			}
			if err := again.parse(b[wire.HeaderLen:]); err != nil || again.Original.Dst.Port() != e.Original.Dst.Port() {
				t.Fatalf("%v reads %v: %v", e, again, err)
			}
		}
	})
}

// TestWatch: entries are told of as they come.
func TestWatch(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	c := openIn(t, ns)
	watching, stop := context.WithCancel(ctx)
	told := make(chan Entry, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(watching, Options{NetNS: ns.Fd()}, func(e *Entry) { told <- *e }, func() {})
	}()
	n := 0
	lab.Eventually(5*time.Second, func() error {
		n++
		lab.Must(c.insert(entry(nft.UDP, fmt.Sprintf("10.0.0.1:%d", 1000+n), "10.96.0.10:53", "10.128.0.2:5353")))
		if len(told) == 0 {
			return errors.New("nobody watches")
		}
		return nil
	})
	if e := <-told; e.Original.Dst != netip.MustParseAddrPort("10.96.0.10:53") || e.Reply.Src != netip.MustParseAddrPort("10.128.0.2:5353") {
		t.Errorf("told of %+v", e)
	}
	// It waits longer than an answer may take.
	quiet := time.After(answerLimit + answerLimit/4)
	select {
	case err := <-ended:
		t.Fatalf("the watch ended: %v", err)
	case <-quiet:
	}
	stop()
	lab.Must(<-ended)
}
