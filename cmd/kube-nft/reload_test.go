// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestReload: what a changed file does.
func TestReload(t *testing.T) {
	t.Parallel()
	const usual = "mode: nftables\nhostnameOverride: node\nclusterCIDR: 10.0.0.0/8\n"
	for _, tt := range []struct {
		name, to string
		applied  bool
		restart  bool
		log      string
	}{
		{"the same in other words", "hostnameOverride: node\nmode: nftables\nclusterCIDR: 10.0.0.0/8\nbindAddress: 0.0.0.0\n", false, false, ""},
		{"rules", usual + "nodePortAddresses: [all]\n", true, false, "fields=nodePortAddresses"},
		{"the mode, with all that follows", "hostnameOverride: node\nclusterCIDR: 10.0.0.0/8\niptables: {localhostNodePorts: false}\n", true, false, `fields="mode, iptables.localhostNodePorts"`},
		{"limits and log", usual + "conntrack: {min: 7}\nlogging: {verbosity: 3}\noomScoreAdj: 3\n", true, false, "conntrack.min"},
		{"what does nothing", usual + "configSyncPeriod: 1m\n", true, false, "setting=configSyncPeriod"},
		{"something unknown", usual + "unheardOf: 1\n", false, false, "unheardOf"},
		{"an address to listen at", usual + "metricsBindAddress: 127.0.0.1:7\n", false, true, ""},
		{"the node", strings.Replace(usual, "node", "other", 1), false, true, ""},
		{"a relay", "hostnameOverride: node\nclusterCIDR: 10.0.0.0/8\n", false, true, ""},
		{"the API", usual + "clientConnection: {qps: 7}\n", false, true, ""},
		{"external IPs", usual + "featureGates: {AllowServiceExternalIPs: false}\n", false, true, ""},
		{"wrong", usual + "conntrack: {min: -7}\n", false, false, "conntrack.min: -7 is below 0"},
		{"no YAML", usual + "{", false, false, "wrong now"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := file(t, usual)
			o, p := understood(t, "--config="+path)
			var log bytes.Buffer
			var applied []plan
			told := false
			r := reloader{options: o, tell: func(wrong bool) { told = wrong }, log: &logger{Logger: slog.New(slog.NewTextHandler(&log, nil))}, now: p, apply: func(_, p plan) { applied = append(applied, p) }}
			err := r.reload([]byte(head + tt.to))
			if errors.Is(err, errRestart) != tt.restart || (err != nil) != tt.restart {
				t.Errorf("err = %v", err)
			}
			if (len(applied) == 1) != tt.applied || (tt.applied && len(applied[0].rules.Options) == 0) {
				t.Errorf("applied %d times", len(applied))
			}
			if told != (tt.name == "wrong" || tt.name == "no YAML") {
				t.Errorf("the file is told to be wrong: %t", told)
			}
			if !strings.Contains(log.String(), tt.log) || tt.log == "" && log.Len() > 0 {
				t.Errorf("log, want %q in it:\n%s", tt.log, &log)
			}
		})
	}
}

// TestReloadFollowsLinks: a ConfigMap's file is behind a link to a directory that is
// replaced. The file may be away for a moment, and is taken once it has settled.
func TestReloadFollowsLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	version := func(name, text string) {
		t.Helper()
		must(os.Mkdir(filepath.Join(dir, name), 0o755))
		must(os.WriteFile(filepath.Join(dir, name, "config.conf"), []byte(head+"mode: nftables\n"+text), 0o644))
		must(os.Symlink(name, filepath.Join(dir, "new")))
		must(os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "..data")))
	}
	version("one", "")
	must(os.Symlink("..data/config.conf", filepath.Join(dir, "config.conf")))
	o, p := understood(t, "--hostname-override=node --config="+filepath.Join(dir, "config.conf"))
	applied := make(chan plan, 10)
	var log netlab.Output
	r := reloader{options: o, log: &logger{Logger: slog.New(slog.NewTextHandler(&log, nil))}, now: p, every: time.Millisecond, apply: func(_, p plan) { applied <- p }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	version("two", "nodePortAddresses: [all]\n")
	select {
	case p := <-applied:
		if !p.rules.Options[nft.IPv4].AllNodePorts {
			t.Errorf("applied %+v", p.rules)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the change was not seen")
	}
	must(os.Remove(filepath.Join(dir, "..data")))
	version("three", "hostnameOverride: no effect beside the flag\nmetricsBindAddress: 127.0.0.1:7\n")
	select {
	case err := <-done:
		if !errors.Is(err, errRestart) || !strings.Contains(err.Error(), "metricsBindAddress") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
	cancel()
}
