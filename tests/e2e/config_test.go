// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// get asks an HTTP server of the node, from the node: "200 body".
func (c *cluster) get(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DialContext: c.node.DialContext, DisableKeepAlives: true}}
	response, err := client.Get("http://" + url)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprint(response.StatusCode, " ", string(body))
}

// says checks how the answer of an HTTP server of the node begins.
func (c *cluster) says(t *testing.T, url, begin string) {
	t.Helper()
	if got := c.get(t, url); !strings.HasPrefix(got, begin) {
		t.Errorf("%s says %q, want %q", url, got, begin)
	}
}

// configure writes kube-proxy's configuration file.
func configure(t *testing.T, path, text string) {
	t.Helper()
	const head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nconntrack: {maxPerCore: 0}\nclusterCIDR: " + clusterCIDR + "\n"
	if err := os.WriteFile(path, []byte(head+text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestConfigFile: kube-proxy's own file is what kube-nft needs. Of another mode's it
// does what clients of that one are used to.
func TestConfigFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text           string
		secondary, localhost bool
	}{
		{"no mode, which is iptables", "", true, true},
		{"iptables without localhost", "mode: iptables\niptables: {localhostNodePorts: false}\n", true, false},
		{"ipvs", "mode: ipvs\nipvs: {scheduler: lc, strictARP: true}\n", true, false},
		{"nftables", "mode: nftables\n", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newLocalhost(t)
			c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30080), c.a, c.r)...)
			path := filepath.Join(t.TempDir(), "config.conf")
			configure(t, path, tt.text)
			c.run(t, "--config", path)
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				c.served(t, c.client, network, netip.AddrPortFrom(clusterIP(1)[f], 80), masqueraded, "a", "r")
				c.served(t, c.b, network, netip.AddrPortFrom(clusterIP(1)[f], 80), own, "a", "r") // clusterCIDR counts
				c.served(t, c.client, network, netip.AddrPortFrom(outside[f], 30080), masqueraded, "a", "r")
				for dst, served := range map[netip.AddrPort]bool{netip.AddrPortFrom(secondary[f], 30080): tt.secondary, local(f, 30080): tt.localhost} {
					if served {
						c.served(t, c.node, network, dst, masqueraded, "a", "r")
					} else {
						c.refused(t, c.node, network, dst)
					}
				}
			})
			if strings.Contains(tt.text, "scheduler") {
				c.proxy.logs(t, "level=WARN", "setting has no effect", "ipvs.scheduler", "at random")
			}
		})
	}
}

// TestConfigFileChanges: a changed file is in force without a restart where it can
// be, and connections go on; else the process ends and says why, and packets go on.
func TestConfigFileChanges(t *testing.T) {
	t.Parallel()
	c := newLocalhost(t)
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30080), c.a, c.r)...)
	path := filepath.Join(t.TempDir(), "config.conf")
	configure(t, path, "mode: nftables\n")
	c.run(t, "--config", path)
	conns, answers := c.establish(t)
	everywhere := func(want bool) {
		t.Helper()
		for f := range families {
			dst := netip.AddrPortFrom(secondary[f], 30080)
			c.Eventually(10*time.Second, func() error {
				if want {
					return c.tryServed(c.client, "tcp", dst, masqueraded, "a", "r")
				}
				return c.tryRefused(c.client, "tcp", dst)
			})
		}
	}
	everywhere(false)
	c.says(t, "127.0.0.1:10249/debug/pprof/", "404")
	configure(t, path, "mode: nftables\nnodePortAddresses: [all]\nenableProfiling: true\nnftables: {masqueradeAll: true, masqueradeBit: 13}\n")
	everywhere(true)
	c.served(t, c.b, "tcp", netip.AddrPortFrom(clusterIP(1)[ip4], 80), masqueraded, "a", "r")
	c.says(t, "127.0.0.1:10249/debug/pprof/", "200")
	if got := c.get(t, "127.0.0.1:10249/configz"); !strings.Contains(got, `"nodePortAddresses":["all"]`) {
		t.Errorf("/configz says %s", got)
	}
	configure(t, path, "mode: nftables\nnodePortAddresses: [all, nonsense]\nconntrack: {min: -1}\n")
	c.proxy.logs(t, "is wrong now", "nonsense", "conntrack.min")
	everywhere(true)
	configure(t, path, "mode: nftables\nnodePortAddresses: ['"+secondary[ip4].String()+"/32', '"+secondary[ip6].String()+"/128']\n")
	for f := range families {
		c.Eventually(10*time.Second, func() error {
			return c.tryRefused(c.client, "tcp", netip.AddrPortFrom(outside[f], 30080))
		})
	}
	everywhere(true)
	for i, conn := range conns {
		if a, err := conn.Ask(t.Context()); err != nil || a.Server != answers[i].Server {
			t.Errorf("connection %d: answered by %q, %v, before by %q", i, a.Server, err, answers[i].Server)
		}
	}
	configure(t, path, "mode: nftables\nmetricsBindAddress: 127.0.0.1:10250\n")
	if code := c.proxy.code(t); code != 1 {
		t.Errorf("ended with %d", code)
	}
	c.proxy.logs(t, "needs a restart", "metricsBindAddress")
	everywhere(true)
}

