// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by operations on a namespace, or in a lab, that has
// been closed.
var ErrClosed = errors.New("closed")

// A Namespace is a network namespace and the one thread that lives in it. The
// goroutine in work owns the thread; Do is how others reach it. All methods may
// be called from several goroutines.
type Namespace struct {
	name string
	path string
	file *os.File // keeps the namespace, and serves libraries that want its descriptor
	tid  int

	jobs chan job
	stop chan struct{} // closed to end the goroutine
	gone chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	closed  bool
	servers map[*Server]struct{}

	sentAgain atomic.Int64 // by servers; see SentAgain
}

// job is one call of Do.
type job struct {
	f    func() error
	done chan error
}

func newNamespace(name, path string) (*Namespace, error) {
	n := &Namespace{
		name:    name,
		path:    path,
		jobs:    make(chan job),
		stop:    make(chan struct{}),
		gone:    make(chan struct{}),
		servers: make(map[*Server]struct{}),
	}
	ready := make(chan error)
	go n.work(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return n, nil
}

// work moves its thread into a new namespace and runs jobs there. The thread
// is never unlocked after that: when the goroutine ends, the runtime ends it.
func (n *Namespace) work(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The runtime cannot end the main thread, and /proc/self is about it.
		// While it is locked here, another goroutine gets another thread.
		other := make(chan error)
		go n.work(other)
		ready <- <-other
		runtime.UnlockOSThread() // it has entered nothing
		return
	}
	defer close(n.gone)
	n.tid = unix.Gettid()
	if err := n.create(); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for {
		select {
		case j := <-n.jobs:
			j.run()
		case <-n.stop:
			return
		}
	}
}

// create replaces the namespace of the calling thread by a new one and names
// it. On error it leaves nothing behind but the thread, which is to end.
func (n *Namespace) create() (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", n.path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", n.path, err)
	}
	if n.file, err = os.Open(n.path); err == nil {
		err = errors.Join(settle(), linkUp("lo"))
	}
	if err != nil {
		return errors.Join(err, unix.Unmount(n.path, unix.MNT_DETACH), n.file.Close())
	}
	return nil
}

// settings are what every namespace starts with. Without them some depend on
// the machine: new namespaces copy the IPv4 settings of the first one.
var settings = []struct{ key, value string }{
	{"net/ipv4/ip_forward", "0"},
	{"net/ipv4/conf/all/rp_filter", "0"},
	{"net/ipv4/conf/default/rp_filter", "0"},
	{"net/ipv4/icmp_ratelimit", "0"},
	{"net/ipv4/icmp_msgs_per_sec", "1000000"}, // per namespace since Linux 6.13
	{"net/ipv4/icmp_msgs_burst", "1000000"},
	{"net/ipv6/icmp/ratelimit", "0"},
	{"net/ipv6/conf/all/disable_ipv6", "0"},
	{"net/ipv6/conf/default/disable_ipv6", "0"},
	{"net/ipv6/conf/all/forwarding", "0"},
	{"net/ipv6/conf/all/accept_dad", "0"}, // off only if off in both
	{"net/ipv6/conf/default/accept_dad", "0"},
	{"net/ipv6/conf/default/router_solicitations", "0"},
}

// settle writes the settings that this kernel has.
func settle() error {
	for _, s := range settings {
		err := writeSysctl(s.key, s.value)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// run calls the function and reports, even if the function ends the goroutine.
func (j job) run() {
	err := errors.New("function did not return")
	defer func() { j.done <- err }()
	err = j.f()
}

// Do runs f on the thread of the namespace and returns its error. Sockets that
// f creates and processes that it starts belong to the namespace; goroutines
// that it starts do not run there. Calls do not overlap, so f should not block.
// f may call Do itself.
func (n *Namespace) Do(f func() error) error {
	if unix.Gettid() == n.tid && !n.ended() {
		return f() // only jobs run on this thread
	}
	j := job{f: f, done: make(chan error, 1)}
	select {
	case n.jobs <- j:
		return <-j.done
	case <-n.gone:
		return fmt.Errorf("namespace %s: %w", n.name, ErrClosed)
	}
}

// ended reports whether the thread may be gone, and its id that of another.
func (n *Namespace) ended() bool {
	select {
	case <-n.gone:
		return true
	default:
		return false
	}
}

// Name returns the name by which the lab knows the namespace.
func (n *Namespace) Name() string { return n.name }

// Path returns the file that stands for the namespace, in /run/netns.
func (n *Namespace) Path() string { return n.path }

// Fd returns a descriptor of the namespace, for libraries that take one. It
// belongs to the namespace and is valid until the lab is closed.
func (n *Namespace) Fd() int { return int(n.file.Fd()) }

// Sysctl sets a kernel parameter of the namespace. The key is written with
// dots, or with slashes if the name of an interface in it contains a dot.
func (n *Namespace) Sysctl(key, value string) error {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	return n.Do(func() error { return writeSysctl(key, value) })
}

// writeSysctl writes a parameter of the calling thread's namespace.
func writeSysctl(key, value string) error {
	f, err := os.OpenFile(filepath.Join("/proc/sys", key), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set sysctl to %q: %w", value, err)
	}
	return nil
}

// close ends the thread, and with it the processes that it started, and
// removes the name.
func (n *Namespace) close() error {
	n.mu.Lock()
	n.closed = true
	servers := n.servers
	n.servers = nil
	n.mu.Unlock()

	var errs []error
	for s := range servers {
		errs = append(errs, s.Close())
	}
	close(n.stop)
	<-n.gone
	errs = append(errs, n.file.Close(), unix.Unmount(n.path, unix.MNT_DETACH), os.Remove(n.path))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close namespace %s: %w", n.name, err)
	}
	return nil
}
