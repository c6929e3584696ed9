// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Bounds of what is kept, for each table. A firewall that people wrote is smaller.
const (
	maxRulesOfChain = 1000
	maxRules        = 5000
	maxSets         = 500
	maxElements     = 1000
)

// maxInterrupted is how often everything is read again that changed meanwhile.
// Where rules change all the time the last try counts.
const maxInterrupted = 3

// Attributes and flags that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	nftaTableUserData = 6
	nftaTableOwner    = 7
	nftaHookDevs      = 4
	nftaDeviceName    = 1
	nftaSetCount      = 20
	nftaSetElemKeyEnd = 10
	nftTableOwned     = 0x2
)

// List reads all tables of the calling thread's network namespace, sorted by
// family and name. It wants CAP_NET_ADMIN there; errors are fs.ErrPermission,
// ErrUnsupported, and what the kernel says. Of tables of our own name it reads no
// elements: they may be hundreds of thousands.
func List(ctx context.Context) ([]*Table, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer func() { c.close() }()
	r := reader{conn: c}
	for try := 1; ; try++ {
		interrupted, err := r.readAll(ctx)
		if err != nil {
			return nil, err
		}
		if !interrupted || try == maxInterrupted {
			break
		}
	}
	for _, t := range r.sorted() {
		if err := r.readSets(ctx, t); err != nil {
			return nil, err
		}
	}
	c = r.conn
	return r.sorted(), nil
}

type tableKey struct {
	family Family
	name   string
}

// reader collects tables.
type reader struct {
	conn   *conn
	tables map[tableKey]*Table
	kept   map[tableKey]int
}

func (r *reader) sorted() []*Table {
	all := make([]*Table, 0, len(r.tables))
	for _, t := range r.tables {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *Table) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// readAll reads everything but elements.
func (r *reader) readAll(ctx context.Context) (interrupted bool, err error) {
	r.tables, r.kept = make(map[tableKey]*Table), make(map[tableKey]int)
	for _, kind := range []struct {
		what string
		typ  uint16
		add  func(Family, []byte) error
	}{
		{"tables", unix.NFT_MSG_GETTABLE, r.addTable},
		{"chains", unix.NFT_MSG_GETCHAIN, r.addChain},
		{"sets", unix.NFT_MSG_GETSET, r.addSet},
		{"rules", unix.NFT_MSG_GETRULE, r.addRule},
	} {
		again, err := r.conn.list(ctx, kind.typ, 0, nil, kind.add)
		if err != nil {
			return false, fmt.Errorf("read %s: %w", kind.what, err)
		}
		interrupted = interrupted || again
	}
	return interrupted, nil
}

func (r *reader) addTable(f Family, body []byte) error {
	name := wire.String(wire.First(body, unix.NFTA_TABLE_NAME))
	flags := wire.U32(wire.First(body, unix.NFTA_TABLE_FLAGS))
	r.tables[tableKey{f, name}] = &Table{
		Family: f, Name: name,
		Comment: nft.DecodeComment(wire.First(body, nftaTableUserData)),
		Dormant: flags&unix.NFT_TABLE_F_DORMANT != 0,
		Owner:   wire.U32(wire.First(body, nftaTableOwner)),
		Chains:  make(map[string]*Chain), Sets: make(map[string]*Set),
	}
	return nil
}

// table is that of an entry: attribute 1 names it in all of them. One that came
// since the tables were read has none, and the list is read again.
func (r *reader) table(f Family, body []byte) *Table {
	return r.tables[tableKey{f, wire.String(wire.First(body, unix.NFTA_TABLE_NAME))}]
}

func (r *reader) addChain(f Family, body []byte) error {
	t := r.table(f, body)
	if t == nil {
		return nil
	}
	c := &Chain{Name: wire.String(wire.First(body, unix.NFTA_CHAIN_NAME))}
	if hook := wire.First(body, unix.NFTA_CHAIN_HOOK); hook != nil {
		c.Hook = hookName(f, wire.U32(wire.First(hook, unix.NFTA_HOOK_HOOKNUM)))
		c.Priority = int32(wire.U32(wire.First(hook, unix.NFTA_HOOK_PRIORITY)))
		c.Type = wire.String(wire.First(body, unix.NFTA_CHAIN_TYPE))
		c.Drop = wire.U32(wire.First(body, unix.NFTA_CHAIN_POLICY)) == nfDrop && wire.First(body, unix.NFTA_CHAIN_POLICY) != nil
		for typ, dev := range wire.Attrs(wire.First(hook, nftaHookDevs)) {
			if typ == nftaDeviceName {
				c.Devices = append(c.Devices, wire.String(dev))
			}
		}
		// Before Linux 5.5 the kernel says one device, by another attribute.
		if dev := wire.First(hook, unix.NFTA_HOOK_DEV); dev != nil && c.Devices == nil {
			c.Devices = append(c.Devices, wire.String(dev))
		}
	}
	t.Chains[c.Name] = c
	return nil
}

// hookName is the word for a hook's number (linux/netfilter.h, linux/netfilter_arp.h).
func hookName(f Family, n uint32) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch f {
	case ARP:
		names = []string{"input", "output", "forward"}
	case Netdev:
		names = []string{"ingress", "egress"}
	}
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("hook %d", n)
}

