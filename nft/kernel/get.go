// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// maxGet bounds the elements asked for at once: each is answered by a datagram of
// its own, and all of them wait in the receive buffer.
const maxGet = 1000

// inquiry asks for elements by their keys, many in one write.
type inquiry struct {
	conn   *Conn
	family nft.Family
	found  func(nft.Element, counter)
	asked  int
}

func (c *Conn) inquire(f nft.Family, found func(nft.Element, counter)) *inquiry {
	c.batch.clear(nft.TableName)
	return &inquiry{conn: c, family: f, found: found}
}

// ask asks for elements of one set, as far as they exist: the kernel stops at the
// first key that does not (nf_tables_api.c, nf_tables_getsetelem).
func (q *inquiry) ask(elements []nft.Element) error {
	for len(elements) > 0 {
		n := min(len(elements), maxGet)
		if q.asked+n > maxGet {
			if err := q.send(); err != nil {
				return err
			}
		}
		q.conn.batch.elements(unix.NFT_MSG_GETSETELEM, q.family, elements[:n], nil)
		q.asked += n
		elements = elements[n:]
	}
	return nil
}

// send sends what has been asked and hands the answers on.
func (q *inquiry) send() error {
	if q.asked == 0 {
		return nil
	}
	if err := q.conn.send(); err != nil {
		return err
	}
	var failed error
	err := q.conn.receive(false, func(h unix.NlMsghdr, body []byte) bool {
		failed = errors.Join(failed, q.answer(h, body))
		return true
	})
	q.conn.batch.clear(nft.TableName)
	q.asked = 0
	return errors.Join(failed, err)
}

func (q *inquiry) answer(h unix.NlMsghdr, body []byte) error {
	if h.Type == unix.NLMSG_ERROR {
		if errno, detail, _ := decodeError(h, body); errno != 0 && errno != unix.ENOENT {
			return &CommitError{Message: q.conn.batch.describe(int(h.Seq)-1, 0), Errno: errno, Detail: detail}
		}
		return nil
	}
	if len(body) < wire.FamilyLen {
		return nil
	}
	set, ok := nft.ParseSet(wire.String(wire.First(body[wire.FamilyLen:], unix.NFTA_SET_ELEM_LIST_SET)))
	if !ok {
		return nil
	}
	for _, v := range wire.Attrs(wire.First(body[wire.FamilyLen:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		e, count, err := decodeElement(q.family, set, v)
		if err != nil {
			return fmt.Errorf("%w: %w", nft.ErrSchema, err)
		}
		q.found(e, count)
	}
	return nil
}
