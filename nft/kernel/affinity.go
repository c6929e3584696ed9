// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// entry is what the kernel remembers of a client of a Service port with session
// affinity.
type entry struct {
	client netip.Addr
	to     netip.AddrPort
	// timeout is how long it was to be remembered after its last connection,
	// expires how much of that is left; both in milliseconds.
	timeout, expires uint64
}

// retimed returns the entry under another timeout: it counts from the last
// connection, as if it had always been so. It reports whether anything is left.
func (e entry) retimed(timeout uint64) (entry, bool) {
	age := e.timeout - min(e.timeout, e.expires)
	if age >= timeout {
		return e, false
	}
	e.timeout, e.expires = timeout, timeout-age
	return e, true
}

// declareAffinityMap appends a map from clients to endpoints. It has no size to
// grow from: the kernel enlarges sets with timeouts by itself, up to the limit.
func (b *batch) declareAffinityMap(f nft.Family, name string, id uint32) {
	t := nft.AffinityType(f)
	m := b.message(unix.NFT_MSG_NEWSET, f, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.str(unix.NFTA_SET_NAME, name)
	b.u32(unix.NFTA_SET_FLAGS, affinityFlags)
	b.u32(unix.NFTA_SET_KEY_TYPE, t.KeyType)
	b.u32(unix.NFTA_SET_KEY_LEN, t.KeyLen)
	b.u32(unix.NFTA_SET_DATA_TYPE, t.DataType)
	b.u32(unix.NFTA_SET_DATA_LEN, t.DataLen)
	b.u32(unix.NFTA_SET_ID, id)
	desc := b.nest(unix.NFTA_SET_DESC)
	b.u32(unix.NFTA_SET_DESC_SIZE, nft.AffinitySize)
	b.end(desc)
	b.bytes(unix.NFTA_SET_USERDATA, t.UserData)
	b.close(m)
}

const affinityFlags = unix.NFT_SET_MAP | unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL

// entries appends messages that add or delete entries of one map.
func (b *batch) entries(typ uint16, f nft.Family, name string, all []entry) {
	flags := uint16(0)
	if typ == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE
	}
	for len(all) > 0 {
		message := b.message(typ, f, flags)
		b.str(unix.NFTA_SET_ELEM_LIST_SET, name)
		list := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for ; len(all) > 0 && len(b.buf)-list < maxAttr; all = all[1:] {
			b.entry(typ, f, all[0])
		}
		b.end(list)
		b.close(message)
	}
}

func (b *batch) entry(typ uint16, f nft.Family, e entry) {
	outer := b.nest(unix.NFTA_LIST_ELEM)
	key := b.nest(unix.NFTA_SET_ELEM_KEY)
	v := b.begin(unix.NFTA_DATA_VALUE)
	b.buf = nft.AppendClient(b.buf, e.client)
	b.end(v)
	b.end(key)
	if typ == unix.NFT_MSG_NEWSETELEM {
		data := b.nest(unix.NFTA_SET_ELEM_DATA)
		v := b.begin(unix.NFTA_DATA_VALUE)
		b.buf = nft.AppendData(b.buf, f, nft.Endpoints, nft.Value{To: e.to})
		b.end(v)
		b.end(data)
		b.u64(unix.NFTA_SET_ELEM_TIMEOUT, e.timeout)
		b.u64(unix.NFTA_SET_ELEM_EXPIRATION, e.expires)
	}
	b.end(outer)
}

// readEntries reads what a map from clients to endpoints holds; nothing if there
// is no such map.
func (c *Conn) readEntries(f nft.Family, name string) ([]entry, error) {
	seen := make(map[netip.Addr]entry) // a dump may be repeated, or repeat itself
	c.begin(unix.NFT_MSG_GETSETELEM, f, unix.NLM_F_DUMP)
	c.batch.str(unix.NFTA_SET_ELEM_LIST_SET, name)
	err := c.ask(func(body []byte) error {
		for _, v := range wire.Attrs(wire.First(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e, err := decodeEntry(f, v)
			if err != nil {
				return err
			}
			seen[e.client] = e
		}
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read %s %s: %w", f, name, err)
	}
	all := make([]entry, 0, len(seen))
	for _, e := range seen {
		all = append(all, e)
	}
	return all, nil
}

func decodeEntry(f nft.Family, attr []byte) (e entry, err error) {
	for typ, v := range wire.Attrs(attr) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.client, err = nft.DecodeClient(wire.First(v, unix.NFTA_DATA_VALUE), f)
		case unix.NFTA_SET_ELEM_DATA:
			var value nft.Value
			value, err = nft.DecodeData(wire.First(v, unix.NFTA_DATA_VALUE), f, nft.Endpoints)
			e.to = value.To
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.timeout = wire.U64(v)
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.expires = wire.U64(v)
		}
		if err != nil {
			return e, err
		}
	}
	return e, nil
}

// edit is what changes in one map from clients to endpoints.
type edit struct {
	name      string
	gone, new []entry
}

