// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// inventory is what a table consists of beside elements, as the kernel has it.
type inventory struct {
	sets   map[string]declared
	chains map[string][]byte // the kernel's descriptions
	rules  map[string]string // the hashes of a chain's rules, one behind the other
	// timeouts, in seconds, of the chains that note clients.
	timeouts map[string]uint32
	raw      map[string][]nft.RawRule // the rules of chains that no Service owns
}

// declared is a set's declaration, its size, and how many elements it holds; -1
// where the kernel does not say (before NFTA_SET_COUNT).
type declared struct {
	declaration
	size  uint32
	count int
}

// declaration is what must agree. A set's size may differ: a table grows by being
// made anew.
type declaration struct {
	flags, keyLen, dataType, dataLen uint32
	counted                          bool
}

func newInventory() *inventory {
	return &inventory{
		sets: make(map[string]declared), chains: make(map[string][]byte),
		rules: make(map[string]string), timeouts: make(map[string]uint32), raw: make(map[string][]nft.RawRule),
	}
}

func (c *Conn) inventory(f nft.Family) (*inventory, error) {
	found := newInventory()
	sets, err := c.list(unix.NFT_MSG_GETSET, f)
	if err != nil {
		return nil, fmt.Errorf("read sets: %w", err)
	}
	for _, body := range sets {
		found.addSet(body)
	}
	chains, err := c.list(unix.NFT_MSG_GETCHAIN, f)
	if err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	for _, body := range chains {
		found.chains[wire.String(wire.First(body, unix.NFTA_CHAIN_NAME))] = body
	}
	rules, err := c.list(unix.NFT_MSG_GETRULE, f)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	for _, body := range rules {
		found.addRule(body)
	}
	return found, nil
}

func (v *inventory) addSet(body []byte) {
	d := declared{
		declaration: declaration{
			flags:    wire.U32(wire.First(body, unix.NFTA_SET_FLAGS)),
			keyLen:   wire.U32(wire.First(body, unix.NFTA_SET_KEY_LEN)),
			dataType: wire.U32(wire.First(body, unix.NFTA_SET_DATA_TYPE)),
			dataLen:  wire.U32(wire.First(body, unix.NFTA_SET_DATA_LEN)),
			counted:  wire.First(body, nftaSetExpr) != nil,
		},
		size:  wire.U32(wire.First(wire.First(body, unix.NFTA_SET_DESC), unix.NFTA_SET_DESC_SIZE)),
		count: -1,
	}
	if n := wire.First(body, nftaSetCount); n != nil {
		d.count = int(wire.U32(n))
	}
	v.sets[wire.String(wire.First(body, unix.NFTA_SET_NAME))] = d
}

// addRule notes the hash of a rule; one without, so not ours, counts as "?".
func (v *inventory) addRule(body []byte) {
	hash := "?"
	if udata := wire.First(body, unix.NFTA_RULE_USERDATA); len(udata) == 10 && udata[0] == udataRuleHash {
		hash = string(udata[2:])
	}
	chain := wire.String(wire.First(body, unix.NFTA_RULE_CHAIN))
	v.rules[chain] += hash
	if c, ok := nft.ParseChain(chain); !ok || c.Port == (nft.Port{}) {
		v.raw[chain] = append(v.raw[chain], rawRule(body))
	}
	for _, e := range wire.Attrs(wire.First(body, unix.NFTA_RULE_EXPRESSIONS)) {
		if wire.String(wire.First(e, unix.NFTA_EXPR_NAME)) == "dynset" {
			v.timeouts[chain] = uint32(wire.U64(wire.First(wire.First(e, unix.NFTA_EXPR_DATA), unix.NFTA_DYNSET_TIMEOUT)) / 1000)
		}
	}
}

// features are those that the table has by its sets.
func (v *inventory) features() (f nft.Features) {
	for name := range v.sets {
		if set, ok := nft.ParseSet(name); ok {
			f |= set.Needs()
		}
	}
	return f
}

// compare compares with a schema, and collects what is there for a number of
// endpoints and for Service ports.
func (v *inventory) compare(s *nft.Schema) (nft.Contents, error) {
	contents := nft.Contents{Features: s.Features}
	owned, err := v.affinities(s, &contents)
	if err != nil {
		return contents, err
	}
	if err := v.compareSets(s, owned, &contents.Sizes); err != nil {
		return contents, err
	}
	return contents, v.compareChains(s, owned, &contents)
}

// affinities collects what Service ports own; owned has the names of it all, and
// the rules of those that are chains.
func (v *inventory) affinities(s *nft.Schema, contents *nft.Contents) (owned map[string]nft.RuleChain, err error) {
	all := make(map[nft.Port]nft.Affinity)
	for name := range v.chains {
		if c, ok := nft.ParseChain(name); ok && c.Port != (nft.Port{}) {
			a := all[c.Port]
			a.Port = c.Port
			if c.Kind == nft.Learn {
				a.Timeout = v.timeouts[name]
			} else {
				a.Ways = a.Ways.With(c.Kind)
			}
			all[c.Port] = a
		}
	}
	owned = make(map[string]nft.RuleChain)
	for port, a := range all {
		if a.Proto, err = protoOf(port); err != nil {
			return nil, err
		}
		local := nft.Affinity{Port: port, Local: true}.Maps()[1]
		_, a.Local = v.sets[local]
		for _, name := range a.Maps() {
			owned[name] = nft.RuleChain{}
		}
		for _, chain := range s.AffinityChains(a) {
			owned[chain.Name] = chain
		}
		contents.PutAffinity(a)
	}
	return owned, nil
}

