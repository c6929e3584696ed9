// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"runtime"
	"slices"
	"sync"

	"github.com/kube-nft/kube-nft/nft"
)

// readEndpoints reads the endpoints of every frontend by their keys: a frontend's
// verdict says how many slots it has. A dump would be the obvious way, but the
// kernel walks the map from its beginning for each 32 kB of a dump, which takes
// seconds for 300,000 elements. If there are more elements than frontends
// account for, or the kernel does not say how many, the map is dumped after all.
func (c *Conn) readEndpoints(f nft.Family, frontends, endpoints nft.Set, count int, contents *nft.Contents) error {
	if count < 0 {
		return c.readElements(f, endpoints, contents)
	}
	all := make([]frontendSlots, 0, len(contents.Elements[frontends]))
	for key, v := range contents.Elements[frontends] {
		if v.Verdict.Returns() {
			v = contents.Elements[frontends.FallbackOf()][key]
		}
		all = append(all, frontendSlots{key, v.Verdict.N})
	}
	contents.Elements[endpoints] = make(map[nft.Key]nft.Value, count)
	if err := c.getSlots(f, endpoints, all, contents); err != nil {
		return err
	}
	if len(contents.Elements[endpoints]) == count {
		return nil
	}
	return c.readElements(f, endpoints, contents)
}

// frontendSlots is a frontend and how many slots it may have.
type frontendSlots struct {
	key nft.Key
	n   uint32
}

// Readers work side by side, since the kernel serves such requests without a
// lock. All but one need a socket of their own, and to close it takes a few
// milliseconds (nf_tables_api.c, nft_rcv_nl_event): worth it from some thousand
// elements on.
const (
	maxReaders       = 4
	frontendsAReader = 1000
)

// getSlots reads the slots of frontends into contents.
func (c *Conn) getSlots(f nft.Family, set nft.Set, all []frontendSlots, contents *nft.Contents) error {
	if len(all) == 0 {
		return nil
	}
	readers := min(runtime.GOMAXPROCS(0), maxReaders, 1+len(all)/frontendsAReader)
	found := make(chan []nft.Element, readers)
	failed := make(chan error, readers)
	var wg sync.WaitGroup
	conn := c
	for part := range slices.Chunk(all, (len(all)+readers-1)/readers) {
		if conn == nil {
			var err error
			if conn, err = Open(c.options); err != nil {
				failed <- err
				break
			}
			defer conn.Close()
		}
		reader := conn
		conn = nil
		wg.Go(func() {
			if err := reader.readSlots(f, set, part, func(some []nft.Element) { found <- some }); err != nil {
				failed <- err
			}
		})
	}
	go func() { wg.Wait(); close(found) }()
	for elements := range found {
		for _, e := range elements {
			contents.Put(e)
		}
	}
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// readSlots reads the slots of some frontends and hands them on in batches. Each
// frontend is asked for by itself, because its last slots may be empty. How many it has
// stands in the name of a chain, which anybody may have made who can write to the table:
// of a frontend with many nothing more is asked once some are not there, since slots are
// dense. So it takes memory and time for what is in the set, not for what the name says.
func (c *Conn) readSlots(f nft.Family, set nft.Set, part []frontendSlots, found func([]nft.Element)) error {
	elements := make([]nft.Element, 0, maxGet)
	q := c.inquire(f, func(e nft.Element, _ counter) { elements = append(elements, e) })
	keys := make([]nft.Element, 0, maxGet)
	for _, frontend := range part {
		for from, dense := uint32(0), true; dense && from < frontend.n; from += uint32(len(keys)) {
			keys = keys[:0]
			for slot := range min(frontend.n-from, maxGet) {
				e := nft.Element{Set: set, Key: frontend.key}
				e.Key.Slot = from + slot
				keys = append(keys, e)
			}
			var err error
			if dense, err = q.askSlots(keys, &elements, frontend.n > maxGet); err != nil {
				return err
			}
			if len(elements) >= maxGet {
				found(elements)
				elements = make([]nft.Element, 0, maxGet)
			}
		}
	}
	err := q.send()
	found(elements)
	return err
}

// askSlots asks for some slots, whose elements come into found. If it is to wait for
// them, it reports whether all are there.
func (q *inquiry) askSlots(keys []nft.Element, found *[]nft.Element, wait bool) (dense bool, err error) {
	if !wait {
		return true, q.ask(keys)
	}
	if err := q.send(); err != nil { // what others have asked
		return false, err
	}
	before := len(*found)
	if err := q.ask(keys); err != nil {
		return false, err
	}
	err = q.send()
	return len(*found)-before == len(keys), err
}
