// SPDX-License-Identifier: Apache-2.0

// Package cluster starts a Kubernetes API for a test: a real kube-apiserver on a
// real etcd, with authentication, RBAC and ClusterIP allocation as they are in
// production. There are no kubelets or nodes, and no controllers but those of a real
// kube-controller-manager that Config.Controllers names: without them nothing writes
// an EndpointSlice or a ServiceAccount but the test itself.
//
// etcd listens on Unix sockets only, so a Cluster takes one TCP port and several
// may run side by side. Every child dies with the test process.
//
// Build makes programs from the module in tests/kubernetes, etcd too, because one
// older than 3.4.31, or a 3.5 older than 3.5.13, cannot report the progress of
// a watch on request. The server then refuses to stream lists, and client-go falls
// back to list and watch.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// startLimit bounds Start and Restart when their context has no deadline.
const startLimit = 3 * time.Minute

type commandFunc func(ctx context.Context, name string, args ...string) *exec.Cmd

// Config says what to start. The zero value is a dual-stack cluster on 127.0.0.1.
type Config struct {
	// Binaries to run; what is empty comes from Build.
	Binaries Binaries
	// Listen is the address that the server listens on, by default 127.0.0.1.
	// It may be unspecified, to listen on all of a namespace's addresses.
	Listen netip.Addr
	// Port is by default one that is free in the server's network namespace.
	Port uint16
	// SANs are addresses, other than Listen, loopback and the ClusterIPs of Service
	// default/kubernetes, under which clients may reach the server.
	SANs []netip.Addr
	// ServiceCIDRs are by default 10.96.0.0/16 and fd00:10:96::/112. The first is
	// the primary one.
	ServiceCIDRs []netip.Prefix
	// Advertise is the address that the server writes into the EndpointSlice of
	// Service default/kubernetes, of the family of the primary ServiceCIDR and not
	// loopback. By default there is no such EndpointSlice.
	Advertise netip.Addr
	// Users are the users besides Admin.
	Users []User
	// Controllers are those that a kube-controller-manager runs, which is started if
	// there is one: "endpointslice-controller", say.
	Controllers []string
	// Args are more arguments to kube-apiserver; the last one of a name holds.
	Args []string
	// Command makes the commands that run in the cluster's network namespace. It
	// may wrap them, in `nsenter` say, as long as the command replaces the wrapper
	// and keeps its process id and working directory. By default they run in the
	// namespace of the test process, not in one that the caller's thread entered.
	Command func(ctx context.Context, name string, args ...string) *exec.Cmd
	// Dial reaches the server, for Client, Do and the wait for readiness. By
	// default it is that of net.Dialer, in the namespace of whichever thread it
	// happens to run on.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log hears of a build; it may be nil.
	Log *slog.Logger
}

// Cluster is a running API. Its methods may be called from any goroutine.
type Cluster struct {
	URL       string         // https://address:port
	AddrPort  netip.AddrPort // the same; the address is loopback if Listen is unspecified
	CAFile    string         // what to trust for URL, PEM
	StartTook time.Duration  // from starting etcd until the API was ready

	config  Config
	dir     string // certificates, kubeconfigs, logs, etcd's data; gone after Stop
	tokens  map[string]string
	client  *http.Client // Admin's
	roots   []byte       // contents of CAFile
	etcd    *process
	manager *process // nil without Config.Controllers

	mu     sync.Mutex
	server *process
}

// Run starts a Cluster that stops when the test ends. If the test has failed by
// then, or the start fails, the ends of the logs are in the test's output.
func Run(t testing.TB, config Config) *Cluster {
	t.Helper()
	if config.Log == nil {
		config.Log = slog.Default()
	}
	c, err := Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of the cluster:\n%s", c.Logs(100))
		}
		if err := c.Stop(); err != nil {
			t.Errorf("stop cluster: %v", err)
		}
	})
	return c
}

