// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// maxGet bounds the elements asked for at once: each is answered by a datagram of
// its own, and all of them wait in the receive buffer.
const maxGet = 1000

// get reads elements by their keys and hands those that exist to f; only the
// elements' sets and keys count.
func (c *Conn) get(f nft.Family, elements []nft.Element, found func(nft.Element, counter)) error {
	for chunk := range slices.Chunk(elements, maxGet) {
		for len(chunk) > 0 {
			n, err := c.getSome(f, chunk, found)
			if err != nil {
				return err
			}
			chunk = chunk[n:]
		}
	}
	return nil
}

// getSome asks for elements of one set and returns how many of them are settled:
// the kernel stops at the first one that does not exist
// (nf_tables_api.c, nf_tables_getsetelem).
func (c *Conn) getSome(f nft.Family, elements []nft.Element, found func(nft.Element, counter)) (int, error) {
	set := elements[0].Set
	if i := slices.IndexFunc(elements, func(e nft.Element) bool { return e.Set != set }); i > 0 {
		elements = elements[:i]
	}
	c.batch.clear(nft.TableName)
	c.batch.elements(unix.NFT_MSG_GETSETELEM, f, elements, nil)
	if err := c.send(); err != nil {
		return 0, err
	}
	n := 0
	var failed error
	err := c.receive(false, func(h unix.NlMsghdr, body []byte) bool {
		if h.Type == unix.NLMSG_ERROR {
			if errno, detail, _ := decodeError(h, body); errno == unix.ENOENT {
				n++ // the one after those that were answered
			} else if errno != 0 {
				failed = &CommitError{Message: "get element of " + set.String(), Errno: errno, Detail: detail}
			}
			return true
		}
		if len(body) < familyLen {
			return true
		}
		for _, v := range attrs(first(body[familyLen:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e, count, err := decodeElement(f, set, v)
			if err != nil {
				failed = fmt.Errorf("%w: %w", nft.ErrSchema, err)
				continue
			}
			found(e, count)
			n++
		}
		return true
	})
	if err := errors.Join(failed, err); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, fmt.Errorf("get elements of %s: %w", set, ErrUnknown)
	}
	return min(n, len(elements)), nil
}
