// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Attributes and flags that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	nftaTableHandle   = 4
	nftaTableUserData = 6
	nftaSetExpr       = 17
	nftaSetCount      = 20
	nftaSetDescConcat = 2
	nftaSetFieldLen   = 1
	nftaSetElemKeyEnd = 10

	nftTableDormant = 0x1
	nftSetConcat    = 0x80
	nfAccept        = 1
)

// User data of a rule: nft shows type 0 as the rule's comment and skips types
// that it does not know. Ours holds the rule's hash.
const udataRuleHash = 0x6b

// declare appends everything constant in a table: the table, its sets, its
// chains and rules.
func (b *batch) declare(s *nft.Schema) error {
	create := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	table := b.message(unix.NFT_MSG_NEWTABLE, s.Family, create)
	b.bytes(nftaTableUserData, nft.AppendComment(nil, nft.Comment(nft.Version)))
	b.close(table)
	for _, set := range s.Sets() {
		b.declareSet(s, set, uint32(set)+1)
	}
	for _, c := range s.Chains {
		if err := b.chain(s, c); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) declareSet(s *nft.Schema, set nft.Set, id uint32) {
	t := set.Type(s.Family)
	m := b.message(unix.NFT_MSG_NEWSET, s.Family, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.str(unix.NFTA_SET_NAME, set.String())
	b.u32(unix.NFTA_SET_FLAGS, setFlags(set))
	b.u32(unix.NFTA_SET_KEY_TYPE, t.KeyType)
	b.u32(unix.NFTA_SET_KEY_LEN, t.KeyLen)
	if set.Map() {
		b.u32(unix.NFTA_SET_DATA_TYPE, t.DataType)
		if !set.Verdict() {
			b.u32(unix.NFTA_SET_DATA_LEN, t.DataLen)
		}
	}
	b.u32(unix.NFTA_SET_ID, id)
	desc := b.nest(unix.NFTA_SET_DESC)
	b.u32(unix.NFTA_SET_DESC_SIZE, s.Sizes[set])
	if setFlags(set)&nftSetConcat != 0 {
		b.fieldLens(set.FieldLens(s.Family))
	}
	b.end(desc)
	b.bytes(unix.NFTA_SET_USERDATA, t.UserData)
	if s.Counted(set) {
		b.counter(nftaSetExpr, counter{})
	}
	b.close(m)
}

// fieldLens tells where the fields of a key begin and end; the kernel wants to
// know in a set of ranges.
func (b *batch) fieldLens(lens []uint32) {
	list := b.nest(nftaSetDescConcat)
	for _, n := range lens {
		field := b.nest(unix.NFTA_LIST_ELEM)
		b.u32(nftaSetFieldLen, n)
		b.end(field)
	}
	b.end(list)
}

func setFlags(set nft.Set) (flags uint32) {
	if set.Map() {
		flags |= unix.NFT_SET_MAP
	}
	if set.Ranged() {
		flags |= unix.NFT_SET_INTERVAL
		if set.Concatenated() {
			flags |= nftSetConcat
		}
	}
	return flags
}

// chain appends a chain with its rules.
func (b *batch) chain(s *nft.Schema, c nft.RuleChain) error {
	m := b.message(unix.NFT_MSG_NEWCHAIN, s.Family, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.str(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Base != nil {
		b.hook(*c.Base)
	}
	b.close(m)
	return b.rules(s, c)
}

// hook makes the chain that is being appended a base chain.
func (b *batch) hook(h nft.Hook) {
	hook := b.nest(unix.NFTA_CHAIN_HOOK)
	b.u32(unix.NFTA_HOOK_HOOKNUM, h.Number)
	b.u32(unix.NFTA_HOOK_PRIORITY, uint32(h.Priority))
	b.end(hook)
	b.u32(unix.NFTA_CHAIN_POLICY, nfAccept)
	b.str(unix.NFTA_CHAIN_TYPE, h.Type)
}

// rules appends the rules of a chain.
func (b *batch) rules(s *nft.Schema, c nft.RuleChain) error {
	for _, r := range c.Rules {
		if err := b.rule(s, c, r); err != nil {
			return fmt.Errorf("chain %s: rule %q: %w", c.Name, r.Text, err)
		}
	}
	return nil
}

func (b *batch) rule(s *nft.Schema, c nft.RuleChain, r nft.Rule) error {
	m := b.message(unix.NFT_MSG_NEWRULE, s.Family, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
	b.str(unix.NFTA_RULE_CHAIN, c.Name)
	if err := b.expressions(s.Family, r); err != nil {
		return err
	}
	hash := s.Hash(c.Name, r)
	b.bytes(unix.NFTA_RULE_USERDATA, append([]byte{udataRuleHash, uint8(len(hash))}, hash[:]...))
	b.close(m)
	return nil
}

// expressions appends what a rule does.
func (b *batch) expressions(f nft.Family, r nft.Rule) error {
	list := b.nest(unix.NFTA_RULE_EXPRESSIONS)
	exprs, err := r.Encode(f)
	if err != nil {
		return err
	}
	for _, data := range exprs {
		b.bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data)
	}
	b.end(list)
	return nil
}

func (b *batch) deleteTable(f nft.Family) {
	b.close(b.message(unix.NFT_MSG_DELTABLE, f, 0))
}

var verbs = map[uint16]string{
	unix.NFT_MSG_NEWTABLE: "add table", unix.NFT_MSG_DELTABLE: "delete table",
	unix.NFT_MSG_NEWSET: "add set", unix.NFT_MSG_NEWCHAIN: "add chain", unix.NFT_MSG_DELCHAIN: "delete chain",
	unix.NFT_MSG_NEWRULE: "add rule", unix.NFT_MSG_DELRULE: "flush chain", unix.NFT_MSG_DELSET: "delete set", unix.NFT_MSG_NEWSETELEM: "add element", unix.NFT_MSG_DELSETELEM: "delete element",
	unix.NFT_MSG_GETSETELEM: "get element",
}

// describe says in nft's words what a message asked for. offset is where in the
// message the kernel found the fault, 0 if it did not say.
func (b *batch) describe(index int, offset uint32) string {
	if index <= 0 || index >= len(b.starts) {
		return "commit"
	}
	end := len(b.buf)
	if index+1 < len(b.starts) {
		end = b.starts[index+1]
	}
	msg := b.buf[b.starts[index]:end]
	typ := uint16(msg[4])
	family := nft.Family(msg[wire.HeaderLen])
	words := []string{verbs[typ], family.String(), b.table}
	body := msg[wire.HeaderLen+wire.FamilyLen:]
	switch typ {
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		name := wire.String(wire.First(body, unix.NFTA_SET_ELEM_LIST_SET))
		words = append(words, name)
		if e, ok := elementAt(msg, family, name, int(offset)); ok {
			words[len(words)-1] = e.String()
		}
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
		words = append(words, wire.String(wire.First(body, unix.NFTA_SET_NAME)))
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		words = append(words, wire.String(wire.First(body, unix.NFTA_CHAIN_NAME)))
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		words = append(words, wire.String(wire.First(body, unix.NFTA_RULE_CHAIN)))
	}
	return strings.Join(words, " ")
}

// elementAt finds the element of a message that holds the byte at an offset; a
// message's only element needs no offset.
func elementAt(msg []byte, f nft.Family, setName string, offset int) (nft.Element, bool) {
	set, ok := nft.ParseSet(setName)
	if !ok {
		return nft.Element{}, false
	}
	list := wire.First(msg[wire.HeaderLen+wire.FamilyLen:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	only := len(list) == wire.Align(wire.AttrLen+len(wire.First(list, unix.NFTA_LIST_ELEM)))
	for _, v := range wire.Attrs(list) {
		// Both slices end where the buffer ends, so the difference of their
		// capacities is the distance of their beginnings.
		at := cap(msg) - cap(v)
		if only || at-wire.AttrLen <= offset && offset < at+len(v) {
			e, _, err := decodeElement(f, set, v)
			return e, err == nil
		}
	}
	return nft.Element{}, false
}