// edits reads the maps of a change that the kernel fills and finds what must
// change in them: clients of endpoints that left are forgotten, and under another
// timeout entries last from the same connection on.
func (c *Conn) edits(f nft.Family, d nft.Delta) ([]edit, error) {
	stay := make(map[string]func(entry) (entry, bool))
	for _, change := range d.Affinities {
		if change.Was.Timeout == change.Is.Timeout || change.Was.Timeout == 0 || change.Is.Timeout == 0 {
			continue
		}
		for _, name := range change.Was.Maps() {
			if slices.Contains(change.Is.Maps(), name) {
				stay[name] = retime(change.Is)
			}
		}
	}
	for _, keep := range d.Keep {
		for i, name := range keep.Affinity.Maps() {
			stay[name] = keepers(keep, i, stay[name])
		}
	}
	var all []edit
	err := c.readMaps(f, slices.Sorted(maps.Keys(stay)), func(name string, entries []entry) {
		found := edit{name: name}
		for _, e := range entries {
			switch now, ok := stay[name](e); {
			case !ok:
				found.gone = append(found.gone, e)
			case now != e:
				found.gone, found.new = append(found.gone, e), append(found.new, now)
			}
		}
		if len(found.gone) > 0 {
			all = append(all, found)
		}
	})
	return all, err
}

// manyMaps is from how many maps on it is worth asking first which of them hold
// anything: for each that is read the kernel goes through the list of all sets.
const manyMaps = 16

// readMaps reads maps from clients to endpoints; of one that is not there or holds
// nothing, f may not be called.
func (c *Conn) readMaps(family nft.Family, names []string, f func(name string, entries []entry)) error {
	if len(names) >= manyMaps {
		counts, err := c.countEntries(family)
		switch {
		case err == nil:
			names = slices.DeleteFunc(names, func(name string) bool { return counts[name] == 0 })
		case !errors.Is(err, nft.ErrUncounted):
			return fmt.Errorf("count clients: %w", err)
		}
	}
	for _, name := range names {
		entries, err := c.readEntries(family, name)
		if err != nil {
			return err
		}
		f(name, entries)
	}
	return nil
}

func retime(a nft.Affinity) func(entry) (entry, bool) {
	return func(e entry) (entry, bool) { return e.retimed(1000 * uint64(a.Timeout)) }
}

// keepers lets those entries of a Service port's map pass that lead to one of its
// endpoints, and then what next says.
func keepers(keep nft.Keep, index int, next func(entry) (entry, bool)) func(entry) (entry, bool) {
	endpoints := keep.Endpoints
	if index > 0 {
		endpoints = keep.Local
	}
	set := make(map[netip.AddrPort]bool, len(endpoints))
	for _, e := range endpoints {
		set[e] = true
	}
	return func(e entry) (entry, bool) {
		if !set[e.to] || next == nil {
			return e, set[e.to]
		}
		return next(e)
	}
}

// soon is how little of an entry's time is left, in milliseconds, when it may be over
// before a transaction is through.
const soon = 10_000

// edit appends edits. To delete what is not there fails the whole transaction, and an
// entry may have expired since it was read: one that expires soon is added before,
// which does nothing if it is there. The others go first and make room for it.
func (b *batch) edit(f nft.Family, edits []edit) {
	for _, e := range edits {
		slices.SortFunc(e.gone, func(x, y entry) int { return cmp.Compare(y.expires, x.expires) })
		last := slices.IndexFunc(e.gone, func(e entry) bool { return e.expires < soon })
		if last < 0 {
			last = len(e.gone)
		}
		b.entries(unix.NFT_MSG_DELSETELEM, f, e.name, e.gone[:last])
		b.entries(unix.NFT_MSG_NEWSETELEM, f, e.name, e.gone[last:])
		b.entries(unix.NFT_MSG_DELSETELEM, f, e.name, e.gone[last:])
		b.entries(unix.NFT_MSG_NEWSETELEM, f, e.name, e.new)
	}
}

// forgetLate forgets once more, for connections that were under way while the
// transaction was: they may have been noted under an endpoint that has left.
func (c *Conn) forgetLate(changes []nft.Change) error {
	for _, change := range changes {
		if keep := len(change.Delta.Keep); keep == 0 || keep == change.Delta.Size() {
			continue // no endpoint left in this transaction
		}
		err := c.retryExpired(func() error {
			edits, err := c.edits(change.Schema.Family, nft.Delta{Keep: change.Delta.Keep})
			if err != nil || len(edits) == 0 {
				return err
			}
			c.batch.reset(nft.TableName)
			c.batch.edit(change.Schema.Family, edits)
			return c.commit()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// maxExpired is how often a transaction is tried that deletes entries which may
// change on their own before it is through.
const maxExpired = 5

// retryExpired repeats what fails because an entry expired in the meantime: it was
// not there (ENOENT), there was no room to add it (ENFILE), or its client has been sent
// elsewhere (EBUSY).
func (c *Conn) retryExpired(do func() error) error {
	for try := 1; ; try++ {
		err := do()
		again := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.EBUSY)
		if !again || try == maxExpired {
			return err
		}
	}
}

// carried reads what the kernel remembers of the clients of a table that is about
// to be replaced, as far as the new one wants it.
func (c *Conn) carried(t nft.Table) ([]edit, error) {
	keeps := make(map[nft.Port]nft.Keep, len(t.Keep))
	for _, k := range t.Keep {
		keeps[k.Affinity.Port] = k
	}
	stays := make(map[string]func(entry) (entry, bool))
	for _, a := range t.Affinities {
		for i, name := range a.Maps() {
			stays[name] = keepers(keeps[a.Port], i, retime(a))
		}
	}
	var all []edit
	err := c.readMaps(t.Schema.Family, slices.Sorted(maps.Keys(stays)), func(name string, entries []entry) {
		carry := edit{name: name}
		for _, e := range entries {
			if now, ok := stays[name](e); ok {
				carry.new = append(carry.new, now)
			}
		}
		all = append(all, carry)
	})
	return all, err
}
