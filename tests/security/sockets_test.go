// SPDX-License-Identifier: Apache-2.0

package security

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// control is the control socket, which answers root and its own user alone; it is there
// if this kube-nft has one.
const control = "unix @kube-nft"

// TestSockets: the process listens where docs/security.md says, in each configuration,
// and nowhere else; it has no raw and no packet socket.
func TestSockets(t *testing.T) {
	// To package net, and so to kube-proxy, 0.0.0.0 is all addresses of both families.
	health, metrics := "tcp [::]:10256", "tcp 127.0.0.1:10249"
	netlink := []string{"netlink netfilter", "netlink route"}
	for _, tt := range []struct {
		name   string
		config string
		flags  []string
		want   []string
	}{
		{"default", "nodePortAddresses: [primary]", nil, []string{health, metrics}},
		{"nothing", "", []string{"--healthz-bind-address=", "--metrics-bind-address=", "--logging-format=json", "--conntrack-max-per-core=0"}, nil},
		{"profiling", "nodePortAddresses: [primary]\nenableProfiling: true", nil, []string{health, metrics}},
		{"elsewhere", "nodePortAddresses: [primary]\nhealthzBindAddress: \"127.0.0.1:20001\"\nmetricsBindAddress: \"[::1]:20002\"", nil, []string{"tcp 127.0.0.1:20001", "tcp [::1]:20002"}},
		{"localhost", "nodePortAddresses: [primary]", []string{"--localhost-nodeports"}, []string{health, metrics,
			"tcp 127.0.0.1:30080", "udp 127.0.0.1:30080", "tcp 127.0.0.1:30081", "udp 127.0.0.1:30081"}},
		{"health check node port", "nodePortAddresses: [primary]", nil, []string{health, metrics, "tcp 198.51.100.1:32000"}},
		{"health check node port on all addresses", "nodePortAddresses: [all]", nil, []string{health, metrics, "tcp 0.0.0.0:32000"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.replace(n.config, strings.Join([]string{"apiVersion: kubeproxy.config.k8s.io/v1alpha1", "kind: KubeProxyConfiguration", "mode: nftables",
				"conntrack: {maxPerCore: 0}", "logging: {format: json}", tt.config}, "\n"))
			if tt.config == "" {
				n.config = ""
			}
			if strings.HasPrefix(tt.name, "health check") {
				n.balanced()
			}
			n.run([]string{"-caps", "net_admin"}, tt.flags...)
			n.Eventually(soon, func() error {
				got := n.sockets()
				got = slices.DeleteFunc(got, func(s string) bool { return s == control })
				want := slices.Sorted(slices.Values(slices.Concat(tt.want, netlink)))
				if diff := cmp.Diff(want, got); diff != "" {
					return fmt.Errorf("-want +got\n%s", diff)
				}
				return nil
			})
		})
	}
}

// balanced writes a Service with a health check node port.
func (n *node) balanced() {
	n.t.Helper()
	n.replace(filepath.Join(n.manifests, "balanced.yaml"), fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: balanced}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.9
  externalTrafficPolicy: Local
  healthCheckNodePort: 32000
  ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: balanced, labels: {kubernetes.io/service-name: balanced}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [%s], nodeName: node-0}]
`, podAddr(1)))
}

// sockets lists where the process listens, and what else it has that could take packets
// or programs in, each kind once, sorted. Connections are left out.
func (n *node) sockets() []string {
	n.t.Helper()
	proc := fmt.Sprintf("/proc/%d", n.program.PID())
	held := make(map[string]bool)
	links, err := filepath.Glob(proc + "/fd/*")
	n.Must(err)
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil {
			if inode, ok := strings.CutPrefix(to, "socket:["); ok {
				held[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	found := make(map[string]bool)
	for kind, describe := range kinds {
		text, err := os.ReadFile(proc + "/net/" + kind)
		if os.IsNotExist(err) {
			continue
		}
		n.Must(err)
		for line := range strings.Lines(string(text)) {
			if what, inode := describe(strings.Fields(line)); what != "" && held[inode] {
				found[what] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// kinds are the files of /proc/PID/net, and how to read a line of each: what it is, if
// that is of interest, and the inode.
var kinds = map[string]func(fields []string) (what, inode string){
	"tcp": internet("tcp", "0A"), "tcp6": internet("tcp", "0A"), "udp": internet("udp", "07"), "udp6": internet("udp", "07"),
	"raw": internet("raw", ""), "raw6": internet("raw", ""), "udplite": internet("udplite", ""),
	"packet": func(f []string) (string, string) { return "packet", f[len(f)-1] },
	"unix": func(f []string) (string, string) {
		if len(f) < 7 || f[3] != "00010000" { // that listens (__SO_ACCEPTCON)
			return "", ""
		}
		return strings.TrimSpace("unix " + strings.Join(f[7:], " ")), f[6]
	},
	"netlink": func(f []string) (string, string) {
		family := map[string]string{"0": "route", "12": "netfilter"}[f[1]]
		if family == "" {
			family = f[1]
		}
		return "netlink " + family, f[len(f)-1]
	},
}

// internet reads a line about a socket in a state, "" is any.
func internet(kind, state string) func(f []string) (string, string) {
	return func(f []string) (string, string) {
		if len(f) < 10 || state != "" && f[3] != state {
			return "", ""
		}
		at, ok := parseAddress(f[1])
		if !ok {
			return "", ""
		}
		return kind + " " + at.String(), f[9]
	}
}

// parseAddress reads an address and port as /proc has them: words in host byte order.
func parseAddress(text string) (netip.AddrPort, bool) {
	words, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(words)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(number)), ok
}

// TestSocketsAreDocumented: what TestSockets wants is what operators read.
func TestSocketsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{"`0.0.0.0:10256`", "`127.0.0.1:10249`", "healthCheckNodePort", "--localhost-nodeports", "`@kube-nft`", "NETLINK_NETFILTER", "NETLINK_ROUTE"} {
		if !strings.Contains(string(text), socket) {
			t.Errorf("docs/security.md does not name %s", socket)
		}
	}
}
