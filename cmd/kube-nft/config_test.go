// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/nft"
)

// flags reads a command line, blanks between words.
func flags(t *testing.T, line string) *options {
	t.Helper()
	var o options
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.addFlags(f)
	if err := f.Parse(strings.Fields(line)); err != nil {
		t.Fatal(err)
	}
	return &o
}

// understood reads a command line to its end.
func understood(t *testing.T, line string) (*options, plan) {
	t.Helper()
	o := flags(t, line)
	c, _, err := o.read()
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.understand(c)
	if err != nil {
		t.Fatal(err)
	}
	return o, p
}

const head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

// file writes a configuration file.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.conf")
	if err := os.WriteFile(path, []byte(head+text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfigProblems: what is wrong is said at once, by the names that were used, and
// is a matter of usage.
func TestConfigProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, line string
		want       []string
	}{
		{"flags", "--detect-local-mode=BridgeInterface --iptables-masquerade-bit=32 --bind-address=here --logging-format=xml --metrics-bind-address=localhost:1 --proxy-mode=x --nodeport-addresses=y --manifests=m --service-proxy-name=n",
			[]string{"--pod-bridge-interface: missing: this --detect-local-mode needs it", "--iptables-masquerade-bit: 32", `--bind-address: "here"`, "--logging-format", "--metrics-bind-address", "--proxy-mode", "--nodeport-addresses", "--manifests and --service-proxy-name"}},
		{"a file", "--config=" + file(t, "detectLocalMode: BridgeInterface\niptables: {masqueradeBit: 32}\nbindAddress: here\nlogging: {format: xml}\nnodePortAddresses: [here]\nclusterCIDR: z\nconntrack: {min: -1}"),
			[]string{"detectLocal.bridgeInterface: missing: this detectLocalMode needs it", "iptables.masqueradeBit: 32", `bindAddress: "here"`, "logging.format", "nodePortAddresses", "conntrack.min"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := flags(t, tt.line)
			c, _, err := o.read()
			if err != nil {
				t.Fatal(err)
			}
			if _, err = o.understand(c); err == nil {
				t.Fatal("no error")
			}
			if _, _, err := o.prepare(); !errors.Is(err, errUsage) && !errors.Is(err, errConfig) {
				t.Fatalf("error %v is not one of usage", err)
			}
			for _, want := range tt.want {
				if !strings.Contains("\n"+err.Error(), "\n"+want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
		})
	}
	// What does not fit, is out of range and is unknown, all at once.
	_, _, err := flags(t, "--config="+file(t, "mode: 5\nclusterCIDR: 10.0.0.0/99\noomScoreAdj: -2000\nclusterCidr: x")).prepare()
	if !errors.Is(err, errConfig) {
		t.Fatalf("err = %v", err)
	}
	for _, want := range []string{"config.conf:", "mode: 5 is no text", `clusterCIDR: "10.0.0.0/99"`, "oomScoreAdj: -2000", `unknown field "clusterCidr"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if _, _, err := flags(t, "--config=/nowhere").read(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestFlags: every flag is one of kube-proxy's, by the field that it fills in, or one
// of ours.
func TestFlags(t *testing.T) {
	t.Parallel()
	known := []string{"config", "healthz-port", "metrics-port", "master", "manifests", "service-proxy-name", "localhost-nodeports", "counters", "host-root", "check-interval"}
	for name := range ineffective {
		known = append(known, name)
	}
	for _, name := range flagOf {
		known = append(known, name)
	}
	var have []string
	flags(t, "").flags.VisitAll(func(f *pflag.Flag) { have = append(have, f.Name) })
	slices.Sort(known)
	slices.Sort(have)
	if d := cmp.Diff(known, have); d != "" {
		t.Errorf("flags (-known +have):\n%s", d)
	}
}

// TestFlagsFillIn: each flag of kube-proxy's changes the field that it is said to.
func TestFlagsFillIn(t *testing.T) {
	t.Parallel()
	values := map[string]string{"feature-gates": "A=true", "kube-api-qps": "7", "kube-api-burst": "7", "v": "4", "healthz-bind-address": "192.0.2.1:7",
		"metrics-bind-address": "192.0.2.1:7", "bind-address": "192.0.2.1", "proxy-mode": "ipvs", "detect-local-mode": "NodeCIDR", "vmodule": "a=1",
		"iptables-masquerade-bit": "7", "oom-score-adj": "7", "conntrack-max-per-core": "7", "conntrack-min": "7", "iptables-localhost-nodeports": "false"}
	usual := flags(t, "").fromFlags()
	for path, name := range flagOf {
		value, ok := values[name]
		switch kind := flags(t, "").flags.Lookup(name).Value.Type(); {
		case ok:
		case kind == "bool":
			value = "true"
		case kind == "duration":
			value = "7s"
		default:
			value = "seven"
		}
		changed := config.Changed(usual, flags(t, "--"+name+"="+value).fromFlags())
		// Those of iptables are for nftables too.
		changed = slices.DeleteFunc(changed, func(p string) bool { return strings.HasPrefix(p, "nftables.") })
		if !slices.Equal(changed, []string{path}) {
			t.Errorf("--%s=%s changes %q, want %s", name, value, changed, path)
		}
	}
}

// TestPlan: what files and flags mean.
func TestPlan(t *testing.T) {
	t.Parallel()
	type meaning struct {
		All, Localhost      bool
		Bit                 uint8
		Healthz, Metrics    string
		Node                string
		Verbosity, PerCore  int
		NoExternalIPs, Json bool
	}
	usual := meaning{Bit: 14, Healthz: "0.0.0.0:10256", Metrics: "127.0.0.1:10249", Node: "node", PerCore: 32768}
	but := func(change func(*meaning)) meaning { m := usual; change(&m); return m }
	for _, tt := range []struct {
		name, line string
		want       meaning
	}{
		{"flags", "--hostname-override=NODE", usual},
		{"flags of a mode", "--hostname-override=node --proxy-mode=iptables --iptables-masquerade-bit=3", but(func(m *meaning) { m.All, m.Localhost, m.Bit = true, true, 3 })},
		{"the bit is for nftables too", "--hostname-override=node --iptables-masquerade-bit=3", but(func(m *meaning) { m.Bit = 3 })},
		{"localhost, kube-proxy's flag", "--hostname-override=node --iptables-localhost-nodeports", but(func(m *meaning) { m.Localhost = true })},
		{"localhost, ours goes before", "--hostname-override=node --proxy-mode=iptables --localhost-nodeports=false", but(func(m *meaning) { m.All = true })},
		{"nowhere", "--hostname-override=node --metrics-bind-address= --healthz-bind-address=", but(func(m *meaning) { m.Healthz, m.Metrics = "", "" })},
		{"without ports", "--hostname-override=node --metrics-bind-address=::1 --healthz-bind-address=192.0.2.1", but(func(m *meaning) { m.Healthz, m.Metrics = "192.0.2.1:10256", "[::1]:10249" })},
		{"ports of old", "--hostname-override=node --metrics-port=0 --healthz-port=7", but(func(m *meaning) { m.Metrics = "" })},
		{"ports of old, of an address without", "--hostname-override=node --healthz-bind-address=192.0.2.1 --healthz-port=7", but(func(m *meaning) { m.Healthz = "192.0.2.1:7" })},
		{"empty ones", "--hostname-override=node --feature-gates= --bind-address= --config=", usual},
		{"an empty name beside a file", "--hostname-override= --config=" + file(t, "hostnameOverride: node\nmode: nftables"), usual},
		{"a file", "--config=" + file(t, "hostnameOverride: NODE\n"), but(func(m *meaning) { m.All, m.Localhost = true, true })},
		{"a file, nftables", "--config=" + file(t, "hostnameOverride: node\nmode: nftables\nnftables: {masqueradeBit: 5}\nfeatureGates: {AllowServiceExternalIPs: false}\nlogging: {verbosity: 3, format: json}"),
			but(func(m *meaning) { m.Bit, m.NoExternalIPs, m.Verbosity, m.Json = 5, true, 3, true })},
		{"flags beside a file", "--hostname-override=node -v 1 --logging-format=text --iptables-masquerade-bit=7 --conntrack-max-per-core=1 --healthz-port=1 --config=" + file(t, "hostnameOverride: other\nmode: nftables\nlogging: {verbosity: 3, format: json}"),
			but(func(m *meaning) { m.Verbosity = 1 })},
		{"localhost, ours beside a file", "--localhost-nodeports=false --config=" + file(t, "hostnameOverride: node"), but(func(m *meaning) { m.All = true })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, p := understood(t, tt.line)
			got := meaning{
				All: p.rules.Options[nft.IPv4].AllNodePorts, Localhost: p.localNodePorts, Bit: p.rules.Options[nft.IPv4].MasqueradeBit,
				Healthz: p.of.HealthzBindAddress, Metrics: p.of.MetricsBindAddress, Node: p.nodeName, Verbosity: int(p.of.Logging.Verbosity),
				PerCore: p.limits.MaxPerCore, NoExternalIPs: !p.ExternalIPs, Json: p.of.Logging.Format == "json",
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// TestTold: what has no effect is said, and whether it matters.
func TestTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, line string
		want       []string // beginnings of lines, in order
	}{
		{"nothing to say", "--iptables-masquerade-bit=3 --masquerade-all --iptables-sync-period=1m", nil},
		{"flags", "--ipvs-scheduler=lc --iptables-min-sync-period=0 --boot-id-file=x", []string{
			`level=INFO msg="flag has no effect" flag=--boot-id-file`,
			`level=INFO msg="setting has no effect" setting=--iptables-min-sync-period value=0s because="every change`,
			`level=WARN msg="setting has no effect" setting=--ipvs-scheduler value=lc because="each new connection`}},
		{"a file", "--cluster-cidr=10.0.0.0/8 --hostname-override=node -v=2 --metrics-port=1 --master=https://192.0.2.1 --counters=false --config=" + file(t, "mode: ipvs\nipvs: {scheduler: sh}\nfeatureGates: {X: true}\nnftables: {masqueradeAll: true}"), []string{
			`level=WARN msg="flag has no effect beside a configuration file: set it there" flag=--cluster-cidr field=clusterCIDR`,
			`level=WARN msg="flag has no effect beside a configuration file: set it there" flag=--metrics-port`,
			`level=WARN msg="setting has no effect" setting=ipvs.scheduler value=sh`,
			`level=WARN msg="setting has no effect" setting=nftables.masqueradeAll value=true`,
			`level=INFO msg="setting has no effect" setting=featureGates.X`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, p := understood(t, tt.line)
			var text bytes.Buffer
			log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}}))
			o.tellFlags(log)
			o.tellNotes(log, p.of)
			lines := slices.Collect(strings.Lines(text.String()))
			if len(lines) != len(tt.want) {
				t.Fatalf("%d lines, want %d:\n%s", len(lines), len(tt.want), &text)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("%q, want %q", lines[i], want)
				}
			}
		})
	}
}

