// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// hearing gathers what notifications say of one transaction: the kernel sends what it
// did, message by message, and then the generation with who did it, before the next
// transaction begins (nf_tables_api.c, nf_tables_commit).
type hearing struct{ touched []nft.Touched }

// message takes one notification. It returns the transaction when that ends and
// touched a table of ours.
func (w *hearing) message(h header, body []byte) (nft.Foreign, bool) {
	if h.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(body) < wire.FamilyLen {
		return nft.Foreign{}, false
	}
	family, attrs := nft.Family(body[0]), body[wire.FamilyLen:]
	if h.Type&0xff == unix.NFT_MSG_NEWGEN {
		f := nft.Foreign{Touched: w.touched}
		w.touched = nil
		f.Generation, f.By = decodeGeneration(attrs)
		return f, len(f.Touched) > 0
	}
	// Attribute 1 is the table's name in every kind of notification.
	if (family == nft.IPv4 || family == nft.IPv6) && wire.String(wire.First(attrs, unix.NFTA_TABLE_NAME)) == nft.TableName {
		w.of(family).hear(h.Type&0xff, attrs)
	}
	return nft.Foreign{}, false
}

// of returns what was touched in a family's table so far.
func (w *hearing) of(f nft.Family) *touching {
	for i := range w.touched {
		if w.touched[i].Family == f {
			return (*touching)(&w.touched[i])
		}
	}
	w.touched = append(w.touched, nft.Touched{Family: f})
	return (*touching)(&w.touched[len(w.touched)-1])
}

// touching is a Touched while notifications fill it.
type touching nft.Touched

// hear notes what one notification is about.
func (t *touching) hear(typ uint16, attrs []byte) {
	switch typ {
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		t.elements(wire.String(wire.First(attrs, unix.NFTA_SET_ELEM_LIST_SET)), wire.First(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS))
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		t.constant("chain " + wire.String(wire.First(attrs, unix.NFTA_CHAIN_NAME)))
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		t.constant("a rule in chain " + wire.String(wire.First(attrs, unix.NFTA_RULE_CHAIN)))
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
		t.constant("set " + wire.String(wire.First(attrs, unix.NFTA_SET_NAME)))
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		t.constant("the table")
	default:
		t.constant("an object of the table")
	}
}

func (t *touching) constant(what string) {
	// A table that goes takes all else along, which is told first.
	if t.Constant == "" || what == "the table" {
		t.Constant = what
	}
}

// elements notes those of one notification.
func (t *touching) elements(name string, list []byte) {
	touched := (*nft.Touched)(t)
	set, ok := nft.ParseSet(name)
	switch {
	case ok && set.Ranged():
		touched.Set(set)
	case ok:
		for _, v := range wire.Attrs(list) {
			if key, err := nft.DecodeKey(wire.First(wire.First(v, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE), t.Family, set); err == nil {
				touched.Element(nft.Element{Set: set, Key: key})
			} else {
				touched.Set(set)
			}
		}
	default:
		if port, _, ok := nft.ParseAffinityMap(name); ok {
			touched.Client(port)
		} else {
			t.constant("set " + name)
		}
	}
}
