// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// xtables is a socket to the tables of iptables-legacy of a family.
type xtables struct {
	fd     int
	family nft.Family
}

// openXtables returns nil where there is no such table: to ask for one would make it.
func openXtables(f nft.Family) (*xtables, []string, error) {
	names := tableNames(f)
	if len(names) == 0 {
		return nil, nil, nil
	}
	domain := unix.AF_INET
	if f == nft.IPv6 {
		domain = unix.AF_INET6
	}
	// Any socket of the family will do.
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return &xtables{fd: fd, family: f}, names, explain("open iptables-legacy", err)
}

func (x *xtables) close() { _ = unix.Close(x.fd) }

// tableNames lists the tables of iptables-legacy that exist in this namespace and that
// kube-proxy writes to.
func tableNames(f nft.Family) (names []string) {
	file := map[nft.Family]string{nft.IPv4: "ip_tables_names", nft.IPv6: "ip6_tables_names"}[f]
	text, err := os.ReadFile("/proc/thread-self/net/" + file)
	if err != nil {
		return nil // xtables is not there, or another user's
	}
	for _, name := range iptables {
		if slices.Contains(strings.Fields(string(text)), name) {
			names = append(names, name)
		}
	}
	return names
}

// read reads a table.
func (x *xtables) read(name string) (*blob, error) {
	for range attempts {
		b := &blob{family: x.family, name: name}
		info := make([]byte, infoLen)
		copy(info, name)
		if err := x.get(optGetInfo, info); err != nil {
			return nil, explain("read table "+name+" of iptables-legacy", err)
		}
		_, size := b.readInfo(info)
		entries := make([]byte, nameLen+8+int(size))
		copy(entries, name)
		binary.NativeEndian.PutUint32(entries[nameLen:], size)
		switch err := x.get(optGetEntries, entries); {
		case errors.Is(err, unix.EAGAIN): // another size meanwhile
			continue
		case err != nil:
			return nil, explain("read table "+name+" of iptables-legacy", err)
		}
		if err := b.parse(entries[nameLen+8:]); err != nil {
			return nil, explain("understand table "+name+" of iptables-legacy", err)
		}
		return b, nil
	}
	return nil, explain("read table "+name+" of iptables-legacy", errInterrupted)
}

// findLegacy finds kube-proxy's rules of iptables-legacy.
func findLegacy(f nft.Family) (found []Rules, frontends []Frontend, err error) {
	x, names, err := openXtables(f)
	if x == nil || err != nil {
		return nil, nil, err
	}
	defer x.close()
	for _, name := range names {
		b, err := x.read(name)
		if err != nil {
			return nil, nil, err
		}
		t := b.table()
		rules := t.leftovers()
		if !rules.empty() || len(rules.Kept) > 0 {
			found, frontends = append(found, rules), append(frontends, t.frontends()...)
		}
	}
	return found, frontends, nil
}

// removeLegacy removes kube-proxy's rules from a table of iptables-legacy as it is now.
func removeLegacy(ctx context.Context, f nft.Family, name string) error {
	x, names, err := openXtables(f)
	if err != nil || !slices.Contains(names, name) {
		return err
	}
	defer x.close()
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for range attempts {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		was, err := x.read(name)
		if err != nil {
			return err
		}
		switch err := x.write(was); {
		case errors.Is(err, unix.EAGAIN):
			// There are more rules now, or less: somebody without the lock.
		default:
			return explain("write table "+name+" of iptables-legacy", permission(err))
		}
	}
	return explain("write table "+name+" of iptables-legacy", errInterrupted)
}

// write replaces a table by itself without kube-proxy's rules, atomically, and gives the
// rules that stay what they had counted, up to the moment of the exchange.
func (x *xtables) write(was *blob) error {
	is, data, from := was.without()
	if len(from) == len(was.entries) {
		return nil
	}
	counted := make([]byte, counterLen*len(was.entries))
	replace := is.replace(data, len(from), len(was.entries))
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&counted[0])
	binary.NativeEndian.PutUint64(replace[pointerAt:], uint64(uintptr(unsafe.Pointer(&counted[0]))))
	if err := x.set(optReplace, replace); err != nil {
		return err
	}
	return x.set(optAddCounters, is.addCounters(counted, from))
}

// get is getsockopt; the kernel fills b.
func (x *xtables) get(option int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(x.fd), uintptr(level(x.family)), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return permission(errno)
	}
	return nil
}

func (x *xtables) set(option int, b []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(x.fd), uintptr(level(x.family)), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// lockFile is what programs of iptables-legacy lock while they change a table.
const lockFile = "/run/xtables.lock"

// lock takes the lock of xtables. Where its file cannot be had, as in a container that
// does not mount it, there is none: a change by others between reading and writing is
// noticed by the kernel if the number of rules changes, and lost otherwise, as it is
// for every program without the lock.
func lock(ctx context.Context) (unlock func(), err error) {
	fd, err := unix.Open(lockFile, unix.O_CREAT|unix.O_RDONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return func() {}, nil
	}
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Close(fd) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = unix.Close(fd)
			return func() {}, nil
		}
		select {
		case <-ctx.Done():
			_ = unix.Close(fd)
			return nil, fmt.Errorf("wait for %s, which another program of iptables holds: %w", lockFile, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