// protoOf reads the protocol in a Service port's name.
func protoOf(port nft.Port) (nft.Proto, error) {
	if parts := strings.Split(port.String(), "/"); len(parts) >= 3 {
		for _, p := range [...]nft.Proto{nft.TCP, nft.UDP, nft.SCTP} {
			if parts[2] == p.String() {
				return p, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: %s names no Service port", nft.ErrSchema, port)
}

// compareSets compares the sets' declarations, and reads how many elements each
// may hold.
func (v *inventory) compareSets(s *nft.Schema, owned map[string]nft.RuleChain, sizes *nft.Sizes) error {
	sets := s.Sets()
	for name, d := range v.sets {
		if set, ok := nft.ParseSet(name); ok && slices.Contains(sets, set) {
			sizes[set] = d.size
			continue
		}
		if _, ok := owned[name]; !ok || d.flags != affinityFlags {
			return fmt.Errorf("%w: set %s is not ours", nft.ErrSchema, name)
		}
	}
	for _, set := range sets {
		t := set.Type(s.Family)
		want := declaration{setFlags(set), t.KeyLen, t.DataType, t.DataLen, s.Counted(set)}
		if d, ok := v.sets[set.String()]; !ok {
			return fmt.Errorf("%w: set %s is missing", nft.ErrSchema, set)
		} else if d.declaration != want {
			return fmt.Errorf("%w: set %s was declared otherwise", nft.ErrSchema, set)
		}
	}
	return nil
}

// compareChains compares chains and rules, and collects the chains that exist for
// a number of endpoints.
func (v *inventory) compareChains(s *nft.Schema, owned map[string]nft.RuleChain, contents *nft.Contents) error {
	want := make(map[string]nft.RuleChain, len(s.Chains))
	for _, chain := range s.Chains {
		want[chain.Name] = chain
	}
	for name, chain := range owned {
		if chain.Name != "" {
			want[name] = chain
		}
	}
	for name, body := range v.chains {
		chain, ok := want[name]
		if !ok {
			dynamic, ok := nft.ParseChain(name)
			if !ok || !dynamic.Balances() {
				return fmt.Errorf("%w: chain %s is not ours", nft.ErrSchema, name)
			}
			chain = s.Dynamic(dynamic)
			contents.PutChain(dynamic)
		}
		delete(want, name)
		if !sameHook(chain.Base, body) {
			return fmt.Errorf("%w: chain %s sits at another hook", nft.ErrSchema, name)
		}
		if v.rules[name] != hashes(s, chain) {
			return fmt.Errorf("%w: the rules of chain %s are not those that this version and configuration make", nft.ErrSchema, name)
		}
	}
	for name := range want {
		return fmt.Errorf("%w: chain %s is missing", nft.ErrSchema, name)
	}
	return nil
}

func hashes(s *nft.Schema, chain nft.RuleChain) string {
	var all strings.Builder
	for _, r := range chain.Rules {
		hash := s.Hash(chain.Name, r)
		all.Write(hash[:])
	}
	return all.String()
}

func sameHook(want *nft.Hook, chain []byte) bool {
	hook := wire.First(chain, unix.NFTA_CHAIN_HOOK)
	if want == nil || hook == nil {
		return want == nil && hook == nil
	}
	return want.Type == wire.String(wire.First(chain, unix.NFTA_CHAIN_TYPE)) &&
		want.Number == wire.U32(wire.First(hook, unix.NFTA_HOOK_HOOKNUM)) &&
		want.Priority == int32(wire.U32(wire.First(hook, unix.NFTA_HOOK_PRIORITY))) &&
		wire.U32(wire.First(chain, unix.NFTA_CHAIN_POLICY)) == nfAccept
}

// boundaries are the beginnings and ends of ranges in a set of one field.
type boundaries []boundary

type boundary struct {
	addr netip.Addr
	end  bool
}

func (b *boundaries) add(a netip.Addr, end bool) { *b = append(*b, boundary{a, end}) }

// ranges puts the ranges together; the last one may have no end.
func (b boundaries) ranges(f nft.Family, set nft.Set, contents *nft.Contents) error {
	slices.SortFunc(b, func(x, y boundary) int { return x.addr.Compare(y.addr) })
	for i, begin := range b {
		if begin.end {
			continue
		}
		last := lastAddr(begin.addr)
		if i+1 < len(b) {
			last = b[i+1].addr.Prev()
		}
		r, ok := nft.RangeFromTo(begin.addr, last)
		if !ok {
			return fmt.Errorf("%w: %s holds a range that is no prefix, %s to %s", nft.ErrSchema, set, begin.addr, last)
		}
		contents.Put(nft.Element{Set: set, Key: nft.Key{Range: r}})
	}
	return nil
}

func lastAddr(a netip.Addr) netip.Addr {
	bytes := a.AsSlice()
	for i := range bytes {
		bytes[i] = 0xff
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}
