// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

// load decodes, fills in and validates.
func load(t *testing.T, text string) *Configuration {
	t.Helper()
	c, unknown, err := Decode([]byte(text))
	if err != nil || len(unknown) > 0 {
		t.Fatalf("%v, unknown %q", err, unknown)
	}
	SetDefaults(c)
	if problems := Validate(c); problems != nil {
		t.Fatal(problems)
	}
	return c
}

// TestKubeadm: the file that kubeadm 1.37 writes (kubeadm config print init-defaults
// --component-configs KubeProxyConfiguration) is taken as it is, and there is
// nothing to say about it.
func TestKubeadm(t *testing.T) {
	text, err := os.ReadFile("testdata/kubeadm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := load(t, string(text))
	if notes := Notes(c); len(notes) > 0 {
		t.Errorf("notes on what kubeadm writes: %v", notes)
	}
	if c.ClientConnection.Kubeconfig != "/var/lib/kube-proxy/kubeconfig.conf" {
		t.Errorf("kubeconfig %q", c.ClientConnection.Kubeconfig)
	}
	want := Settings{Mode: IPTables, MasqueradeBit: 14, SyncPeriod: 30 * time.Second,
		NodePortAddresses: []string{"all"}, LocalhostNodePorts: true, ExternalIPs: true}
	if d := cmp.Diff(want, SettingsOf(c)); d != "" {
		t.Errorf("settings (-want +got):\n%s", d)
	}
}

func TestDecode(t *testing.T) {
	tests := []struct {
		name, text string
		unknown    []string
		errs       []string // each a part of one
	}{
		{name: "the least", text: head},
		{name: "JSON", text: `{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration","conntrack":{"min":5}}`},
		{name: "unknown fields, each told", text: head + "foo: 1\niptables:\n  bar: x\n  masqueradeall: true\n",
			unknown: []string{`unknown field "foo"`, `unknown field "iptables.bar"`, `unknown field "iptables.masqueradeall"`}},
		{name: "a key twice", text: head + "clusterCIDR: 10.0.0.0/8\nclusterCIDR: 10.1.0.0/16\n", unknown: []string{`key "clusterCIDR" already set`}},
		{name: "all that does not fit", text: head + "mode: 5\nconntrack:\n  min: many\n  tcpBeLiberal: 1\nnodePortAddresses: primary\nipvs: []\nconfigSyncPeriod: soon\nfeatureGates: {a: 1}\n",
			errs: []string{"mode: 5 is no text", "conntrack.min: \"many\" is no number", "conntrack.tcpBeLiberal: 1 is no true or false",
				"nodePortAddresses: \"primary\" is no list of text", "ipvs: is no mapping", "configSyncPeriod: \"soon\" is no duration like 30s", "featureGates: "}},
		{name: "another kind", text: "apiVersion: v1\nkind: ConfigMap\ndata: {}\n", unknown: []string{`unknown field "data"`},
			errs: []string{`apiVersion "v1", kind "ConfigMap": this file is none of kube-proxy`}},
		{name: "empty", text: "", errs: []string{`kind ""`}},
		{name: "no YAML", text: "{", errs: []string{"yaml"}},
		{name: "no mapping", text: "- a\n", errs: []string{"no mapping of fields", `kind ""`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, unknown, err := Decode([]byte(tt.text))
			if len(unknown) != len(tt.unknown) {
				t.Errorf("unknown %q, want %q", unknown, tt.unknown)
			}
			for _, want := range tt.unknown {
				if !slices.ContainsFunc(unknown, func(got string) bool { return strings.Contains(got, want) }) {
					t.Errorf("unknown %q, want %q", unknown, want)
				}
			}
			if (err == nil) != (len(tt.errs) == 0) {
				t.Fatalf("err = %v", err)
			}
			for _, want := range tt.errs {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("err = %v\nwant %q in it", err, want)
				}
			}
		})
	}
}

