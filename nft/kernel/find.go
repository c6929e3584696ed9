// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Find asks for elements of a family's table by their keys and hands those that are
// there to found, with what their counters counted. The kernel looks each up, as it
// does for a packet: of a range a key names one address that is in it. Of a table or a
// set that is not there nothing is found.
func (c *Conn) Find(ctx context.Context, f nft.Family, keys []nft.Element, found func(e nft.Element, packets uint64)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	q := c.inquire(f, func(e nft.Element, n counter) { found(e, n.packets) })
	for i := range keys {
		// One for each message: the kernel looks no further when one is not there.
		if err := q.ask(keys[i : i+1]); err != nil {
			return fmt.Errorf("look up %s in table %s %s: %w", keys[i].Set, f, nft.TableName, err)
		}
	}
	if err := q.send(); err != nil {
		return fmt.Errorf("look up elements of table %s %s: %w", f, nft.TableName, err)
	}
	return nil
}

// List hands every element of a set to each; of a set that is not there none.
func (c *Conn) List(ctx context.Context, f nft.Family, set nft.Set, each func(e nft.Element, packets uint64)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	if set.Ranged() && !set.Concatenated() {
		var all nft.Contents
		err := c.readElements(f, set, &all)
		for _, e := range all.Sorted() {
			each(e, 0)
		}
		return absent(err)
	}
	return absent(c.dumpElements(f, set, each))
}

// absent turns the error of what is not there into none.
func absent(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}

// Remembered is what the kernel knows of a client of a Service port with session
// affinity.
type Remembered struct {
	To netip.AddrPort
	// Timeout is how long a client is remembered after its last connection, Left how
	// much of that is left.
	Timeout, Left time.Duration
}

// Remembers asks a map from clients to endpoints for one client; ok is false if it is
// not known, or there is no such map.
func (c *Conn) Remembers(ctx context.Context, f nft.Family, name string, client netip.Addr) (r Remembered, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return r, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	c.batch.clear(nft.TableName)
	c.batch.entries(unix.NFT_MSG_GETSETELEM, f, name, []entry{{client: client}})
	if err := c.send(); err != nil {
		return r, false, err
	}
	var failed error
	err = c.receive(false, func(h unix.NlMsghdr, body []byte) bool {
		if h.Type == unix.NLMSG_ERROR {
			if errno, _, _ := decodeError(h, body); errno != 0 {
				failed = errors.Join(failed, absent(errno))
			}
			return true
		}
		if len(body) < wire.FamilyLen {
			return true
		}
		for _, v := range wire.Attrs(wire.First(body[wire.FamilyLen:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e, err := decodeEntry(f, v)
			failed = errors.Join(failed, err)
			r, ok = Remembered{e.to, milliseconds(e.timeout), milliseconds(e.expires)}, true
		}
		return true
	})
	if err = errors.Join(failed, err); err != nil {
		return r, false, fmt.Errorf("look a client up in %s %s: %w", f, name, err)
	}
	return r, ok, nil
}

func milliseconds(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
