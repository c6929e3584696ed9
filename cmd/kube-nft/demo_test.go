// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

const demoManifests = "../../deploy/demo"

func TestBar(t *testing.T) {
	t.Parallel()
	nothing := 0.0
	for _, tt := range []struct {
		name     string
		fraction float64
		width    int
		want     string
	}{
		{"nothing", 0, 4, "    "},
		{"all", 1, 4, "████"},
		{"half", 0.5, 4, "██  "},
		{"eighth of a column", 1.0 / 32, 4, "▏   "},
		{"next to nothing is seen", 1e-9, 4, "▏   "},
		{"rounded", 0.34, 4, "█▍  "},
		{"nearly all", 0.999, 4, "████"},
		{"more than all", 7, 4, "████"},
		{"less than nothing", -1, 4, "    "},
		{"undefined", nothing / nothing, 4, "    "},
		{"no room", 1, 0, ""},
		{"less than no room", 1, -3, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, bar(tt.fraction, tt.width)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	for i := range 1001 {
		if n := utf8.RuneCountInString(bar(float64(i)/1000, 13)); n != 13 {
			t.Errorf("%d/1000 is %d columns wide, want 13", i, n)
		}
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	pods := []*demoPod{{name: "a"}, {name: "bb"}}
	for _, tt := range []struct {
		name string
		show func(*screen)
		want string
	}{
		{"bars", func(s *screen) { s.bars(pods, map[string]int{"a": 1500, "bb": 500}) }, `
   a   ████████████████████████████████████   75.0 %    1,500
   bb  ████████████                           25.0 %      500
`},
		{"bars of nothing", func(s *screen) { s.bars(pods, nil) }, `
   a                                             – %        0
   bb                                            – %        0
`},
		{"side by side, on one scale", func(s *screen) {
			s.sideBySide([]string{"before", "after"}, pods, []map[string]int{{"a": 1, "bb": 1}, {"a": 4}})
		}, `
        before                      after
   a    ████████▌          50.0 %   █████████████████ 100.0 %
   bb   ████████▌          50.0 %                       0.0 %
`},
		{"columns", func(s *screen) { s.columns("  ", [][]string{{"A", "B"}, {"──", "x", "y"}, {"", "long"}}) }, `
   A   B
   ──  x     y
       long
`},
		{"headings are numbered", func(s *screen) { s.heading("first %d", 1); s.heading("second") }, `

1  first 1


2  second

`},
		{"no progress where nothing overwrites it", func(s *screen) { s.progress("soon"); s.line("done") }, `
   done
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			s := newScreen(&out)
			s.width = 62
			tt.show(s)
			if diff := cmp.Diff(tt.want, "\n"+out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestShowOnTerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{w: &out, width: defaultWidth, colour: true, live: true}
	s.progress("soon")
	s.good("done")
	want := "   \x1b[2msoon …\x1b[0m\r\x1b[K   \x1b[32mdone\x1b[0m\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) is %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		60 * time.Microsecond: "0.06 ms", 350 * time.Microsecond: "0.3 ms", 52 * time.Millisecond: "52 ms", 4200 * time.Millisecond: "4.2 s",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%v) is %q, want %q", d, got, want)
		}
	}
}

// The manifests of the repository have what the demo shows.
func TestDemoManifests(t *testing.T) {
	t.Parallel()
	services, err := readServices(demoManifests)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]string)
	for _, s := range services {
		var pods []string
		for _, p := range s.pods {
			pods = append(pods, p.name)
			if len(p.addrs) != 2 {
				t.Errorf("pod %s has the addresses %v, want one of each family", p.name, p.addrs)
			}
		}
		got[s.Name.String()] = pods
	}
	want := map[string][]string{
		"default/web": {"web-a", "web-b", "web-c"}, "kube-system/dns": {"dns-a", "dns-b"}, "default/empty": nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, err := readServices("no/such/directory"); err == nil || !strings.Contains(err.Error(), "--manifests") {
		t.Errorf("a directory that is not there: %v, want the flag to be named", err)
	}
}

func TestWithoutEndpoint(t *testing.T) {
	t.Parallel()
	manifest, err := os.ReadFile(demoManifests + "/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	web := types.NamespacedName{Namespace: "default", Name: "web"}
	pod := &demoPod{name: "web-b", addrs: []netip.Addr{netip.MustParseAddr("10.244.0.12"), netip.MustParseAddr("fd00:10:244::12")}}
	out, removed, err := withoutEndpoint(manifest, web, pod)
	if err != nil || removed != 2 {
		t.Fatalf("removed %d, error %v, want 2 without error", removed, err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/web.yaml", out, 0o600); err != nil {
		t.Fatal(err)
	}
	services, err := readServices(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range services[0].pods {
		names = append(names, p.name)
	}
	if diff := cmp.Diff([]string{"web-a", "web-c"}, names); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, removed, _ := withoutEndpoint(manifest, types.NamespacedName{Namespace: "other", Name: "web"}, pod); removed != 0 {
		t.Errorf("another namespace: removed %d, want 0", removed)
	}
}

func TestSplitFamilies(t *testing.T) {
	t.Parallel()
	rules, summary := splitFamilies("table ip kube-nft {\n}\ntable ip6 kube-nft {\n\tchain c {\n\t}\n}\n")
	if rules != "table ip kube-nft {\n}\n" || !strings.Contains(summary, "4 lines") {
		t.Errorf("got %q and %q", rules, summary)
	}
	if rules, summary = splitFamilies("table ip kube-nft {\n}\n"); rules != "table ip kube-nft {\n}\n" || summary != "" {
		t.Errorf("without IPv6: got %q and %q", rules, summary)
	}
}

func TestProxyLog(t *testing.T) {
	t.Parallel()
	var notes []string
	l := &proxyLog{note: func(s string) { notes = append(notes, s) }}
	for _, part := range []string{
		`{"level":"DEBUG","msg":"committed","batches":1,"dura`, `tion":300000}` + "\n" + `{"level":"WARN","msg":"odd","err":"file:3"}` + "\n",
		`not JSON` + "\n", `panic: half`,
	} {
		if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	if got := l.committed(); got != 300*time.Microsecond {
		t.Errorf("commits took %v, want 300µs", got)
	}
	if diff := cmp.Diff([]string{"kube-nft: odd: file:3"}, notes); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !strings.HasSuffix(l.tail(), "not JSON\npanic: half") {
		t.Errorf("the last lines are %q", l.tail())
	}
}
