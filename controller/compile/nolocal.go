// SPDX-License-Identifier: Apache-2.0

package compile

// NoLocal counts Service ports that have endpoints, but none on this node, under a
// policy Local: what comes to them is dropped here, not refused.
type NoLocal struct {
	// Internal is for the cluster IP, External for everything else. Ports under
	// both policies count in both.
	Internal, External int
}

// NoLocal is how many Service ports of the table have no endpoints here.
func (t *Table) NoLocal() NoLocal { return t.noLocal }

// count counts a port in or out.
func (n *NoLocal) count(p *port, by int) {
	if len(p.slots) == 0 || len(p.local) > 0 {
		return
	}
	if p.internal == policyLocal {
		n.Internal += by
	}
	if p.external == policyLocal {
		n.External += by
	}
}
