// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// FuzzDecode reads any text as kube-proxy's configuration: nothing panics, what the real
// decoder takes strictly is read alike, and what is valid means something.
func FuzzDecode(f *testing.F) {
	text, err := os.ReadFile("testdata/kubeadm.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, more := range []string{"", "mode: ipvs\nipvs: {excludeCIDRs: [10.0.0.0/8], syncPeriod: 1h}\n", "conntrack: null\niptables: {masqueradeBit: 31}\n",
		"nodePortAddresses: [primary, localhost]\nfeatureGates: {KubeProxyNFTablesLocalhostNodePorts: true}\n", "clusterCIDR: &a x\nhostnameOverride: *a\n",
		"logging: {format: json, verbosity: 3, options: {json: {infoBufferSize: 1Ki}}}\n", "conntrack: {min: 1e3, tcpEstablishedTimeout: -1s}\n"} {
		f.Add([]byte(head + more))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, unknown, err := Decode(text)
		if c == nil {
			if err == nil {
				t.Fatal("neither a configuration nor an error")
			}
			return
		}
		want := &Configuration{}
		if real := yaml.UnmarshalStrict(text, want); real == nil && err == nil && len(unknown) == 0 {
			if diff := cmp.Diff(want, c); diff != "" {
				t.Errorf("-the real decoder +ours\n%s", diff)
			}
		}
		SetDefaults(c)
		problems := Validate(c)
		for _, p := range problems {
			if p.Field == "" || p.Text == "" {
				t.Errorf("a problem without a name or words: %+v", p)
			}
		}
		_ = Notes(c)
		if err != nil || len(problems) > 0 {
			return
		}
		if s := SettingsOf(c); s.MasqueradeBit > 31 || s.SyncPeriod <= 0 || s.SyncPeriod > 1<<62*time.Nanosecond {
			t.Errorf("settings %+v", s)
		}
	})
}