// TestValidate: every problem is there at once, by the path of its field.
func TestValidate(t *testing.T) {
	c, _, err := Decode([]byte(head + `
mode: ebpf
bindAddress: here
healthzBindAddress: localhost:1
metricsBindAddress: 127.0.0.1:0
oomScoreAdj: 1001
configSyncPeriod: -1s
iptables: {masqueradeBit: 32, syncPeriod: 1s, minSyncPeriod: 2s}
nftables: {masqueradeBit: -1}
conntrack: {maxPerCore: -1, min: -2, tcpEstablishedTimeout: -1s, tcpCloseWaitTimeout: -1s, udpTimeout: -1s, udpStreamTimeout: -1s}
clientConnection: {burst: -1}
logging: {format: xml}
`))
	if err != nil {
		t.Fatal(err)
	}
	SetDefaults(c)
	problems := Validate(c)
	for _, field := range []string{"mode", "bindAddress", "healthzBindAddress", "metricsBindAddress", "oomScoreAdj", "configSyncPeriod",
		"iptables.masqueradeBit", "iptables.minSyncPeriod", "nftables.masqueradeBit", "conntrack.maxPerCore", "conntrack.min",
		"conntrack.tcpEstablishedTimeout", "conntrack.tcpCloseWaitTimeout", "conntrack.udpTimeout", "conntrack.udpStreamTimeout",
		"clientConnection.burst", "logging.format"} {
		if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Field == field && p.Text != "" }) {
			t.Errorf("nothing is said of %s: %v", field, problems)
		}
	}
}

