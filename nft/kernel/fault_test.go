// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

var ctx = context.Background()

// programmed returns a namespace with the sample in it.
func programmed(t *testing.T) (*netlab.T, *netlab.Namespace, *kernel.Conn, *nft.Schema) {
	t.Helper()
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	conn := open(t, ns)
	s := nft.NewSchema(nft.IPv4, options(nft.IPv4))
	lab.Must(conn.Reset(ctx, sample(s)))
	return lab, ns, conn, s
}

func empty(s *nft.Schema) nft.Table {
	return nft.Table{Schema: s, Elements: func(func(nft.Element) bool) {}}
}

func slot(n uint32, to string) nft.Element {
	return nft.Element{
		Set:   nft.Endpoints,
		Key:   nft.Key{Addr: netip.MustParseAddr("10.96.0.10"), Proto: nft.UDP, Port: 53, Slot: n},
		Value: nft.Value{To: netip.MustParseAddrPort(to)},
	}
}

func change(s *nft.Schema, d nft.Delta) nft.Change { return nft.Change{Schema: s, Delta: d} }

// TestAtomic: a transaction that fails in its last element leaves nothing of it,
// and the error names that element.
func TestAtomic(t *testing.T) {
	lab, ns, conn, s := programmed(t)
	before, err := ns.Ruleset()
	lab.Must(err)
	var d nft.Delta
	for i := range 3000 {
		d.Add = append(d.Add, slot(uint32(i)+10, "10.128.9.9:53"))
	}
	d.Delete = append(d.Delete, slot(1, "10.128.1.3:53"), slot(7, "10.128.1.3:53"))
	err = conn.Apply(ctx, change(s, d))
	if !errors.Is(err, kernel.ErrDrift) {
		t.Fatalf("deleting what is not there: %v", err)
	}
	want := "delete element ip kube-nft KUBE-SEP { 10.96.0.10 . udp . 53 . 7"
	if !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not name the element: %q", err, want)
	}
	after, err := ns.Ruleset()
	lab.Must(err)
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("half applied (-before +after):\n%s", d)
	}
	d = nft.Delta{Add: []nft.Element{slot(0, "10.128.9.9:53")}}
	if err := conn.Apply(ctx, change(s, d)); !errors.Is(err, kernel.ErrDrift) || !strings.Contains(err.Error(), ". 53 . 0 : 10.128.9.9 . 53") {
		t.Errorf("adding what is there with another value: %v", err)
	}
}

// TestReplace: a key may be deleted and added in one transaction.
func TestReplace(t *testing.T) {
	lab, _, conn, s := programmed(t)
	lab.Must(conn.Apply(ctx, change(s, nft.Delta{
		Delete: []nft.Element{slot(0, "10.128.1.2:53")},
		Add:    []nft.Element{slot(0, "10.128.7.7:53")},
	})))
	have, err := conn.Read(ctx, s)
	lab.Must(err)
	if got := have.Elements[nft.Endpoints][slot(0, "10.128.7.7:53").Key].To.String(); got != "10.128.7.7:53" {
		t.Errorf("slot 0 leads to %s", got)
	}
}

// TestCounters: a frontend keeps its counter when its verdict changes.
func TestCounters(t *testing.T) {
	lab, ns, conn, s := programmed(t)
	lab.Must(ns.NFT(`delete element ip kube-nft KUBE-SERVICES { 10.96.0.10 . udp . 53 }
add element ip kube-nft KUBE-SERVICES { 10.96.0.10 . udp . 53 counter packets 7 bytes 500 comment "kube-system/kube-dns:dns" : goto KUBE-SVC-3 }`))
	frontend := nft.Element{Set: nft.Services, Key: nft.Key{Addr: netip.MustParseAddr("10.96.0.10"), Proto: nft.UDP, Port: 53},
		Value: nft.Value{Verdict: nft.Chain{Kind: nft.Service, N: 3}, Comment: "kube-system/kube-dns:dns"}}
	next := frontend
	next.Value.Verdict.N = 2
	lab.Must(conn.Apply(ctx, change(s, nft.Delta{
		Chains: []nft.Chain{next.Value.Verdict},
		Delete: []nft.Element{frontend, slot(2, "10.128.1.4:53")},
		Add:    []nft.Element{next},
	})))
	rules, err := ns.Ruleset()
	lab.Must(err)
	if want := `10.96.0.10 . udp . 53 counter packets 7 bytes 500 comment "kube-system/kube-dns:dns" : goto KUBE-SVC-2`; !strings.Contains(rules, want) {
		t.Errorf("no %q in\n%s", want, rules)
	}
}