// TestStatus: probes and tools find at kube-proxy's ports what they find there.
func TestStatus(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.run(t, "--cluster-cidr", clusterCIDR)
	c.Eventually(10*time.Second, func() error {
		if got := c.get(t, "127.0.0.1:10256/readyz"); !strings.HasPrefix(got, "200") {
			return fmt.Errorf("/readyz says %q", got)
		}
		return nil
	})
	at := netip.AddrPortFrom(outside[ip4], 10256).String()
	c.says(t, at+"/healthz", `200 {"lastUpdated":"`)
	c.says(t, at+"/livez", `200 {"lastUpdated":"`)
	c.says(t, at+"/metrics", "404")
	c.says(t, "127.0.0.1:10249/healthz", "200 ok")
	c.says(t, "127.0.0.1:10249/proxyMode", "200 nftables")
	c.says(t, "127.0.0.1:10249/configz", `200 {"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration","apiVersion":"kubeproxy.config.k8s.io/v1alpha1"`)
	c.says(t, "127.0.0.1:10249/debug/flags/v", "404")
	series := c.scrape(t)
	for _, name := range []string{`kubeproxy_proxy_healthz_total{code="200"}`, `kubeproxy_proxy_livez_total{code="200"}`} {
		if series[name] != "1" {
			t.Errorf("%s is %q", name, series[name])
		}
	}
}

// TestBindAddressHardFail: an address that somebody else has is waited for, or ends
// the process if it is told so.
func TestBindAddressHardFail(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, port := range []uint16{10249, 10256} {
		c.Serve(c.node.Namespace, "tcp", netip.AddrPortFrom(netip.MustParseAddr(loopbacks[ip4]), port), "other")
	}
	other := startProxy(t, c.node.Namespace, c.manifests)
	other.logs(t, "cannot serve health", "in use", "--healthz-bind-address")
	other.logs(t, "cannot serve metrics", "in use", "--metrics-bind-address")
	other.kill()
	out, code := command(t, c.node.Namespace, 0, "run", "--manifests", c.manifests, "--bind-address-hard-fail", "--conntrack-max-per-core", "0")
	if code != 1 || !strings.Contains(out, "bindAddressHardFail") || !strings.Contains(out, "in use") {
		t.Errorf("ended with %d: %s", code, out)
	}
}

// TestInitOnly: what needs privileges is done, the kernel is looked at, and no table
// made.
func TestInitOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	out, code := command(t, c.node.Namespace, 0, "run", "--init-only", "--conntrack-max-per-core", "0", "--conntrack-udp-timeout", "77s")
	if code != 0 || !strings.Contains(out, "the kernel has what is needed") {
		t.Errorf("ended with %d: %s", code, out)
	}
	if got := c.Run(c.node.Namespace, "cat", "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"); strings.TrimSpace(got) != "77" {
		t.Errorf("nf_conntrack_udp_timeout is %q", got)
	}
	if got := c.Run(c.node.Namespace, "nft", "list", "tables"); got != "" {
		t.Errorf("there are tables: %s", got)
	}
}
