// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Numbers of nf_tables that x/sys/unix does not have.
const (
	nftaTableHandle   = 4
	nftaTableUserdata = 6
	tableCommentType  = 0 // NFTNL_UDATA_TABLE_COMMENT
	nfDrop            = 0
	nftables          = unix.NFNL_SUBSYS_NFTABLES << 8
)

// The maps of the mode nftables whose keys are frontends, and those of kube-nft.
var (
	proxyMaps = []string{"service-ips", "no-endpoint-services", "service-nodeports", "no-endpoint-nodeports"}
	ourMaps   = []string{
		nft.Services.String(), nft.NodePorts.String(), nft.NoEndpoints.String(), nft.NoEndpointsNodePorts.String(),
		nft.LocalServices.String(), nft.LocalNodePorts.String(),
	}
)

// findTables finds kube-proxy's tables of the mode nftables.
func (s *socket) findTables(f nft.Family) (found []Table, frontends []Frontend, err error) {
	var handle uint64
	var isProxys bool
	begin := func() { handle, isProxys = 0, false }
	err = s.list(nftables|unix.NFT_MSG_GETTABLE, uint8(f), nil, begin, func(body []byte) {
		if wire.String(wire.First(body, unix.NFTA_TABLE_NAME)) == proxyTable {
			handle = wire.U64(wire.First(body, nftaTableHandle))
			isProxys = userComment(wire.First(body, nftaTableUserdata), tableCommentType) == tableComment
		}
	})
	if err != nil || handle == 0 {
		return nil, nil, explain("read tables", err)
	}
	if !isProxys { // nft may be too old for comments
		if isProxys, err = s.hasChain(f, proxyTable, tableChain); err != nil || !isProxys {
			return nil, nil, err
		}
	}
	frontends, err = s.readMaps(f, proxyTable, proxyMaps)
	return []Table{{Family: f, Frontends: len(frontends), handle: handle}}, frontends, err
}

func (s *socket) hasChain(f nft.Family, table, chain string) (found bool, err error) {
	err = s.list(nftables|unix.NFT_MSG_GETCHAIN, uint8(f), nil, func() { found = false }, func(body []byte) {
		found = found || (wire.String(wire.First(body, unix.NFTA_CHAIN_TABLE)) == table && wire.String(wire.First(body, unix.NFTA_CHAIN_NAME)) == chain)
	})
	return found, explain("read chains", err)
}

// readMaps reads the keys of maps as frontends. A map that is not there has none.
func (s *socket) readMaps(f nft.Family, table string, maps []string) ([]Frontend, error) {
	var all []Frontend
	for _, name := range maps {
		var found []Frontend
		attrs := append(text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, name)...)
		err := s.list(nftables|unix.NFT_MSG_GETSETELEM, uint8(f), attrs, func() { found = nil }, func(body []byte) {
			for _, e := range wire.Attrs(wire.First(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				if frontend, ok := frontendOf(f, wire.First(wire.First(e, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)); ok {
					found = append(found, frontend)
				}
			}
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, explain(fmt.Sprintf("read map %s of table %s %s", name, f, table), err)
		}
		all = append(all, found...)
	}
	return sorted(all), nil
}

// frontendOf reads a key: an address, a protocol and a port, or the latter two. Each
// field is padded to four bytes.
func frontendOf(f nft.Family, key []byte) (found Frontend, ok bool) {
	found.Family = f
	if n := len(key) - 8; n > 0 {
		if found.Addr, ok = netip.AddrFromSlice(key[:n]); !ok {
			return found, false
		}
		key = key[n:]
	}
	if len(key) != 8 {
		return found, false
	}
	found.Proto, found.Port = nft.Proto(key[0]), binary.BigEndian.Uint16(key[4:])
	return found, true
}

// findNFT finds kube-proxy's rules of iptables-nft.
func (s *socket) findNFT(f nft.Family) (found []Rules, frontends []Frontend, err error) {
	tables := make(map[string]*iptable)
	err = s.list(nftables|unix.NFT_MSG_GETCHAIN, uint8(f), nil, func() { clear(tables) }, func(body []byte) {
		name := wire.String(wire.First(body, unix.NFTA_CHAIN_TABLE))
		if !slices.Contains(iptables, name) {
			return
		}
		if tables[name] == nil {
			tables[name] = &iptable{backend: IPTablesNFT, family: f, name: name}
		}
		chain := wire.String(wire.First(body, unix.NFTA_CHAIN_NAME))
		if wire.First(body, unix.NFTA_CHAIN_HOOK) == nil {
			tables[name].chains = append(tables[name].chains, chain)
		} else if chain == "FORWARD" {
			tables[name].drops = wire.U32(wire.First(body, unix.NFTA_CHAIN_POLICY)) == nfDrop
		}
	})
	if err != nil {
		return nil, nil, explain("read chains", err)
	}
	for _, name := range iptables {
		t := tables[name]
		if t == nil {
			continue
		}
		err := s.list(nftables|unix.NFT_MSG_GETRULE, uint8(f), text(unix.NFTA_RULE_TABLE, name), func() { t.rules = nil }, func(body []byte) {
			if table, r := parseRule(f, body); table == name {
				t.rules = append(t.rules, r)
			}
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, nil, explain(fmt.Sprintf("read rules of table %s %s", f, name), err)
		}
		rules := t.leftovers()
		if !rules.empty() || len(rules.Kept) > 0 {
			found, frontends = append(found, rules), append(frontends, t.frontends()...)
		}
	}
	return found, frontends, nil
}

// remove adds to a transaction what removes the table that was found, and no other one
// that may have come in its place.
func (t *Table) remove(b *batch) {
	b.add(nftables|unix.NFT_MSG_DELTABLE, 0, uint8(t.Family),
		wire.AppendAttr(nil, nftaTableHandle, binary.BigEndian.AppendUint64(nil, t.handle)...))
}

// remove adds what removes the rules.
func (r *Rules) remove(b *batch) {
	for _, jump := range r.edit.jumps {
		attrs := append(text(unix.NFTA_RULE_TABLE, r.Table), text(unix.NFTA_RULE_CHAIN, jump.chain)...)
		attrs = wire.AppendAttr(attrs, unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, jump.handle)...)
		b.add(nftables|unix.NFT_MSG_DELRULE, 0, uint8(r.Family), attrs)
	}
	for _, chain := range r.edit.flush {
		attrs := append(text(unix.NFTA_RULE_TABLE, r.Table), text(unix.NFTA_RULE_CHAIN, chain)...)
		b.add(nftables|unix.NFT_MSG_DELRULE, 0, uint8(r.Family), attrs)
	}
	for _, chain := range r.edit.drop {
		attrs := append(text(unix.NFTA_CHAIN_TABLE, r.Table), text(unix.NFTA_CHAIN_NAME, chain)...)
		b.add(nftables|unix.NFT_MSG_DELCHAIN, 0, uint8(r.Family), attrs)
	}
}

// explain says what was done when an error came; nil stays nil.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
