// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// firstAffinityID numbers the maps that Service ports own, within a transaction:
// above those of the table's sets.
const firstAffinityID = uint32(len(nft.Sets) + 1)

// migrate appends what a table gets first when its features change, before
// elements are added: sets, chains, and other rules in chains that stay.
func (b *batch) migrate(was, is *nft.Schema) error {
	had := was.Sets()
	for _, set := range is.Sets() {
		if !slices.Contains(had, set) {
			b.declareSet(is, set, uint32(set)+1)
		}
	}
	return b.change(is, was.Chains, is.Chains)
}

// retire appends what a table loses last when its features change, after
// elements are deleted.
func (b *batch) retire(was, is *nft.Schema) {
	b.deleteChains(is.Family, was.Chains, is.Chains)
	has := is.Sets()
	for _, set := range was.Sets() {
		if !slices.Contains(has, set) {
			b.deleteSet(is.Family, set.String())
		}
	}
}

// own appends what Service ports get, before elements lead to it.
func (b *batch) own(s *nft.Schema, changes []nft.AffinityChange) error {
	id := firstAffinityID
	for _, change := range changes {
		for _, name := range change.Is.Maps() {
			if !slices.Contains(change.Was.Maps(), name) {
				b.declareAffinityMap(s.Family, name, id)
				id++
			}
		}
		if err := b.change(s, s.AffinityChains(change.Was), s.AffinityChains(change.Is)); err != nil {
			return err
		}
	}
	return nil
}

// disown appends what Service ports lose, after nothing leads to it.
func (b *batch) disown(s *nft.Schema, changes []nft.AffinityChange) {
	for _, change := range changes {
		b.deleteChains(s.Family, s.AffinityChains(change.Was), s.AffinityChains(change.Is))
		for _, name := range change.Was.Maps() {
			if !slices.Contains(change.Is.Maps(), name) {
				b.deleteSet(s.Family, name)
			}
		}
	}
}

// change makes the chains that are new, and gives others their new rules.
func (b *batch) change(s *nft.Schema, was, is []nft.RuleChain) error {
	for _, chain := range is {
		old := slices.IndexFunc(was, func(c nft.RuleChain) bool { return c.Name == chain.Name })
		var err error
		switch {
		case old < 0:
			err = b.chain(s, chain)
		case !sameRules(was[old].Rules, chain.Rules):
			b.flushChain(s.Family, chain.Name)
			err = b.rules(s, chain)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteChains deletes the chains that are not wanted any more, those that lead to
// others first.
func (b *batch) deleteChains(f nft.Family, was, is []nft.RuleChain) {
	for _, chain := range slices.Backward(was) {
		if slices.ContainsFunc(is, func(c nft.RuleChain) bool { return c.Name == chain.Name }) {
			continue
		}
		b.deleteChain(f, chain.Name)
	}
}

func (b *batch) deleteChain(f nft.Family, name string) {
	m := b.message(unix.NFT_MSG_DELCHAIN, f, 0)
	b.str(unix.NFTA_CHAIN_NAME, name)
	b.close(m)
}

func sameRules(a, b []nft.Rule) bool {
	return slices.EqualFunc(a, b, func(x, y nft.Rule) bool { return x.Text == y.Text })
}

func (b *batch) flushChain(f nft.Family, name string) {
	m := b.message(unix.NFT_MSG_DELRULE, f, 0)
	b.str(unix.NFTA_RULE_CHAIN, name)
	b.close(m)
}

func (b *batch) deleteSet(f nft.Family, name string) {
	m := b.message(unix.NFT_MSG_DELSET, f, 0)
	b.str(unix.NFTA_SET_NAME, name)
	b.close(m)
}
