// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// neighbour is somebody else with tables of their own in the node's namespace.
type neighbour struct {
	*nftables.Conn
	s *site
}

func (s *site) neighbour() *neighbour {
	s.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(s.node.Fd()), nftables.AsLasting())
	s.Must(err)
	s.t.Cleanup(func() { _ = conn.CloseLasting() })
	return &neighbour{conn, s}
}

// commit makes a table with a set of so many elements, and deletes it again: two
// transactions, of which the kernel notifies everybody who listens.
func (n *neighbour) commit(elements int) error {
	table := n.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "neighbour"})
	if elements > 0 {
		set := &nftables.Set{Table: table, Name: "numbers", KeyType: nftables.TypeInteger}
		all := make([]nftables.SetElement, elements)
		for i := range all {
			all[i].Key = binary.NativeEndian.AppendUint32(nil, uint32(i))
		}
		if err := n.AddSet(set, all); err != nil {
			return err
		}
	}
	if err := n.Flush(); err != nil {
		return err
	}
	n.DelTable(table)
	return n.Flush()
}

// busy commits without a pause until what it returns is called, which tells how often.
func (n *neighbour) busy() (stop func() int) {
	var ended atomic.Bool
	done := make(chan error, 1)
	commits := 0
	go func() {
		var err error
		for err == nil && !ended.Load() {
			err = n.commit(0)
			commits += 2
		}
		done <- err
	}()
	return func() int {
		ended.Store(true)
		n.s.Must(<-done)
		return commits
	}
}

// interrupted lists the rules of a table of kube-nft's so often, as kube-nft does, and
// returns how often the kernel said that the listing was interrupted. It says so of
// tables, chains, sets and rules; the elements of a set it lists without a word
// (nf_tables_api.c, nf_tables_dump_set).
func (s *site) interrupted(times int) (n int) {
	s.t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: s.node.Fd()})
	s.Must(err)
	defer conn.Close()
	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_RULE_TABLE, "kube-nft")
	attrs, err := e.Encode()
	s.Must(err)
	for range times {
		_, err := conn.Send(netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
			Data:   append([]byte{unix.AF_INET, 0, 0, 0}, attrs...),
		})
		s.Must(err)
		if s.wasInterrupted(conn) {
			n++
		}
	}
	return n
}

// wasInterrupted reads a listing to its end.
func (s *site) wasInterrupted(conn *netlink.Conn) (is bool) {
	raw, err := conn.SyscallConn()
	s.Must(err)
	buf := make([]byte, 64<<10)
	for {
		var size int
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			size, readErr = unix.Read(int(fd), buf)
			return readErr != unix.EAGAIN
		})
		s.Must(err, readErr)
		for rest := buf[:size]; len(rest) >= unix.SizeofNlMsghdr; {
			h, body, next, ok := wire.Next(rest)
			if !ok || h.Type == unix.NLMSG_ERROR {
				s.t.Fatalf("a listing is answered with %+v %v", h, body)
			}
			is = is || h.Flags&unix.NLM_F_DUMP_INTR != 0
			if h.Type == unix.NLMSG_DONE {
				return is
			}
			rest = next
		}
	}
}

// TestInterruptedDumps has a neighbour commit all the time, so that the kernel calls
// every listing interrupted, while kube-nft starts, compares its tables and changes them.
func TestInterruptedDumps(t *testing.T) {
	s := newSite(t, append(moving(0).objects(), crowd(1000)...)...)
	s.start()
	s.ready()
	n := s.neighbour()
	tr := s.carry(steady, sticky)
	o := outcome{fault: "interrupted dumps", before: s.vitals()}
	stop := n.busy()
	for step := range 4 {
		s.agent.End(syscall.SIGKILL)
		s.objects.put(t, moving(step+1).objects()...)
		began := time.Now()
		s.restart()
		o.repair = max(o.repair, time.Since(began))
		s.Must(s.node.NFT("add element ip kube-nft KUBE-CLUSTER-IP { 10.96.250.1 }"))
		began = time.Now()
		s.objects.put(t, moving(step+2).objects()...)
		s.right(soon)
		o.repair = max(o.repair, time.Since(began))
	}
	const listings = 50
	seen := s.interrupted(listings)
	commits := stop()
	o.injected = commits
	t.Logf("%d commits by the neighbour; of %d listings of ours %d were interrupted", commits, listings, seen)
	if seen == 0 {
		t.Error("no listing was interrupted")
	}
	s.right(soon)
	o.after = s.vitals()
	s.conclude(o, tr)
}

// TestLostNotifications stops kube-nft, lets a neighbour fill its socket with
// notifications, and has somebody change its table when there is no room to tell of it.
func TestLostNotifications(t *testing.T) {
	s := newSite(t, moving(0).objects()...)
	s.start()
	s.ready()
	n := s.neighbour()
	tr := s.carry(steady, sticky)
	o := outcome{fault: "lost notifications", before: s.vitals()}
	s.must("kube-nft listens", soon, func() error { _, err := s.dropped(); return err })
	for i := range 5 {
		s.Must(unix.Kill(s.agent.PID(), unix.SIGSTOP))
		before, err := s.dropped()
		s.Must(err)
		// However large its socket's buffer is.
		s.must("a full socket", soon, func() error {
			s.Must(n.commit(4000))
			if now, err := s.dropped(); err != nil || now == before {
				return fmt.Errorf("nothing was dropped, %v", err)
			}
			return nil
		})
		s.Must(s.node.NFT("delete element ip kube-nft KUBE-CLUSTER-IP { " + moving(0).clusterIP()[0].String() + " }\n" +
			"add element ip6 kube-nft KUBE-CLUSTER-IP { fd00:10:96::beef }"))
		after, err := s.dropped()
		s.Must(err)
		if after == before {
			t.Errorf("round %d: no notification was dropped", i)
		}
		o.injected += after - before
		s.Must(unix.Kill(s.agent.PID(), unix.SIGCONT))
		o.repair = max(o.repair, s.right(soon))
	}
	o.after = s.vitals()
	s.conclude(o, tr)
}

// dropped is how many notifications of nf_tables the kernel had no room for at the
// socket by which kube-nft listens. The columns are those of af_netlink.c,
// netlink_native_seq_show: sk, Eth, Pid, Groups, Rmem, Wmem, Dump, Locks, Drops, Inode.
func (s *site) dropped() (int, error) {
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", s.agent.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) != 10 || f[1] != strconv.Itoa(unix.NETLINK_NETFILTER) {
			continue
		}
		if groups, err := strconv.ParseUint(f[3], 16, 32); err == nil && groups&(1<<(unix.NFNLGRP_NFTABLES-1)) != 0 {
			return strconv.Atoi(f[8])
		}
	}
	return 0, errors.New("nobody listens to nf_tables")
}
