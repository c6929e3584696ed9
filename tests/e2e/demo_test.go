// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDemoShell goes the way of the README: the demo, a look around by each command in
// its shell, and everything gone behind it.
func TestDemoShell(t *testing.T) {
	cmd := exec.Command(program(t), "demo", "--short", "--shell", "--manifests", "../../deploy/demo")
	cmd.Stdin = strings.NewReader(`
kube-nft list
kube-nft explain default/web
kube-nft explain 172.18.0.100 10.96.0.80:80
kube-nft explain 172.18.0.100 10.96.0.99:80
kube-nft trace --packets 1 --for 20s 172.18.0.100 10.96.0.80:80
kube-nft top --once
kube-nft doctor
kube-nft migrate
nft flush ruleset
sleep 1
kube-nft list default/web
ip netns exec client bash -c 'head -1 </dev/tcp/10.96.0.80/80'
false
`)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	rest := string(out)
	for _, want := range []string{
		"A shell on the node",
		"NAMESPACE", "default       web:http", // list
		"Endpoints of port http", "10.244.0.12:8080  ready", // explain a Service
		"A new connection is sent to one of 3 endpoints.", "masqueraded: it does not come from local pods",
		"A new connection is REJECTED", "no endpoint takes connections",
		"=> forwarded to 10.244.0.1", "endpoint of default/web:http", // trace
		"kube-system/dns:dns", // top
		"nothing to mend",     // doctor
		"What changes",        // migrate
		"Service:          default/web:http", "10.244.0.11:8080",
		"web-", "10.244.0.1", // who answered the client, and whom it saw
		"Stop and clean up", "empty again", "connections answered, 0 failed",
	} {
		before, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("%q does not come behind\n%s\nin\n%s", want, before[:min(200, len(before))], out)
		}
		rest = after
	}
}
