// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/nft"
)

// FuzzFlags reads any command line, a word a line: nothing panics, what is wrong is a
// matter of usage, and of what is taken a table can be written.
func FuzzFlags(f *testing.F) {
	for _, line := range []string{
		"--cluster-cidr=10.244.0.0/16,fd00:10:244::/64 --nodeport-addresses=primary,192.0.2.0/24 --bind-address=::",
		"--detect-local-mode=BridgeInterface --pod-bridge-interface=cni0 --iptables-masquerade-bit=31 --proxy-mode=iptables",
		"--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=veth --masquerade-all",
		"--healthz-bind-address=0.0.0.0 --healthz-port=1 --metrics-bind-address=[::1]:10249 --metrics-port=0",
		"--feature-gates=AllowServiceExternalIPs=false,,x=y -v=-1 --oom-score-adj=-1001",
		"--conntrack-max-per-core=-1 --conntrack-min=9999999999 --conntrack-udp-timeout=1s",
		"--ipvs-exclude-cidrs=10.0.0.0/33 --service-proxy-name=a/b --hostname-override= ",
		"--vmodule=a=b --logging-format=json --log-text-info-buffer-size=1 --kube-api-qps=NaN",
		"--pod-interface-name-prefix=a\x1b[2J --detect-local-mode=InterfaceNamePrefix",
	} {
		f.Add(strings.ReplaceAll(line, " ", "\n"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, "\n")
		for _, w := range words {
			if strings.HasPrefix(w, "--config") { // a file of this machine
				return
			}
		}
		var o options
		set := pflag.NewFlagSet("fuzz", pflag.ContinueOnError)
		set.SetOutput(io.Discard)
		o.addFlags(set)
		if set.Parse(words) != nil {
			return
		}
		p, _, err := o.load()
		if err != nil {
			if !errors.Is(err, errUsage) {
				t.Errorf("%q is not a matter of usage: %v", line, err)
			}
			return
		}
		log := slog.New(slog.DiscardHandler)
		o.tellFlags(log)
		o.tellNotes(log, p.of)
		o.tellDoubts(log, p)
		for family, options := range p.rules.Options {
			if err := nft.Format(io.Discard, nft.Table{Schema: nft.NewSchema(family, options), Elements: func(func(nft.Element) bool) {}}); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

// FuzzRequests asks for any path, by any method, under any name: an answer that is not
// what the path is for tells nothing of the cluster.
func FuzzRequests(f *testing.F) {
	for _, r := range [][4]string{{"GET", "/metrics", "127.0.0.1:10249", ""}, {"PUT", "/debug/flags/v", "localhost", "3"}, {"PUT", "/debug/flags/v", "[::1]:1", "9999"},
		{"GET", "/debug/pprof/", "node-1", ""}, {"POST", "/configz", "evil.example", "x"}, {"HEAD", "/../etc/passwd", "", ""}, {"GET", "//healthz", "a:b:c", ""}} {
		f.Add(r[0], r[1], r[2], r[3])
	}
	const secret = "secret-of-the-cluster"
	c := config.New()
	c.HostnameOverride = secret
	config.SetDefaults(c)
	handler := newStatus(prometheus.NewRegistry(), newLogger(c), c).handler()
	f.Fuzz(func(t *testing.T, method, path, host, body string) {
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method, r.URL.Path, r.URL.RawPath, r.Host = method, path, "", host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != 200 && strings.Contains(w.Body.String(), secret) {
			t.Errorf("%s %q answers %d with %s", method, path, w.Code, w.Body)
		}
		if strings.HasPrefix(path, "/debug/") && w.Code == 200 {
			t.Errorf("%s %q answers without profiling", method, path)
		}
		if w.Code >= 500 {
			t.Errorf("%s %q: %s", method, path, fmt.Sprint(w.Code, w.Body))
		}
	})
}
