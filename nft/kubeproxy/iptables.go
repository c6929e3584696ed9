// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"slices"

	"github.com/kube-nft/kube-nft/nft"
)

// iptable is a table of iptables, as either backend has it.
type iptable struct {
	backend Backend
	family  nft.Family
	name    string
	chains  []string // that somebody has made
	rules   []rule
	drops   bool // the policy of FORWARD
}

// iptables are the tables that kube-proxy writes to.
var iptables = []string{"nat", "filter", "mangle"}

// leftovers says what of a table is kube-proxy's, and how it goes: its jumps first, then
// what its chains say, which is about each other, then the chains.
func (t *iptable) leftovers() Rules {
	found := Rules{Backend: t.backend, Family: t.family, Table: t.name}
	ours := make(map[string]bool)
	for _, name := range t.chains {
		ours[name] = isChain(t.name, name) || t.forgotten(name)
	}
	kept := make(map[string]string)
	for _, r := range t.rules {
		switch {
		case ours[r.chain]:
			found.InThem++
			if slices.Contains(accounts, r.account) && !slices.Contains(found.accounts, r.account) {
				found.accounts = append(found.accounts, r.account)
			}
		case !ours[r.target]:
		case r.isJump(), t.forgotten(r.target):
			found.edit.jumps = append(found.edit.jumps, r)
		default:
			kept[r.target] = r.chain
		}
	}
	found.Jumps = len(found.edit.jumps)
	for _, name := range t.chains {
		by, stays := kept[name]
		if stays {
			found.Kept = append(found.Kept, Kept{Chain: name, By: by})
		}
		switch {
		case !ours[name], stays && name == markMasq:
		case stays:
			if t.has(name) {
				found.edit.flush = append(found.edit.flush, name)
			}
		default:
			found.Chains = append(found.Chains, name)
			found.edit.flush = append(found.edit.flush, name)
			found.edit.drop = append(found.edit.drop, name)
		}
	}
	slices.Sort(found.Chains)
	found.Accepts = t.name == "filter" && t.drops && slices.Contains(found.Chains, forward)
	return found
}

// has says whether a chain has rules.
func (t *iptable) has(chain string) bool {
	return slices.ContainsFunc(t.rules, func(r rule) bool { return r.chain == chain })
}

// forgotten says whether a chain is KUBE-FIREWALL as kube-proxy in iptables mode makes
// it in IPv6: empty, and jumped to by nobody but INPUT and OUTPUT. Kubelet's is in IPv4.
func (t *iptable) forgotten(chain string) bool {
	if chain != firewall || t.family != nft.IPv6 || t.name != "filter" {
		return false
	}
	for _, r := range t.rules {
		if r.chain == firewall || (r.target == firewall && (r.comment != "" || (r.chain != "INPUT" && r.chain != "OUTPUT"))) {
			return false
		}
	}
	return true
}

// frontends are those that the table's rules are about.
func (t *iptable) frontends() (all []Frontend) {
	for _, r := range t.rules {
		if f, ok := r.frontend(t.family, t.name); ok {
			all = append(all, f)
		}
	}
	return all
}