// Start starts etcd and kube-apiserver and returns when the API is ready and has
// namespaces default, with Service kubernetes and, if Advertise is set, its
// EndpointSlice, and kube-system. ctx bounds the start, not the life of the Cluster,
// which Stop ends. An error holds the ends of the logs.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	config, err := config.complete(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withLimit(ctx)
	defer cancel()
	if config.Port == 0 {
		if config.Port, err = freePort(ctx, config.Command); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "kube-nft-cluster-")
	if err != nil {
		return nil, err
	}
	c := newCluster(config, dir)
	if err := c.start(ctx); err != nil {
		err = fmt.Errorf("start cluster: %w\n%s", err, c.Logs(30))
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// complete fills in the defaults.
func (c Config) complete(ctx context.Context) (Config, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.Binaries, err = c.Binaries.complete(ctx, c.Log, len(c.Controllers) > 0); err != nil {
		return c, err
	}
	if !c.Listen.IsValid() {
		c.Listen = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if len(c.ServiceCIDRs) == 0 {
		c.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}
	}
	if c.Command == nil {
		c.Command = exec.CommandContext
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	return c, nil
}

func newCluster(config Config, dir string) *Cluster {
	addr := config.Listen
	switch addr {
	case netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	at := netip.AddrPortFrom(addr, config.Port)
	return &Cluster{
		URL:      "https://" + at.String(),
		AddrPort: at,
		CAFile:   filepath.Join(dir, "ca.crt"),
		config:   config,
		dir:      dir,
		tokens:   make(map[string]string),
	}
}

// start brings up a Cluster that has everything but files and processes.
func (c *Cluster) start(ctx context.Context) error {
	if err := c.writeCertificates(); err != nil {
		return fmt.Errorf("write certificates: %w", err)
	}
	if err := c.writeUsers(); err != nil {
		return fmt.Errorf("write users: %w", err)
	}
	began := time.Now()
	var err error
	if c.etcd, err = c.run(ctx, "etcd", c.config.Binaries.Etcd, etcdArgs()); err != nil {
		return err
	}
	if err := c.Restart(ctx); err != nil {
		return err
	}
	c.StartTook = time.Since(began)
	return nil
}

// Stop ends all processes and removes the Cluster's files. It is idempotent.
func (c *Cluster) Stop() error {
	return errors.Join(c.manager.stop(), c.Kill(), c.etcd.stop(), os.RemoveAll(c.dir))
}

// Kill ends the kube-apiserver at once, as a crash would, and leaves etcd and all
// objects. It returns when the process is gone. It is idempotent.
func (c *Cluster) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.server.stop(); err != nil {
		return err
	}
	c.server = nil
	return nil
}

// Restart starts a kube-apiserver on the same address and port, after killing one
// that runs, and returns when it is ready. Controllers start anew.
func (c *Cluster) Restart(ctx context.Context) error {
	ctx, cancel := withLimit(ctx)
	defer cancel()
	if err := c.Kill(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.run(ctx, "kube-apiserver", c.config.Binaries.APIServer, c.serverArgs())
	if err != nil {
		return err
	}
	c.server = p
	if err := c.awaitReady(ctx, p); err != nil {
		return err
	}
	return c.restartManager(ctx)
}

// PID returns the process id of kube-apiserver, 0 if none runs.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return 0
	}
	return c.server.pid
}

// EtcdSocket returns the path of the socket on which etcd answers, by gRPC and its own
// HTTP gateway: for whoever has to write more than the API server takes.
func (c *Cluster) EtcdSocket() string {
	return filepath.Join(c.dir, strings.TrimPrefix(etcdClients, "unix://"))
}

// Logs returns the last lines of each process's log.
func (c *Cluster) Logs(lines int) string {
	var b strings.Builder
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		text, err := os.ReadFile(c.logFile(name))
		if err != nil {
			continue // it has not started
		}
		fmt.Fprintf(&b, "%s:\n%s", name, tail(text, lines))
	}
	return b.String()
}

func (c *Cluster) logFile(name string) string {
	return filepath.Join(c.dir, name+".log")
}

