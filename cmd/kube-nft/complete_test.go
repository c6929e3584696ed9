// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestCompletion asks as a shell's script does. Behind the words is what else the shell
// may offer: 4 is nothing, 8 is files with such an ending, 16 is directories.
func TestCompletion(t *testing.T) {
	for _, c := range []struct {
		line string // the last word is to be completed
		want string // a word that is offered
		more string
	}{
		{"ren", "render", ":4"},
		{"run --proxy-mode ", "nftables", ":4"},
		{"run --proxy-mode=ip", "iptables", ":4"},
		{"render --detect-local-mode ", "BridgeInterface", ":4"},
		{"run --manifests ", "", ":16"},
		{"run --config ", "yaml", ":8"},
		{"run --masq", "--masquerade-all", ":4"},
		{"cleanup ", "", ":4"},
	} {
		words := strings.Split(c.line, " ")
		root := rootCommand()
		root.SetArgs(append([]string{"__completeNoDesc"}, words...))
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&bytes.Buffer{})
		if err := root.Execute(); err != nil {
			t.Errorf("%q: %v", c.line, err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		offered, more := lines[:len(lines)-1], lines[len(lines)-1]
		found := c.want == "" && len(offered) == 0
		for _, l := range offered {
			found = found || l == c.want
		}
		if !found || more != c.more {
			t.Errorf("%q is completed with %q %s; want %q %s", c.line, offered, more, c.want, c.more)
		}
	}
}
