// SPDX-License-Identifier: Apache-2.0

package security

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/process"
)

// exchange writes to an address of the node and returns what comes back until the other
// side ends it, or nothing more does for a while.
func (n *node) exchange(to, text string, wait time.Duration) string {
	n.t.Helper()
	c, err := n.node.DialContext(n.t.Context(), "tcp", to)
	n.Must(err)
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return ""
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	answer, _ := io.ReadAll(c) // what has come counts
	return string(answer)
}

// TestRequests: who asks for what there is not, or otherwise than it is asked for, is
// refused in a few words that say nothing of the cluster.
func TestRequests(t *testing.T) {
	n := newNode(t)
	n.replace(n.config, strings.Join([]string{"apiVersion: kubeproxy.config.k8s.io/v1alpha1", "kind: KubeProxyConfiguration", "mode: nftables",
		"conntrack: {maxPerCore: 0}", "logging: {format: json}"}, "\n"))
	n.run([]string{"-caps", "net_admin"})
	n.program.Await(soon, "serving metrics")
	n.program.Await(soon, "serving health")
	const metrics, health = "127.0.0.1:10249", "127.0.0.1:10256"
	get := func(path, host string) string {
		return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	}
	for _, tt := range []struct{ name, to, text, want string }{
		{"metrics", metrics, get("/metrics", metrics), "200"},
		{"by name", metrics, get("/proxyMode", "localhost:10249"), "200"},
		{"by the node's name", metrics, get("/proxyMode", "node-0"), "200"},
		{"HTTP/1.0", metrics, "GET /proxyMode HTTP/1.0\r\n\r\n", "200"},
		{"another host's name", metrics, get("/metrics", "rebound.example:10249"), "421"},
		{"another host's name, health", health, get("/healthz", "balancer.example"), "200"}, // it tells nothing
		{"no such path", metrics, get("/services", "localhost"), "404"},
		{"no such path, health", health, get("/services", "localhost"), "404"},
		{"a path upwards", metrics, get("/../../etc/passwd", "localhost"), ""},
		{"profiles that are not served", metrics, get("/debug/pprof/", "localhost"), "404"},
		{"one profile", metrics, get("/debug/pprof/heap", "localhost"), "404"},
		{"the command line", metrics, get("/debug/pprof/cmdline", "localhost"), "404"},
		{"the log level", metrics, "PUT /debug/flags/v HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\n9", "404"},
		{"a method", metrics, "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "405"},
		{"another method", metrics, "DELETE /configz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "405"},
		{"no HTTP", metrics, "hello\r\n\r\n", "400"},
		{"no Host", metrics, "GET /metrics HTTP/1.1\r\n\r\n", "400"},
		{"a header without end", metrics, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10), "431"},
		{"a header without end, health", health, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10), "431"},
		{"CONNECT", metrics, "CONNECT 10.96.0.1:80 HTTP/1.1\r\nHost: 10.96.0.1:80\r\nConnection: close\r\n\r\n", "4"},
	} {
		answer := n.exchange(tt.to, tt.text, 5*time.Second)
		status, rest, _ := strings.Cut(answer, "\r\n")
		_, code, _ := strings.Cut(status, " ")
		if tt.want != "" && !strings.HasPrefix(code, tt.want) {
			t.Errorf("%s: answered %q, want %s", tt.name, status, tt.want)
		}
		if strings.HasPrefix(code, "200") {
			continue
		}
		_, body, _ := strings.Cut(rest, "\r\n\r\n")
		for _, secret := range []string{"10.96.", "10.244.", "web", "sticky", "node-0", "default/", "/tmp/", "kube-nft run"} {
			if len(body) > 200 || strings.Contains(body, secret) {
				t.Errorf("%s: the refusal tells of %s: %s", tt.name, secret, body)
			}
		}
	}
}

// TestSlowReaders: hundreds of connections that say nothing, little at a time, or do not
// read, from outside, cost a bounded number of descriptors, and whoever probes meanwhile is
// answered at once. After ten seconds or so they are closed.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.balanced()
	n.run([]string{"-caps", "net_admin"})
	n.program.Await(soon, "serving metrics")
	n.program.Await(soon, "serving health")
	health := netip.AddrPortFrom(nodeAddr, 10256).String()
	balancer := netip.AddrPortFrom(nodeAddr, 32000).String()
	const many = 400
	var slow []net.Conn
	for i := range many {
		for _, at := range []string{health, balancer} {
			c, err := n.client.DialContext(t.Context(), "tcp", at)
			n.Must(err)
			defer c.Close()
			if i%2 == 0 {
				fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ")
			}
			slow = append(slow, c)
		}
	}
	for range 20 {
		for _, url := range []string{"http://" + health + "/livez", "http://" + balancer + "/"} {
			began := time.Now()
			status, body, err := process.Get(n.client, url)
			if took := time.Since(began); err != nil || status != http.StatusOK || took > 2*time.Second {
				t.Errorf("beside %d connections %s answers %d %s, %v, after %v", len(slow), url, status, body, err, took)
			}
		}
	}
	if held := n.descriptors(); held > 2*256+64 {
		t.Errorf("%d connections hold %d descriptors", len(slow), held)
	}
	began := time.Now()
	last := slow[len(slow)-1]
	_ = last.SetReadDeadline(began.Add(40 * time.Second))
	if _, err := bufio.NewReader(last).ReadByte(); err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("the last one lives for %v: %v", time.Since(began), err)
	}
	n.Eventually(40*time.Second, func() error {
		if held := n.descriptors(); held > 64 {
			return fmt.Errorf("%d descriptors are still held", held)
		}
		return nil
	})
	n.answered(n.client, "tcp", clusterIP, 1, 2)
}

// descriptors counts those that the process holds.
func (n *node) descriptors() int {
	n.t.Helper()
	out, err := n.node.Run("ls", fmt.Sprintf("/proc/%d/fd", n.program.PID()))
	n.Must(err)
	return strings.Count(out, "\n")
}