func (c *Cluster) run(ctx context.Context, name, path string, args []string) (*process, error) {
	// The processes outlive the call: ctx may have a deadline that is about it only.
	cmd := c.config.Command(context.WithoutCancel(ctx), path, args...)
	cmd.Dir = c.dir
	return start(cmd, c.logFile(name))
}

// Sockets of etcd, files in the working directory of both processes. The form is
// etcd's: it wants host and port even there.
const (
	etcdClients = "unix://etcd:1"
	etcdPeers   = "unix://etcd:2"
)

func etcdArgs() []string {
	return []string{
		"--data-dir=etcd",
		"--unsafe-no-fsync",
		"--listen-client-urls=" + etcdClients,
		"--advertise-client-urls=" + etcdClients,
		"--listen-peer-urls=" + etcdPeers,
		"--initial-advertise-peer-urls=" + etcdPeers,
		"--initial-cluster=default=" + etcdPeers,
		"--heartbeat-interval=10", // a second less until the only member leads
		"--election-timeout=100",
		"--logger=zap",
		"--log-level=warn",
	}
}

func (c *Cluster) serverArgs() []string {
	var ranges []string
	for _, p := range c.config.ServiceCIDRs {
		ranges = append(ranges, p.String())
	}
	advertise, reconciler := c.AddrPort.Addr(), "none"
	if c.config.Advertise.IsValid() {
		advertise, reconciler = c.config.Advertise, "lease"
	}
	return slices.Concat([]string{
		"--etcd-servers=" + etcdClients,
		"--bind-address=" + c.config.Listen.String(),
		"--secure-port=" + strconv.Itoa(int(c.config.Port)),
		"--advertise-address=" + advertise.String(),
		"--endpoint-reconciler-type=" + reconciler,
		"--cert-dir=.",
		"--tls-cert-file=server.crt",
		"--tls-private-key-file=server.key",
		"--client-ca-file=ca.crt",
		"--token-auth-file=tokens.csv",
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=accounts.key",
		"--service-account-signing-key-file=accounts.key",
		"--service-cluster-ip-range=" + strings.Join(ranges, ","),
		"--allow-privileged",
		// It would wait for a controller to make each namespace's account.
		"--disable-admission-plugins=ServiceAccount",
	}, c.config.Args)
}

// readyPaths must all be there for the API to be ready; /readyz does not cover what
// the server creates in the background.
func (c *Cluster) readyPaths() []string {
	paths := []string{
		"/readyz",
		"/api/v1/namespaces/default",
		"/api/v1/namespaces/kube-system",
		"/api/v1/namespaces/default/services/kubernetes",
	}
	if c.config.Advertise.IsValid() {
		paths = append(paths, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
	}
	return paths
}

// awaitReady waits for the API, or for an end of the processes behind it.
func (c *Cluster) awaitReady(ctx context.Context, server *process) error {
	var last error
	err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
		if err := c.etcd.gone(); err != nil {
			return false, fmt.Errorf("etcd: %w", err)
		}
		if err := server.gone(); err != nil {
			return false, fmt.Errorf("kube-apiserver: %w", err)
		}
		for _, path := range c.readyPaths() {
			if err := c.Do(ctx, http.MethodGet, path, nil, nil); err != nil {
				last = err
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("wait for kube-apiserver: %w; last answer: %w", err, last)
	}
	return err
}

func (c *Cluster) writeCertificates() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	addrs := []netip.Addr{c.AddrPort.Addr(), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for _, p := range c.config.ServiceCIDRs {
		addrs = append(addrs, p.Masked().Addr().Next()) // Service default/kubernetes has the first
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	cert, key, err := ca.issue(names, slices.Concat(addrs, c.config.SANs))
	if err != nil {
		return err
	}
	_, accounts, err := ca.issue(nil, nil) // for the key
	if err != nil {
		return err
	}
	return errors.Join(
		writeCertificate(c.CAFile, ca.cert),
		writeCertificate(filepath.Join(c.dir, "server.crt"), cert),
		writeKey(filepath.Join(c.dir, "server.key"), key),
		writeKey(filepath.Join(c.dir, "accounts.key"), accounts),
	)
}

func withLimit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, startLimit)
}