// TestPlaceholder: manifests that nobody has edited are told so at once.
func TestPlaceholder(t *testing.T) {
	t.Parallel()
	o, p := understood(t, "--master=https://api-server.invalid:6443")
	if _, _, err := o.client(p); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "apiServer") {
		t.Errorf("err = %v", err)
	}
	o, p = understood(t, "--master=https://192.0.2.1:6443")
	if _, server, err := o.client(p); err != nil || server != "https://192.0.2.1:6443" {
		t.Errorf("%s, %v", server, err)
	}
}

// TestWriteConfig: what is written is taken, and means the same.
func TestWriteConfig(t *testing.T) {
	t.Parallel()
	var o runOptions
	o.options = *flags(t, "--cluster-cidr=10.0.0.0/8 --conntrack-udp-timeout=7s --oom-score-adj=-5 --feature-gates=A=true")
	o.writeTo = filepath.Join(t.TempDir(), "written")
	if err := o.writeConfig(); err != nil {
		t.Fatal(err)
	}
	_, p := understood(t, "--config="+o.writeTo) // nothing is unknown
	if changed := config.Changed(o.fromFlags(), p.of); len(changed) > 0 {
		text, _ := os.ReadFile(o.writeTo)
		t.Errorf("%q differ in\n%s", changed, text)
	}
}
