// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// FlushConntrack makes the namespace forget all connections.
func (n *Namespace) FlushConntrack() error { return n.Do(flushConntrack) }

// flushConntrack deletes all entries of the calling thread's network namespace: a
// request to delete without saying what (linux/netfilter/nfnetlink_conntrack.h).
func flushConntrack() error {
	const deleteEntry = 2 // IPCTNL_MSG_CT_DELETE
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("flush conntrack: %w", err)
	}
	defer unix.Close(fd)
	ne := binary.NativeEndian
	msg := ne.AppendUint32(nil, unix.SizeofNlMsghdr+4)
	msg = ne.AppendUint16(msg, unix.NFNL_SUBSYS_CTNETLINK<<8|deleteEntry)
	msg = ne.AppendUint16(msg, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	msg = append(msg, make([]byte, 8)...)      // sequence, port
	msg = append(msg, unix.AF_UNSPEC, 0, 0, 0) // struct nfgenmsg
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("flush conntrack: %w", err)
	}
	reply := make([]byte, 256)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return fmt.Errorf("flush conntrack: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 {
		return errors.New("flush conntrack: short answer")
	}
	if errno := -int32(ne.Uint32(reply[unix.SizeofNlMsghdr:])); errno != 0 {
		return fmt.Errorf("flush conntrack: %w", unix.Errno(errno))
	}
	return nil
}
