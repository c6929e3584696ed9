// SPDX-License-Identifier: Apache-2.0

package security

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParameters: with everything that could ask for a kernel parameter, localhost node
// ports above all, the only one of the network that changes is what the configuration
// names. route_localnet is not among them, from start to end.
func TestParameters(t *testing.T) {
	n := newNode(t)
	n.Must(n.node.NFT("table ip warm {\nchain c {\ntype nat hook prerouting priority 0\nct state new accept\n}\n}\ndelete table ip warm")) // conntrack's parameters are there
	before := n.parameters()
	n.run([]string{"-caps", "net_admin"}, "--service-metrics", "10")
	n.live()
	n.program.End(syscall.SIGTERM)
	got := n.parameters()
	want := maps.Clone(before)
	want["netfilter/nf_conntrack_tcp_timeout_established"] = "39600"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parameters, -want +got\n%s", diff)
	}
	localnet := 0
	for name, value := range got {
		if strings.HasSuffix(name, "/route_localnet") {
			if localnet++; value != "0" {
				t.Errorf("%s is %s", name, value)
			}
		}
	}
	if localnet < 3 {
		t.Errorf("%d parameters are called route_localnet, want one for each interface", localnet)
	}
}

// parameters reads all kernel parameters of the node's network but those that count by
// themselves.
func (n *node) parameters() map[string]string {
	n.t.Helper()
	all := make(map[string]string)
	n.Must(n.node.Do(func() error {
		dir := "/proc/thread-self/root/proc/sys/net"
		return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return nil // some may not be read
			}
			name := strings.TrimPrefix(path, dir+"/")
			switch filepath.Base(name) {
			case "nf_conntrack_count", "nf_conntrack_buckets", "nf_conntrack_expect_max", "flush", "stable_secret":
				return nil
			}
			if text, err := os.ReadFile(path); err == nil {
				all[name] = strings.TrimSpace(string(text))
			}
			return nil
		})
	}))
	if len(all) < 100 {
		n.t.Fatalf("%d parameters", len(all))
	}
	return all
}