func (r *reader) addSet(f Family, body []byte) error {
	t := r.table(f, body)
	if t == nil {
		return nil
	}
	flags := wire.U32(wire.First(body, unix.NFTA_SET_FLAGS))
	s := &Set{
		Name: wire.String(wire.First(body, unix.NFTA_SET_NAME)), Count: -1,
		Map:      flags&unix.NFT_SET_MAP != 0,
		Verdict:  wire.U32(wire.First(body, unix.NFTA_SET_DATA_TYPE)) == unix.NFT_DATA_VERDICT,
		Interval: flags&unix.NFT_SET_INTERVAL != 0, Anonymous: flags&unix.NFT_SET_ANONYMOUS != 0,
		KeyLen: wire.U32(wire.First(body, unix.NFTA_SET_KEY_LEN)),
		Size:   wire.U32(wire.First(wire.First(body, unix.NFTA_SET_DESC), unix.NFTA_SET_DESC_SIZE)),
	}
	if n := wire.First(body, nftaSetCount); n != nil {
		s.Count = int(wire.U32(n))
	}
	t.Sets[s.Name] = s
	return nil
}

func (r *reader) addRule(f Family, body []byte) error {
	t := r.table(f, body)
	if t == nil {
		return nil
	}
	c := t.Chains[wire.String(wire.First(body, unix.NFTA_RULE_CHAIN))]
	if c == nil {
		return nil
	}
	rule := decodeRule(f, body)
	t.Rules++
	c.Total++
	c.note(&rule)
	// Those that are kept are the first of their chain: how a packet fares there
	// is known until the last of them.
	if key := (tableKey{f, t.Name}); r.kept[key] < maxRules && len(c.Rules) < maxRulesOfChain && len(c.Rules) == c.Total-1 {
		r.kept[key]++
		c.Rules = append(c.Rules, rule)
	}
	return nil
}

// note adds a rule to what is known of its chain.
func (c *Chain) note(r *Rule) {
	c.Mark.Add(r.Mark)
	if r.NoTrack {
		c.Does[NoTrack]++
	}
	if r.Mark.Changes != 0 {
		c.Does[SetMark]++
	}
	switch v := &r.Verdict; v.Kind {
	case Act:
		c.Does[v.Action]++
	case Jump, Goto:
		c.Leads = appendNew(c.Leads, v.Chain)
	case Lookup:
		c.Maps = appendNew(c.Maps, v.Map)
	}
}

