// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestInvalidManifest: a file that turns invalid is named in one error, with the
// line; what it said before stays programmed, other files keep working, and after
// it is mended what it says then is programmed.
func TestInvalidManifest(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web := service("web", 1, servicePort("tcp", "TCP", 80))
	good := manifest(t, withSlices(web, c.a)...)
	mended := manifest(t, withSlices(web, c.b)...)
	c.writeText(t, "web.yaml", good)
	c.run(t)
	// Each edit also moves the Service to another pod, which must not happen.
	spoil := func(old, new string) string {
		text := strings.ReplaceAll(mended, old, new)
		if text == mended {
			t.Fatalf("%q is not in the manifest:\n%s", old, mended)
		}
		return text
	}
	for i, tt := range []struct {
		name, text string
		at         string   // the text whose line is to be named
		words      []string // in the error
	}{
		{"not YAML", mended + "---\nkind: [\n", "", nil},
		{"port 0", spoil("port: 80\n", "port: 0\n"), "port: 0\n", []string{"port", "1-65535"}},
		{"port 70000", spoil("port: 80\n", "port: 70000\n"), "port: 70000\n", []string{"port", "1-65535"}},
		{"port that is a word", spoil("port: 80\n", "port: eighty\n"), "port: eighty", []string{"port"}},
		{"unknown protocol", spoil("protocol: TCP\n", "protocol: ICMP\n"), "protocol: ICMP", []string{"ICMP", "TCP"}},
		{"bad endpoint address", spoil("- "+c.b.addrs[ip4].String(), "- 10.128.0.300"), "- 10.128.0.300", []string{"10.128.0.300"}},
		{"endpoint of the other family", spoil("- "+c.b.addrs[ip4].String(), "- fd00:10:128::3"), "- fd00:10:128::3", []string{"fd00:10:128::3"}},
		{"bad cluster IP", spoil("10.96.0.1\n", "10.96.0\n"), "- 10.96.0\n", []string{"10.96.0"}},
		{"cluster IP missing", strings.ReplaceAll(strings.ReplaceAll(spoil("  clusterIP: 10.96.0.1\n", ""), "  - 10.96.0.1\n  - fd00:10:96::1\n", ""), "  clusterIPs:\n", ""), "", []string{"clusterIP"}},
		{"unknown field", spoil("  clusterIPs:", "  extrenalIPs: []\n  clusterIPs:"), "extrenalIPs", []string{"extrenalIPs"}},
		{"field in the wrong case", spoil("clusterIPs:", "clusterIps:"), "clusterIps:", []string{"clusterIps", "clusterIPs"}},
		{"name missing", spoil("  name: web\n", ""), "", []string{"name"}},
		{"said twice", mended + "---\n" + mended, "", []string{"twice"}},
	} {
		before := c.proxy.log.String()
		c.writeText(t, "web.yaml", tt.text)
		other := service("other", 2, servicePort("tcp", "TCP", uint16(100+i)))
		c.write(t, "other.yaml", withSlices(other, c.b)...)
		c.programmed(t)
		t.Run(tt.name, func(t *testing.T) {
			place := "web.yaml:"
			if tt.at != "" {
				line := 1 + strings.Count(tt.text[:strings.Index(tt.text, tt.at)], "\n")
				place += fmt.Sprint(line, ":")
			}
			news := strings.TrimPrefix(c.proxy.log.String(), before)
			var errors []string
			for line := range strings.Lines(news) {
				if strings.Contains(line, "level=ERROR") {
					errors = append(errors, line)
				}
			}
			if len(errors) == 0 {
				t.Error("no error was logged")
			}
			for _, line := range errors {
				for _, w := range append(tt.words, "web.yaml:") {
					if !strings.Contains(line, w) {
						t.Errorf("%q is not in the error %s", w, line)
					}
				}
			}
			if !strings.Contains(news, place) {
				t.Errorf("no error names %s: %s", place, errors)
			}
			for _, f := range families {
				c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[f], 80), own, "a")
				c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(2)[f], uint16(100+i)), own, "b")
			}
			// It is said once, whatever else is edited.
			said := c.proxy.count("level=ERROR")
			c.programmed(t)
			if now := c.proxy.count("level=ERROR"); now != said {
				t.Errorf("%d errors after an edit of another file, %d before", now, said)
			}
		})
		c.writeText(t, "web.yaml", mended)
		c.programmed(t)
		for _, f := range families {
			c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[f], 80), own, "b")
		}
		c.writeText(t, "web.yaml", good)
		c.programmed(t)
	}
}
