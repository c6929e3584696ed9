// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Limits are the kernel parameters of conntrack that kube-proxy sets
// (KubeProxyConfiguration, conntrack). The zero value leaves all as they are, and
// so does each zero in it.
type Limits struct {
	// MaxPerCore and Min bound the number of entries: so many for each CPU, at
	// least Min, at most 1,048,576. Without MaxPerCore Min means nothing.
	MaxPerCore, Min int
	// Timeouts of idle connections; parts of a second are cut off.
	TCPEstablished, TCPCloseWait, UDP, UDPStream time.Duration
	// TCPBeLiberal lets packets outside of the TCP window pass as valid.
	TCPBeLiberal bool
}

// maxEntries bounds the limit that follows from the number of CPUs, as in
// kube-proxy: every entry takes about 320 bytes.
const maxEntries = 1 << 20

// Where the parameters are, below the root. All but buckets belong to the network
// namespace.
const (
	sysctls = "proc/sys/net/netfilter"
	buckets = sysctls + "/nf_conntrack_buckets" // what kube-proxy writes as the module's hashsize
	online  = "sys/devices/system/cpu/online"
)

// Apply writes the parameters that differ. A limit of entries is only raised. What
// cannot be written is logged, one line each, and stays as it is. root is "/", or
// where proc/sys/net of the host is mounted: that of a container is read-only.
//
// The hash table is the whole machine's, whatever the namespace: it is made larger
// only if the limit of entries, which only the first namespace can set, was.
func (l Limits) Apply(root string, log *slog.Logger) {
	p := params{root, log}
	if n := l.entries(root); n > 0 && p.raise(filepath.Join(sysctls, "nf_conntrack_max"), n) {
		p.raise(buckets, n/4) // four entries a bucket, as in kube-proxy
	}
	liberal := 0
	if l.TCPBeLiberal {
		liberal = 1
	}
	for _, s := range []struct {
		name string
		to   int
	}{
		{"nf_conntrack_tcp_timeout_established", int(l.TCPEstablished / time.Second)},
		{"nf_conntrack_tcp_timeout_close_wait", int(l.TCPCloseWait / time.Second)},
		{"nf_conntrack_tcp_be_liberal", liberal},
		{"nf_conntrack_udp_timeout", int(l.UDP / time.Second)},
		{"nf_conntrack_udp_timeout_stream", int(l.UDPStream / time.Second)},
	} {
		if s.to > 0 {
			p.set(filepath.Join(sysctls, s.name), s.to, func(now int) bool { return now != s.to })
		}
	}
}

// entries is the limit of entries; 0 leaves it as it is.
func (l Limits) entries(root string) int {
	if l.MaxPerCore <= 0 {
		return 0
	}
	scaled := l.MaxPerCore * cpus(root)
	if scaled > maxEntries {
		return maxEntries
	}
	return max(scaled, l.Min)
}

// cpus is how many CPUs the machine has, which a container sees as well as the host.
// The process may be bound to fewer, which the table is not.
func cpus(root string) int {
	list, err := os.ReadFile(filepath.Join(root, online))
	if err != nil {
		list, _ = os.ReadFile(filepath.Join("/", online))
	}
	if n, err := countCPUs(strings.TrimSpace(string(list))); err == nil {
		return n
	}
	return runtime.NumCPU()
}

// countCPUs counts a list like 0-3,8 (Linux, Documentation/admin-guide/cputopology.rst).
func countCPUs(list string) (n int, err error) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		if err != nil {
			return 0, err
		}
		to, err := strconv.Atoi(last)
		if err != nil || to < from {
			return 0, fmt.Errorf("CPUs %q", part)
		}
		n += to - from + 1
	}
	return n, nil
}

// params are kernel parameters in files.
type params struct {
	root string
	log  *slog.Logger
}

func (p params) raise(name string, to int) bool {
	return p.set(name, to, func(now int) bool { return now < to })
}

// set writes a parameter if its value is not good, and reports whether it was
// written.
func (p params) set(name string, to int, bad func(now int) bool) bool {
	path := filepath.Join(p.root, name)
	text, err := os.ReadFile(path)
	if err == nil {
		now, parseErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if parseErr == nil && !bad(now) {
			return false
		}
		err = write(path, strconv.Itoa(to))
	}
	if err != nil {
		p.log.Warn("kernel parameter cannot be set and stays as it is; set it on the host (sysctl.d), or give its setting in conntrack 0",
			"parameter", filepath.Base(name), "value", to, "err", err)
		return false
	}
	p.log.Info("kernel parameter set", "parameter", filepath.Base(name), "value", to, "was", strings.TrimSpace(string(text)))
	return true
}

// write writes a file that is there.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
