// SPDX-License-Identifier: Apache-2.0

// Package netlab is a laboratory of network namespaces in which real packets
// travel: namespaces, veth pairs, bridges and routes to build a small cluster
// of, servers that say who they are and whom they saw, and clients that say
// who answered them and how a failure looked.
//
//	lab      a set of namespaces that is closed as one
//	|- "client"  eth0 ---- veth ---- c0  "node"  p0 ---- veth ---- eth0  "pod"
//	|  Ask, Dial                     NFT, Sysctl                   Serve
//
// # Isolation
//
// The machine's own network is never touched. A process that wants a [Lab]
// runs itself again in a network and a mount namespace of its own: tests by
// calling [Main] from TestMain, commands by [Isolated] and [Isolate]. The child
// does not believe the environment variable that marks it, it compares its
// network namespace with those of its parent and of process 1. [New] refuses to
// work anywhere else, with [ErrNotIsolated], and every other operation that
// changes network state needs something that came from New. All of it vanishes
// with the process, however it ends: the named namespaces are mounts in its
// mount namespace, and the processes of [Namespace.Command] die with the thread
// that started them.
//
// # Threads
//
// Each [Namespace] owns one operating system thread that entered the namespace
// and never leaves it. [Namespace.Do] runs a function there. A socket and a
// process belong for good to the namespace of the thread that created them, so
// only creation goes through that thread; waiting, reading and writing do not.
//
// # Settings of a new namespace
//
// A namespace starts from the same settings on every machine: nothing is
// forwarded, no reverse path filter, no duplicate address detection or router
// solicitation (IPv6 addresses work at once), and no rate limit on ICMP errors
// (a thousand refused requests are a thousand refusals). The rest is the
// kernel's default.
//
// # Out of scope
//
// The package knows nothing of Services, nftables objects or Kubernetes; it
// does not capture or count packets, and its SCTP is one handshake packet in
// each direction over raw sockets, because kernels without SCTP sockets still
// track and translate SCTP. It calls the ip and nft programs, hence it serves
// tests, demonstrations and measurements only.
package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Lab is a set of namespaces that is closed as one. Its methods may be called
// from several goroutines. Labs do not disturb each other: two of them may use
// the same names for their namespaces.
type Lab struct {
	number int64

	mu         sync.Mutex
	closed     bool
	namespaces []*Namespace
}

var labs atomic.Int64

// New returns an empty lab. It fails with ErrNotIsolated in a process that
// does not run in namespaces of its own.
func New() (*Lab, error) {
	if err := enter(); err != nil {
		return nil, err
	}
	return &Lab{number: labs.Add(1)}, nil
}

// Namespace creates a network namespace with the loopback interface up and the
// settings that the package documentation names. The ip program finds it under
// the base name of its Path, which is name unless another lab took that.
func (l *Lab) Namespace(name string) (*Namespace, error) {
	if name == "" || strings.ContainsAny(name, "/ \n") || name[0] == '.' {
		return nil, fmt.Errorf("namespace %q: invalid name", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("namespace %s: %w", name, ErrClosed)
	}
	taken := func(n *Namespace) bool { return n.name == name }
	if slices.ContainsFunc(l.namespaces, taken) {
		return nil, fmt.Errorf("namespace %s: exists", name)
	}
	path, err := l.reserve(name)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	n, err := newNamespace(name, path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("namespace %s: %w", name, err), os.Remove(path))
	}
	l.namespaces = append(l.namespaces, n)
	return n, nil
}

// reserve creates the file on which the namespace is to be mounted.
func (l *Lab) reserve(name string) (string, error) {
	var failed error
	for _, base := range []string{name, fmt.Sprintf("%s-%d", name, l.number)} {
		path := filepath.Join(netnsDir, base)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
		if err == nil {
			return path, f.Close()
		}
		failed = err
	}
	return "", failed
}

// Close closes the servers and the namespaces of the lab and kills processes
// that still run in them. A namespace ceases to exist once nothing refers to
// it, so connections from Dial are for the caller to close. Close is
// idempotent.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	for _, n := range slices.Backward(l.namespaces) {
		errs = append(errs, n.close())
	}
	l.namespaces = nil
	return errors.Join(errs...)
}

// pollEvery is how long Poll waits between two attempts.
const pollEvery = 2 * time.Millisecond

// Poll calls f until it returns nil, and returns its last error if that takes
// longer than within. It calls f at least once.
func Poll(within time.Duration, f func() error) error {
	err := f()
	if err == nil {
		return nil
	}
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err = f(); err == nil {
				return nil
			}
		case <-deadline.C:
			return fmt.Errorf("after %v: %w", within, err)
		}
	}
}
