// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// SetNodeIPs replaces the addresses that node ports are served on; those of
// another family are left out.
func (t *Table) SetNodeIPs(addrs []netip.Addr) {
	var keys []nft.Key
	for _, a := range addrs {
		if nft.FamilyOf(a) == t.family {
			keys = append(keys, nft.Key{Addr: a})
		}
	}
	t.setKeys(nft.NodeIPs, keys)
}

// SetServiceCIDRs replaces the ranges that addresses of Services are taken from;
// they are disjoint.
func (t *Table) SetServiceCIDRs(prefixes []netip.Prefix) {
	var keys []nft.Key
	for _, p := range prefixes {
		keys = append(keys, nft.Key{Range: nft.RangeOf(p)})
	}
	t.setKeys(nft.ServiceCIDRs, keys)
}

// setKeys replaces the elements of a set that belong to no Service.
func (t *Table) setKeys(set nft.Set, keys []nft.Key) {
	want := make(map[nft.Key]struct{}, len(keys))
	for _, k := range keys {
		want[k] = struct{}{}
	}
	for _, k := range slices.SortedFunc(maps.Keys(t.node[set]), nft.Key.Compare) {
		if _, stays := want[k]; !stays {
			t.delta.Delete = append(t.delta.Delete, nft.Element{Set: set, Key: k})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(want), nft.Key.Compare) {
		if _, was := t.node[set][k]; !was {
			t.delta.Add = append(t.delta.Add, nft.Element{Set: set, Key: k})
		}
	}
	t.node[set] = want
}

// SetNodeAddr says what this node's own address is, and reports whether that is
// news: then Services with source ranges need to be set again.
func (t *Table) SetNodeAddr(a netip.Addr) bool {
	news := a != t.nodeAddr
	t.nodeAddr = a
	return news
}

// sources are those that a Service's load balancer IPs let in. If this node is
// among them, so are the addresses themselves: a process on the node that sends to
// a load balancer IP which is an address of the node has it as its source.
func (t *Table) sources(s *model.Service) *sources {
	ranges := s.SourceRanges[t.model]
	if !ranges.Restricted {
		return nil
	}
	all := ranges.Prefixes
	if slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(t.nodeAddr) }) {
		all = slices.Clone(all)
		for _, a := range s.LoadBalancerIPs {
			if model.FamilyOf(a) == t.model {
				all = append(all, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		all = model.Disjoint(all)
	}
	return &sources{all}
}