func TestSettings(t *testing.T) {
	tests := []struct {
		name, text string
		want       Settings
	}{
		{"no mode is iptables", "", Settings{Mode: IPTables, MasqueradeBit: 14, SyncPeriod: 30 * time.Second, NodePortAddresses: []string{"all"}, LocalhostNodePorts: true, ExternalIPs: true}},
		{"iptables", "mode: iptables\niptables: {masqueradeBit: 3, masqueradeAll: true, syncPeriod: 5s, localhostNodePorts: false}\nnftables: {masqueradeBit: 4, syncPeriod: 6s}",
			Settings{Mode: IPTables, MasqueradeBit: 3, MasqueradeAll: true, SyncPeriod: 5 * time.Second, NodePortAddresses: []string{"all"}, ExternalIPs: true}},
		{"ipvs has the bit of iptables", "mode: ipvs\niptables: {masqueradeBit: 3, masqueradeAll: true}\nipvs: {syncPeriod: 7s}",
			Settings{Mode: IPVS, MasqueradeBit: 3, MasqueradeAll: true, SyncPeriod: 7 * time.Second, NodePortAddresses: []string{"all"}, ExternalIPs: true}},
		{"nftables", "mode: nftables\niptables: {masqueradeBit: 3, masqueradeAll: true}\nnftables: {masqueradeBit: 0, syncPeriod: 6s}\nfeatureGates: {AllowServiceExternalIPs: false}",
			Settings{Mode: NFTables, SyncPeriod: 6 * time.Second, NodePortAddresses: []string{"primary"}}},
		{"nftables with a relay", "mode: nftables\nnodePortAddresses: [primary, localhost]\nfeatureGates: {KubeProxyNFTablesLocalhostNodePorts: true}",
			Settings{Mode: NFTables, MasqueradeBit: 14, SyncPeriod: 30 * time.Second, NodePortAddresses: []string{"primary", "localhost"}, LocalhostNodePorts: true, ExternalIPs: true}},
		{"nftables without being told where", "mode: nftables\nnodePortAddresses: [all]\nfeatureGates: {KubeProxyNFTablesLocalhostNodePorts: true}",
			Settings{Mode: NFTables, MasqueradeBit: 14, SyncPeriod: 30 * time.Second, NodePortAddresses: []string{"all"}, ExternalIPs: true}},
		{"nftables without the gate", "mode: nftables\nnodePortAddresses: [localhost]",
			Settings{Mode: NFTables, MasqueradeBit: 14, SyncPeriod: 30 * time.Second, NodePortAddresses: []string{"localhost"}, ExternalIPs: true}},
		{"iptables without loopback", "nodePortAddresses: [192.0.2.0/24, primary]",
			Settings{Mode: IPTables, MasqueradeBit: 14, SyncPeriod: 30 * time.Second, NodePortAddresses: []string{"192.0.2.0/24", "primary"}, ExternalIPs: true}},
		{"iptables with loopback", "nodePortAddresses: [127.0.0.1/32]",
			Settings{Mode: IPTables, MasqueradeBit: 14, SyncPeriod: 30 * time.Second, NodePortAddresses: []string{"127.0.0.1/32"}, LocalhostNodePorts: true, ExternalIPs: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, SettingsOf(load(t, head+tt.text))); d != "" {
				t.Errorf("settings (-want +got):\n%s", d)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	for _, tt := range []struct{ text, healthz, metrics string }{
		{"", "0.0.0.0:10256", "127.0.0.1:10249"},
		{"bindAddress: '::'", "[::]:10256", "[::1]:10249"},
		{"bindAddress: 192.0.2.1\nhealthzBindAddress: 192.0.2.1\nmetricsBindAddress: '::'", "192.0.2.1:10256", "[::]:10249"},
	} {
		if c := load(t, head+tt.text); c.HealthzBindAddress != tt.healthz || c.MetricsBindAddress != tt.metrics {
			t.Errorf("%q: %s, %s, want %s, %s", tt.text, c.HealthzBindAddress, c.MetricsBindAddress, tt.healthz, tt.metrics)
		}
	}
}

// TestFields: what is said of the fields is said of all of them, and of no other.
func TestFields(t *testing.T) {
	var known []string
	for _, f := range fields {
		known = append(known, f.path)
		if f.does == "" && f.not == "" {
			t.Errorf("%s: neither what it does nor why it does nothing", f.path)
		}
		if f.counts != nil && (f.does == "" || f.not == "") {
			t.Errorf("%s: counts at times: say what it does then, and why not else", f.path)
		}
	}
	real := slices.Sorted(maps.Keys(leaves(New())))
	slices.Sort(known)
	if d := cmp.Diff(real, known); d != "" {
		t.Errorf("fields.go and the type differ (-type +fields.go):\n%s", d)
	}
}

// TestNotes sets each field that does nothing, and is told so.
func TestNotes(t *testing.T) {
	c := New()
	c.Mode = NFTables
	want := make(map[string]bool)
	walk("", reflect.ValueOf(c).Elem(), func(path string, v reflect.Value) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.path == path })
		f := fields[i]
		if f.does != "" && (f.counts == nil || f.counts(c)) {
			return
		}
		want[path] = true
		change(v)
	})
	got := make(map[string]bool)
	for _, n := range Notes(c) {
		got[n.Field] = true
		if n.Why == "" || n.Value == "" {
			t.Errorf("%+v", n)
		}
	}
	if d := cmp.Diff(want, got); d != "" || len(want) < 20 {
		t.Errorf("fields without effect (-want +noted):\n%s", d)
	}
	c = New()
	c.FeatureGates = map[string]bool{"AllowServiceExternalIPs": false, "NFTablesProxyMode": true}
	if notes := Notes(c); len(notes) != 1 || notes[0].Field != "featureGates.NFTablesProxyMode" {
		t.Errorf("notes on gates: %v", notes)
	}
	if got := Changed(New(), c); !slices.Equal(got, []string{"featureGates"}) {
		t.Errorf("changed: %q", got)
	}
}

// change makes a value another one.
func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		p.Elem().Set(v.Elem())
		change(p.Elem())
		v.Set(p)
	case reflect.Struct: // a duration or a quantity
		into := v.Addr().Interface()
		if json.Unmarshal([]byte(`"7s"`), into) != nil && json.Unmarshal([]byte(`"7"`), into) != nil {
			panic("a field of type " + v.Type().String())
		}
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	default:
		panic("a field of kind " + v.Kind().String())
	}
}