// TestRead: what is not as the schema says is found, whatever it is.
func TestRead(t *testing.T) {
	cases := []struct {
		name, script string
		want         error
		says         string
	}{
		{"untouched", "", nil, ""},
		{"element gone", "delete element ip kube-nft KUBE-CLUSTER-IP { 10.96.0.10 }", nil, ""},
		{"rule gone", "flush chain ip kube-nft KUBE-MARK-MASQ", nft.ErrSchema, "KUBE-MARK-MASQ"},
		{"rule more", "insert rule ip kube-nft PREROUTING accept", nft.ErrSchema, "PREROUTING"},
		{"chain more", "add chain ip kube-nft OTHER", nft.ErrSchema, "OTHER"},
		{"set more", "add set ip kube-nft other { type ipv4_addr; }", nft.ErrSchema, "other"},
		{"dormant", "add table ip kube-nft { flags dormant; }", nft.ErrSchema, "dormant"},
		{"policy", "add chain ip kube-nft KUBE-UNSERVED-INPUT { policy drop; }", nft.ErrSchema, "KUBE-UNSERVED-INPUT"},
		{"other version", "delete table ip kube-nft\nadd table ip kube-nft { comment \"kube-nft schema 99\"; }", nft.ErrSchema, "version 99"},
		{"foreign", "delete table ip kube-nft\nadd table ip kube-nft", nft.ErrForeign, "nft delete table ip kube-nft"},
		{"gone", "delete table ip kube-nft", nft.ErrMissing, "kube-nft"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			lab, ns, conn, s := programmed(t)
			lab.Must(ns.NFT(tc.script))
			_, err := conn.Read(ctx, s)
			if !errors.Is(err, tc.want) || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("Read: %v, want %v with %q", err, tc.want, tc.says)
			}
			err = conn.Reset(ctx, empty(s))
			if tc.want == nft.ErrForeign {
				if !errors.Is(err, nft.ErrForeign) {
					t.Errorf("a foreign table was replaced: %v", err)
				}
				if _, err := conn.Delete(ctx, nft.IPv4); !errors.Is(err, nft.ErrForeign) {
					t.Errorf("a foreign table was deleted: %v", err)
				}
				return
			}
			lab.Must(err)
			if have, err := conn.Read(ctx, s); err != nil || have.Len() != 0 {
				t.Errorf("after Reset: %d elements, %v", have.Len(), err)
			}
		})
	}
}

// TestStrayEndpoints: endpoints that no frontend accounts for are found all the same.
func TestStrayEndpoints(t *testing.T) {
	lab, ns, conn, s := programmed(t)
	lab.Must(ns.NFT("delete element ip kube-nft KUBE-SERVICES { 10.96.0.10 . udp . 53 }"))
	have, err := conn.Read(ctx, s)
	lab.Must(err)
	if n := len(have.Elements[nft.Endpoints]); n != 7 {
		t.Errorf("%d endpoints, want 7", n)
	}
}

// TestFull: a full set is named, and what was there stays.
func TestFull(t *testing.T) {
	_, _, conn, s := programmed(t)
	var d nft.Delta
	for i := range s.Sizes[nft.NodeIPs] {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		d.Add = append(d.Add, nft.Element{Set: nft.NodeIPs, Key: nft.Key{Addr: a}})
	}
	err := conn.Apply(ctx, change(s, d))
	if !errors.Is(err, kernel.ErrFull) || !strings.Contains(err.Error(), "KUBE-NODE-IP { 10.1.2.255 }") {
		t.Errorf("one too many: %v", err)
	}
}

// TestUnprivileged: without privileges there is one clear error.
func TestUnprivileged(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	s := nft.NewSchema(nft.IPv4, options(nft.IPv4))
	err := ns.Do(func() error {
		conn, err := kernel.Open(kernel.Options{})
		if err != nil {
			return err
		}
		defer conn.Close()
		// A namespace of another user namespace is like no privileges at all.
		return asNobody(func() error { return conn.Preflight(ctx, s) })
	})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("Preflight without privileges: %v", err)
	}
}

// asNobody drops this thread's effective user, and with it its capabilities, for
// the time of f.
func asNobody(f func() error) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
		return errno
	}
	defer syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
	return f()
}
