// SPDX-License-Identifier: Apache-2.0

package result

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestSave(t *testing.T) {
	f := File{Host: NewHost(), Started: time.Now().UTC().Truncate(time.Second), Took: time.Second, Args: []string{"compare"}}
	f.Add(Row{Section: "start", Proxy: "kube-nft", Shape: "10x1", Metric: "all-carried", Unit: "s"}, 3, 1, 2)
	f.Add(Row{Section: "start", Proxy: "iptables", Metric: "all-carried", Unit: "s", Note: "not done after 1 s"})
	f.Skip(Skip{Section: "lock", Proxy: "iptables", Why: "no such lock"})
	path := filepath.Join(t.TempDir(), "results", "program.json")
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, f) {
		t.Errorf("got  %+v\nwant %+v", got, f)
	}
}

func TestQuantiles(t *testing.T) {
	var f File
	f.Add(Row{}, 4, 1, 3, 2, 5)
	want := Row{N: 5, Min: 1, P50: 3, P90: 4.6, P99: 4.96, Max: 5}
	if got := f.Rows[0]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if f.Add(Row{}, 7); f.Rows[1] != (Row{N: 1, Min: 7, P50: 7, P90: 7, P99: 7, Max: 7}) {
		t.Errorf("one sample: %+v", f.Rows[1])
	}
}
