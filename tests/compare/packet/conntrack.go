// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

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

// tracked returns how many connections a namespace tracks.
func tracked(n *netlab.Namespace) (count int, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			count, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	return count, err
}

// received returns how many packets an interface of a namespace has received.
func received(n *netlab.Namespace, ifname string) (count int, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err == nil {
			count, err = parseReceived(string(text), ifname)
		}
		return err
	})
	return count, err
}

// parseReceived finds the received packets of an interface in /proc/net/dev.
func parseReceived(text, ifname string) (int, error) {
	for line := range strings.Lines(text) {
		name, figures, ok := strings.Cut(line, ":")
		fields := strings.Fields(figures)
		if ok && strings.TrimSpace(name) == ifname && len(fields) > 2 {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("no interface %s in /proc/net/dev", ifname)
}
