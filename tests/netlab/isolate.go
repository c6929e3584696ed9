// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrNotIsolated is returned by everything that would change network state in
// a process that does not run in namespaces of its own.
var ErrNotIsolated = errors.New("not in a network namespace made by netlab")

// markerEnv carries the marker from Isolate to the process it starts. It is
// a claim to be verified, never a proof.
const markerEnv = "NETLAB_ISOLATED"

// netnsDir is where the ip program looks for named network namespaces.
const netnsDir = "/run/netns"

// marker is what the parent of an isolated process says about itself.
type marker struct {
	pid  int    // the parent
	net  string // its network namespace, as the link in /proc names it
	user string // its user namespace
}

func (m marker) String() string {
	return fmt.Sprintf("%d %s %s", m.pid, m.net, m.user)
}

func parseMarker(s string) (marker, error) {
	if s == "" {
		return marker{}, fmt.Errorf("%s is not set", markerEnv)
	}
	var m marker
	if n, err := fmt.Sscan(s, &m.pid, &m.net, &m.user); n != 3 {
		return marker{}, fmt.Errorf("parse %s=%q: %w", markerEnv, s, err)
	}
	return m, nil
}

// Isolated reports whether this process runs in namespaces that Isolate made
// for it. The first call in such a process also prepares them: private mounts,
// an empty /run/netns, the loopback interface up. The answer never changes.
func Isolated() bool { return enter() == nil }

// enter verifies and prepares the isolation of this process, once.
var enter = sync.OnceValue(func() error {
	if err := verify(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotIsolated, err)
	}
	if err := prepare(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotIsolated, err)
	}
	return nil
})

// isChild reports whether the parent of this process claims to have isolated
// it. A marker that was inherited from further up does not count.
func isChild() bool {
	m, err := parseMarker(os.Getenv(markerEnv))
	return err == nil && m.pid == os.Getppid()
}

// verify checks that the network namespace of this process is neither its
// parent's nor process 1's. Inside a user namespace the kernel shows neither;
// there it must be a namespace that this user namespace owns, which the
// machine's own network is not.
func verify() error {
	m, err := parseMarker(os.Getenv(markerEnv))
	if err != nil {
		return err
	}
	if m.pid != os.Getppid() {
		return fmt.Errorf("marker is of process %d, parent is %d", m.pid, os.Getppid())
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if own == m.net {
		return fmt.Errorf("%s is the network namespace of the parent", own)
	}
	visible := false
	for _, pid := range []int{1, m.pid} {
		other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			continue
		}
		visible = true
		if other == own {
			return fmt.Errorf("%s is the network namespace of process %d", own, pid)
		}
	}
	if !visible {
		return verifyOwner(m)
	}
	return nil
}

// verifyOwner checks that this process is in another user namespace than its
// parent and that its network namespace belongs to that user namespace.
func verifyOwner(m marker) error {
	user, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return err
	}
	if user == m.user {
		return fmt.Errorf("%s is the user namespace of the parent, which hides its network", user)
	}
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer f.Close()
	fd, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return fmt.Errorf("read owner of network namespace: %w", err)
	}
	defer unix.Close(fd)
	owner, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err
	}
	if owner != user {
		return fmt.Errorf("network namespace belongs to %s, not to %s", owner, user)
	}
	return nil
}

// prepare makes the mounts private, hides the machine's named namespaces and
// brings the loopback interface up. It works in verified namespaces only.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		// Only root may create it in /run, but a user namespace may cover /run.
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount /run: %w", err)
		}
		if err := os.Mkdir(netnsDir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", netnsDir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", netnsDir, err)
	}
	// Shared, as the ip program makes it: "ip netns exec" copies the mounts,
	// and a copy that misses the unmount would keep a closed namespace alive.
	if err := unix.Mount("", netnsDir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share %s: %w", netnsDir, err)
	}
	return linkUp("lo")
}

// environ returns the environment of an isolated child.
func environ(m marker) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, markerEnv+"=") {
			env = append(env, kv)
		}
	}
	return append(env, markerEnv+"="+m.String())
}