// appendNew appends a name that is not among the last ones: rules that lead to the
// same chain stand together, and a chain with thousands leads to thousands.
func appendNew(names []string, name string) []string {
	if slices.Contains(names[max(0, len(names)-64):], name) {
		return names
	}
	return append(names, name)
}

// readSets reads the elements that matter to Fate: what verdict maps lead to, and
// what rules compare with.
func (r *reader) readSets(ctx context.Context, t *Table) error {
	if t.Name == nft.TableName && (t.Family == IPv4 || t.Family == IPv6) {
		return nil
	}
	asked := 0
	for _, name := range t.wanted() {
		s := t.Sets[name]
		if s == nil || s.Count > maxElements {
			continue
		}
		if asked++; asked > maxSets {
			return nil
		}
		var err error
		if s.elements, s.read, err = r.elements(ctx, t.Family, t.Name, name, maxElements); err != nil {
			return fmt.Errorf("read set %s of table %s: %w", name, t, err)
		}
		s.close()
	}
	return nil
}

// wanted lists the sets whose elements say what a packet meets: verdict maps, and
// sets that rules look up something in that a packet is known by.
func (t *Table) wanted() []string {
	var names []string
	seen := make(map[string]bool)
	want := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
		c := t.Chains[name]
		for _, m := range c.Maps {
			want(m)
		}
		for i := range c.Rules {
			for j := range c.Rules[i].Matches {
				want(c.Rules[i].Matches[j].Set)
			}
		}
	}
	return names
}

// Element is an element of a set, its key as the kernel has it.
type Element struct {
	Key []byte
	// End is the last key of an element of a concatenation of ranges. In a set of
	// plain ranges Last marks the key behind a range as such.
	End  []byte
	Last bool
	// Chain is where a verdict leads, and Action what else it says.
	Verdict Verdict
	Chain   string
	Data    []byte
	Comment string
	to      []byte // the last key of a plain range
}

// Elements reads elements of a set of the calling thread's namespace, at most max.
func Elements(ctx context.Context, f Family, table, set string, max int) (all []Element, complete bool, err error) {
	c, err := dial()
	if err != nil {
		return nil, false, err
	}
	r := reader{conn: c}
	all, complete, err = r.elements(ctx, f, table, set, max)
	r.conn.close()
	if err != nil {
		return nil, false, fmt.Errorf("read set %s of table %s %s: %w", set, f, table, err)
	}
	return all, complete, nil
}

func (r *reader) elements(ctx context.Context, f Family, table, set string, max int) (all []Element, complete bool, err error) {
	attrs := named(named(nil, unix.NFTA_SET_ELEM_LIST_TABLE, table), unix.NFTA_SET_ELEM_LIST_SET, set)
	_, err = r.conn.list(ctx, unix.NFT_MSG_GETSETELEM, f, attrs, func(_ Family, body []byte) error {
		for _, v := range wire.Attrs(wire.First(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			if len(all) == max {
				return errEnough
			}
			all = append(all, decodeElement(v))
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		// The rest of the list is on its way: another connection is clean.
		r.conn.close()
		r.conn, err = dial()
		return all, false, err
	case errors.Is(err, unix.ENOENT): // gone meanwhile
		return nil, false, nil
	}
	return all, err == nil, err
}

func decodeElement(attr []byte) (e Element) {
	for typ, v := range wire.Attrs(attr) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = bytes.Clone(wire.First(v, unix.NFTA_DATA_VALUE))
		case nftaSetElemKeyEnd:
			e.End = bytes.Clone(wire.First(v, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_FLAGS:
			e.Last = wire.U32(v)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_DATA:
			e.Data = bytes.Clone(wire.First(v, unix.NFTA_DATA_VALUE))
			if verdict := wire.First(v, unix.NFTA_DATA_VERDICT); verdict != nil {
				e.Verdict = decodeVerdict(verdict)
				e.Chain = e.Verdict.Chain
			}
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = nft.DecodeComment(v)
		}
	}
	return e
}
