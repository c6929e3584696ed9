// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// difference is one that is known. What no difference explains fails a test, and so
// does a difference that is not seen in all of its cases any more.
type difference struct {
	name     string
	reason   string
	explains func(d divergence) bool
	cases    []string // names of plans in fixed cases

	mu   sync.Mutex
	seen map[string]bool
}

// differences is the list of all, and docs/conformance.md has the same.
var differences = []*difference{
	{
		name: "UDP flows to a node port without endpoints",
		reason: "Better: they are forgotten, so that the client is told. kube-proxy leaves them where they were " +
			"when the last endpoint goes, while it forgets those to the Service's addresses.",
		explains: func(d divergence) bool {
			return d.to.flow && d.to.network == "udp" && d.to.kind == nodePort && d.theirs.answered() && strings.HasPrefix(d.ours.String(), "refused")
		},
		cases: []string{"flow-to-zero", "flow-to-nothing"},
	},
	{
		name: "UDP node ports at localhost",
		reason: "Better: --localhost-nodeports relays UDP as well. kube-proxy's counterpart, behind the feature gate " +
			"KubeProxyNFTablesLocalhostNodePorts, refuses it.",
		explains: func(d divergence) bool {
			return d.to.kind == nodePortLoop && d.to.network == "udp" && strings.HasPrefix(d.theirs.String(), "refused") && d.ours.answered()
		},
		cases: []string{"settings-any", "settings-etp", "settings-etp-remote", "settings-externalip-of-node"},
	},
	{
		name: "node ports at localhost and the external policy",
		reason: "Better: they lead to all endpoints, as the node's other addresses do for the node itself, whatever the policy. " +
			"kube-proxy's relay keeps to those on the node if the policy is Local.",
		explains: func(d divergence) bool {
			return d.to.kind == nodePortLoop && d.to.network == "tcp" && d.plan.etp && d.ours.answered()
		},
		cases: []string{"settings-etp", "settings-etp-remote"},
	},
	{
		name: "hairpin of an endpoint without a node name",
		reason: "Better: a pod that reaches itself is masqueraded if it is an endpoint of this node for any Service at any port. " +
			"kube-proxy wants this very port, of an endpoint that says it is on this node; else the pod waits in vain.",
		explains: func(d divergence) bool {
			return d.plan.isHomeless(d.from) && d.theirs[timeout] > 0 && d.ours[timeout] == 0
		},
		cases: []string{"homeless-hairpin"},
	},
}

// explain returns the difference behind a divergence, nil if it is not known.
func explain(d divergence) *difference {
	i := slices.IndexFunc(differences, func(e *difference) bool { return e.explains(d) })
	if i < 0 {
		return nil
	}
	return differences[i]
}

// count notes that the difference was seen in a case.
func (e *difference) count(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen = make(map[string]bool)
	}
	e.seen[name] = true
}

// checkDifferences fails the test for each difference that was not seen in a case
// that was among these.
func checkDifferences(t *testing.T, plans []*plan) {
	t.Helper()
	for _, e := range differences {
		for _, name := range e.cases {
			ran := slices.ContainsFunc(plans, func(p *plan) bool { return p.name == name })
			e.mu.Lock()
			if ran && !e.seen[name] {
				t.Errorf("%s: kube-nft and kube-proxy agree about %s: take it from the list", e.name, name)
			}
			e.mu.Unlock()
		}
	}
}

// TestDocument keeps docs/conformance.md and the list in step.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| ") {
			rows = append(rows, line)
		}
	}
	for _, e := range differences {
		row := "| " + e.name + " | " + e.reason + " |\n"
		if !slices.Contains(rows, row) {
			t.Errorf("docs/conformance.md lacks this row:\n%s", row)
		}
	}
}
