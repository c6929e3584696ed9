// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// sockets knows what the sockets of a process are. The goroutine of serve owns it.
type sockets struct {
	pid   int
	known map[string]*socket // by the name of the inode
}

type socket struct {
	netfilter bool
	topic     Topic
	again     bool // received since it has sent
}

func newSockets(pid int) sockets { return sockets{pid: pid, known: make(map[string]*socket)} }

// call describes a call; ok is false if it is not about a netfilter socket.
func (s *sockets) call(n *notification) (c Call, ok bool) {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.pid, int32(n.Args[0])))
	if err != nil || !strings.HasPrefix(name, "socket:") {
		return Call{}, false
	}
	at, known := s.known[name]
	if !known {
		at = &socket{netfilter: s.isNetfilter(name)}
		s.known[name] = at
	}
	if !at.netfilter {
		return Call{}, false
	}
	if n.NR != unix.SYS_SENDTO {
		c = Call{Op: Receive, Topic: at.topic, Again: at.again}
		at.again = true
		return c, true
	}
	header := make([]byte, unix.SizeofNlMsghdr)
	if err := s.read(header, uintptr(n.Args[1])); err == nil {
		at.topic = topic(binary.NativeEndian.Uint16(header[4:]))
	}
	at.again = false
	return Call{Op: Send, Topic: at.topic}, true
}

// topic is what a message's type is about: its high byte is the subsystem, and a batch
// begins with NFNL_MSG_BATCH_BEGIN, which has none.
func topic(kind uint16) Topic {
	const batchBegin = 0x10
	switch {
	case kind == batchBegin:
		return Transaction
	case kind>>8 == unix.NFNL_SUBSYS_NFTABLES:
		return Question
	}
	return Conntrack
}

// isNetfilter looks a socket up among the netlink sockets of the process's namespace:
// the columns are sk, Eth (the protocol), Pid, Groups, Rmem, Wmem, Dump, Locks, Drops
// and Inode (af_netlink.c, netlink_native_seq_show).
func (s *sockets) isNetfilter(name string) bool {
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", s.pid))
	if err != nil {
		return false
	}
	inode := strings.TrimSuffix(strings.TrimPrefix(name, "socket:["), "]")
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) == 10 && f[9] == inode {
			return f[1] == fmt.Sprint(unix.NETLINK_NETFILTER)
		}
	}
	return false
}

// read reads the process's memory.
func (s *sockets) read(into []byte, at uintptr) error {
	local := []unix.Iovec{{Base: &into[0]}}
	local[0].SetLen(len(into))
	n, err := unix.ProcessVMReadv(s.pid, local, []unix.RemoteIovec{{Base: at, Len: len(into)}}, 0)
	if err == nil && n < len(into) {
		err = fmt.Errorf("read %d bytes of %d", n, len(into))
	}
	if err != nil {
		return fmt.Errorf("read memory of process %d: %w", s.pid, err)
	}
	return nil
}

// do makes a call in place of the process, on its own socket, and forgets the result.
func (s *sockets) do(pidfd int, n *notification) error {
	fd, err := unix.PidfdGetfd(pidfd, int(int32(n.Args[0])), 0)
	if err != nil {
		return fmt.Errorf("copy descriptor: %w", err)
	}
	defer unix.Close(fd)
	if n.NR != unix.SYS_SENDTO {
		_, err = unix.Read(fd, make([]byte, 64<<10))
		if err == unix.EAGAIN {
			return nil // there was nothing to lose
		}
		return err
	}
	data := make([]byte, n.Args[2])
	if err := s.read(data, uintptr(n.Args[1])); err != nil {
		return err
	}
	if err := unix.Sendto(fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send in place of the process: %w", err)
	}
	return nil
}
