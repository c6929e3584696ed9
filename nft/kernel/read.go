// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Read reads back what the family's table holds. It returns ErrMissing if there
// is none, ErrForeign if it is not ours, and ErrSchema if its constant part is
// not that of s, with whatever features; the error says where.
func (c *Conn) Read(ctx context.Context, s *nft.Schema) (nft.Contents, error) {
	if err := ctx.Err(); err != nil {
		return nft.Contents{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	found, contents, err := c.constant(s)
	if err != nil {
		return nft.Contents{}, err
	}
	s = s.With(contents.Features)
	for _, set := range s.Sets() {
		if set.HoldsEndpoints() {
			continue
		}
		if err := c.readElements(s.Family, set, &contents); err != nil {
			return nft.Contents{}, err
		}
	}
	for _, frontends := range s.Sets() {
		if endpoints, ok := frontends.EndpointsOf(); ok {
			if err := c.readEndpoints(s.Family, frontends, endpoints, found.sets[endpoints.String()].count, &contents); err != nil {
				return nft.Contents{}, err
			}
		}
	}
	return contents, nil
}

// constant compares all in a table but its elements with a schema, with whatever
// features. The contents have what depends on Services and is no element.
func (c *Conn) constant(s *nft.Schema) (*inventory, nft.Contents, error) {
	version, dormant, err := c.readTable(s.Family)
	if err != nil {
		return nil, nft.Contents{}, err
	}
	if version != nft.Version {
		return nil, nft.Contents{}, fmt.Errorf("%w: it has schema version %d instead of %d", nft.ErrSchema, version, nft.Version)
	}
	if dormant {
		return nil, nft.Contents{}, fmt.Errorf("%w: it is dormant", nft.ErrSchema)
	}
	found, err := c.inventory(s.Family)
	if err != nil {
		return nil, nft.Contents{}, err
	}
	contents, err := found.compare(s.With(found.features()))
	return found, contents, err
}

// readTable reads the version in the table's comment, and whether somebody put
// the table to sleep.
func (c *Conn) readTable(f nft.Family) (version int, dormant bool, err error) {
	var comment string
	c.begin(unix.NFT_MSG_GETTABLE, f, 0)
	err = c.ask(func(body []byte) error {
		comment = nft.DecodeComment(wire.First(body, nftaTableUserData))
		dormant = wire.U32(wire.First(body, unix.NFTA_TABLE_FLAGS))&nftTableDormant != 0
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAFNOSUPPORT):
		return 0, false, fmt.Errorf("%w in family %s", nft.ErrMissing, f)
	case err != nil:
		return 0, false, fmt.Errorf("read table %s %s: %w", f, nft.TableName, err)
	}
	digits, ok := strings.CutPrefix(comment, "kube-nft schema ")
	version, err = strconv.Atoi(digits)
	if !ok || err != nil {
		return 0, false, fmt.Errorf("table %s %s: %w: its comment is %q; if nobody needs it, delete it: nft delete table %s %s",
			f, nft.TableName, nft.ErrForeign, comment, f, nft.TableName)
	}
	return version, dormant, nil
}

// begin starts a request about our table; the caller may add attributes before ask.
func (c *Conn) begin(typ uint16, f nft.Family, flags uint16) {
	c.batch.clear(nft.TableName)
	c.batch.message(typ, f, flags)
}

// maxInterrupted is how often a dump is repeated that the kernel calls
// interrupted. It does so when anything at all changed in the namespace's
// nf_tables; our own tables have one writer, which is waiting here, so that a
// dump among busy neighbours is taken in the end.
const maxInterrupted = 3

// ask sends the request begun and hands each answer to f.
func (c *Conn) ask(f func(body []byte) error) error {
	c.batch.close(0)
	dump := binary.NativeEndian.Uint16(c.batch.buf[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	for try := 0; ; try++ {
		interrupted, err := c.askOnce(dump, f)
		if err != nil || !interrupted || try == maxInterrupted {
			return err
		}
	}
}

func (c *Conn) askOnce(dump bool, f func(body []byte) error) (interrupted bool, err error) {
	if err := c.send(); err != nil {
		return false, err
	}
	var failed error
	err = c.answered(func(h unix.NlMsghdr, body []byte) bool {
		interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
		switch h.Type {
		case unix.NLMSG_DONE:
			return false
		case unix.NLMSG_ERROR:
			if errno, _, _ := decodeError(h, body); errno != 0 {
				failed = errno
			}
			return false
		}
		if len(body) >= wire.FamilyLen && failed == nil {
			failed = f(body[wire.FamilyLen:])
		}
		return dump
	})
	return interrupted, errors.Join(failed, err)
}

// list sends the request for a dump and returns the answers that are about our
// table; attribute 1 names the table in all of them.
func (c *Conn) list(typ uint16, f nft.Family) ([][]byte, error) {
	c.begin(typ, f, unix.NLM_F_DUMP)
	seen := make(map[string]bool) // a dump may be repeated, or repeat itself
	var all [][]byte
	err := c.ask(func(body []byte) error {
		if key := string(body); wire.String(wire.First(body, unix.NFTA_TABLE_NAME)) == nft.TableName && !seen[key] {
			seen[key] = true
			all = append(all, []byte(key))
		}
		return nil
	})
	return all, err
}

func (c *Conn) readElements(f nft.Family, set nft.Set, contents *nft.Contents) error {
	c.begin(unix.NFT_MSG_GETSETELEM, f, unix.NLM_F_DUMP)
	c.batch.str(unix.NFTA_SET_ELEM_LIST_SET, set.String())
	var bounds boundaries
	err := c.ask(func(body []byte) error {
		for _, v := range wire.Attrs(wire.First(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e, _, err := decodeElement(f, set, v)
			if err != nil {
				return fmt.Errorf("%w: %w", nft.ErrSchema, err)
			}
			if set.Ranged() && !set.Concatenated() {
				bounds.add(e.Key.Range.Prefix().Addr(), wire.U32(wire.First(v, unix.NFTA_SET_ELEM_FLAGS))&unix.NFT_SET_ELEM_INTERVAL_END != 0)
				continue
			}
			contents.Put(e)
		}
		return nil
	})
	if err == nil {
		err = bounds.ranges(f, set, contents)
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", f, set, err)
	}
	return nil
}
