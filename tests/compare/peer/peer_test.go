// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/controller/config"
)

func TestFind(t *testing.T) {
	if got, err := Find("iptables", "kube-nft"); err != nil || !slices.Equal(Names(got), []string{"iptables", "kube-nft"}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Find("ipchains"); err == nil || !strings.Contains(err.Error(), "nftables-1.36") {
		t.Errorf("error %v does not say what there is", err)
	}
}

// TestLaunch: each kube-proxy gets a configuration that is one, for its mode, and finds
// the iptables that is meant.
func TestLaunch(t *testing.T) {
	for _, p := range All {
		if why := p.Missing(); why != "" {
			t.Logf("%s: %s", p.Name, why)
			continue
		}
		n := Node{Name: "node-1", Kubeconfig: "/kubeconfig", ClusterCIDR: "10.128.0.0/9", Dir: t.TempDir()}
		l, err := p.Launch("/program", n)
		if err != nil {
			t.Fatal(err)
		}
		if p.Module == "" {
			continue
		}
		text, err := os.ReadFile(l.Args[1])
		if err != nil {
			t.Fatal(err)
		}
		c, unknown, err := config.Decode(text)
		if err != nil || len(unknown) > 0 {
			t.Fatalf("%s: %v, unknown fields %v", p.Name, err, unknown)
		}
		config.SetDefaults(c)
		if problems := config.Validate(c); len(problems) > 0 || string(c.Mode) != p.Mode {
			t.Errorf("%s: mode %s, %v", p.Name, c.Mode, problems)
		}
		if c.IPTables.MinSyncPeriod.Duration != p.MinSync {
			t.Errorf("%s waits %v between two passes, not %v", p.Name, c.IPTables.MinSyncPeriod.Duration, p.MinSync)
		}
		if p.Tools == "" {
			continue
		}
		to, err := os.Readlink(n.Dir + "/tools/ip6tables-restore")
		if err != nil || !strings.HasSuffix(to, multi(p.Tools)) {
			t.Errorf("%s: ip6tables-restore is %s, %v", p.Name, to, err)
		}
	}
}
