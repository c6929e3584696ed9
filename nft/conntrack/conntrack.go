// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// Options say where to look.
type Options struct {
	// NetNS is a descriptor of the network namespace; 0 is the calling thread's own.
	NetNS int
}

// Conn is a connection to the conntrack table of one network namespace. One
// goroutine at a time may use it.
type Conn struct {
	options Options
	listing socket
	change  socket
	request buffer
}

// Open connects to the table of a namespace. It does not need privileges; using
// the connection does.
func Open(o Options) (*Conn, error) {
	c := &Conn{options: o}
	if err := errors.Join(c.listing.open(o), c.change.open(o)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return errors.Join(c.listing.close(), c.change.close()) }

// attempts is how often a walk begins again that was disturbed.
const attempts = 3

// Filter says which entries are asked for.
type Filter struct {
	Family nft.Family
	// Proto is the protocol; 0 is any.
	Proto nft.Proto
	// Port is the original destination port; 0 is any. It saves the kernel the
	// most of the work, which is to write entries down.
	Port uint16
	// Translated asks for those alone whose destination was changed.
	Translated bool
}

func (f Filter) passes(e *Entry) bool {
	return e.Family == f.Family && (f.Proto == 0 || e.Proto == f.Proto) && (f.Port == 0 || f.Port == e.Original.Dst.Port()) &&
		(!f.Translated || e.Status&Translated != 0)
}

// Walk calls visit for each entry that passes the filter, until it returns false or
// all have been listed. The entry is visit's until it returns. visit may delete
// entries, and must not walk.
//
// A walk that the kernel interrupts or that loses a part (EINTR, NLM_F_DUMP_INTR,
// ENOBUFS) begins again, a few times: visit then meets entries anew.
func (c *Conn) Walk(ctx context.Context, f Filter, visit func(*Entry) bool) error {
	err := persist(func(filtered bool) (bool, error) { return c.list(ctx, f, filtered, visit) })
	if err != nil {
		return fmt.Errorf("list conntrack entries (%s, %s): %w", f.Family, f.Proto, err)
	}
	return nil
}

// persist makes listings until one is whole, or until what has been listed must do.
// A kernel that does not know the filter is asked without one.
func persist(list func(filtered bool) (whole bool, err error)) error {
	filtered := true
	for try := 1; ; {
		whole, err := list(filtered)
		var errno unix.Errno
		switch {
		case err == nil && whole:
			return nil
		case err != nil && !errors.As(err, &errno):
			return err
		case filtered && (errno == unix.EINVAL || errno == unix.EOPNOTSUPP):
			filtered = false
			continue
		case err != nil && errno != unix.EINTR && errno != unix.ENOBUFS:
			return explain(errno)
		}
		if try++; try <= attempts {
			continue
		}
		if errno == unix.ENOBUFS {
			return fmt.Errorf("answers were lost %d times: %w", attempts, errno)
		}
		return nil // what was listed has been visited
	}
}

// list makes one listing. whole is false if it was disturbed.
func (c *Conn) list(ctx context.Context, f Filter, filtered bool, visit func(*Entry) bool) (whole bool, err error) {
	s := &c.listing
	if err := s.open(c.options); err != nil {
		return false, err
	}
	ended := false
	defer func() {
		if !ended {
			s.close() // or the rest would wait in it
		}
	}()
	s.seq++
	var request buffer
	request.list(s.seq, f, filtered)
	if err := s.send(request); err != nil {
		return false, err
	}
	whole = true
	var e Entry
	for ctx.Err() == nil {
		answer, err := s.receive()
		if err != nil {
			return false, err
		}
		for m := range messages(answer) {
			whole = whole && m.header.Flags&unix.NLM_F_DUMP_INTR == 0
			switch m.header.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if errno := m.errno(); errno != 0 {
					return false, errno // EBUSY: another listing of this socket has not ended
				}
				ended = true
				return whole, nil
			}
			if err := e.parse(m.body); err != nil {
				return false, err
			}
			if f.passes(&e) && !visit(&e) {
				return true, nil
			}
		}
	}
	return false, ctx.Err()
}

// maxBatch bounds the entries that are deleted at once: each may be answered by a
// datagram of its own, and all of those wait in the receive buffer.
const maxBatch = 64

// Delete deletes entries, exactly these, and returns how many there were. Those
// that have gone by themselves are fine; those that the kernel has handed to a flow
// table stay.
func (c *Conn) Delete(entries ...Entry) (deleted int, err error) {
	for len(entries) > 0 {
		n := min(len(entries), maxBatch)
		done, err := c.deleteBatch(entries[:n])
		deleted += done
		if err != nil {
			return deleted, err
		}
		entries = entries[n:]
	}
	return deleted, nil
}

// deleteBatch deletes some entries in one write. Only the last request asks for
// an answer, errors are answered always.
func (c *Conn) deleteBatch(entries []Entry) (deleted int, err error) {
	s := &c.change
	if err := s.open(c.options); err != nil {
		return 0, err
	}
	c.request = c.request[:0]
	for i := range entries {
		var flags uint16
		if i == len(entries)-1 {
			flags = unix.NLM_F_ACK
		}
		s.seq++
		c.request.delete(s.seq, flags, &entries[i])
	}
	deleted = len(entries)
	failed, err := s.errors(c.request, func(errno unix.Errno) error {
		deleted--
		switch errno {
		case unix.ENOENT, unix.EBUSY:
			return nil
		}
		return fmt.Errorf("delete conntrack entry: %w", explain(errno))
	})
	if err != nil {
		s.close()
		return 0, fmt.Errorf("delete conntrack entries: %w", err)
	}
	return deleted, failed
}

// errors sends requests up to number s.seq and hands on the errors that answer
// them. It returns the first one that failed finds worth it.
func (s *socket) errors(requests []byte, failed func(unix.Errno) error) (first, err error) {
	if err := s.send(requests); err != nil {
		return nil, err
	}
	for {
		answer, err := s.receive()
		if err != nil {
			return first, err
		}
		for m := range messages(answer) {
			if m.header.Type != unix.NLMSG_ERROR {
				continue
			}
			if errno := m.errno(); errno != 0 {
				if err := failed(errno); first == nil {
					first = err
				}
			}
			if m.header.Seq == s.seq {
				return first, nil
			}
		}
	}
}

// DeleteIf deletes the entries that over says are, of those that pass the filter, while
// it walks. It returns how many it has deleted.
func (c *Conn) DeleteIf(ctx context.Context, f Filter, over func(*Entry) bool) (deleted int, err error) {
	batch := make([]Entry, 0, maxBatch)
	var failed error
	flush := func() {
		var n int
		n, failed = c.Delete(batch...)
		deleted += n
		batch = batch[:0]
	}
	err = c.Walk(ctx, f, func(e *Entry) bool {
		if !over(e) {
			return true
		}
		if batch = append(batch, *e); len(batch) == maxBatch {
			flush()
		}
		return failed == nil
	})
	if failed == nil {
		flush()
	}
	return deleted, errors.Join(err, failed)
}

// Purge deletes the entries that stale says are, by the address that the client
// sent to and the one that answers it: those of a family and a protocol whose
// original destination port is port, or if that is 0, all of them. It returns how
// many it has looked at and how many it has deleted.
//
// An entry in a zone that is not translated is left alone: somebody else tracks
// packets there before we see them, as Open vSwitch does.
func (c *Conn) Purge(ctx context.Context, f nft.Family, p nft.Proto, port uint16, stale func(dst, server netip.AddrPort) bool) (seen, deleted int, err error) {
	deleted, err = c.DeleteIf(ctx, Filter{Family: f, Proto: p, Port: port}, func(e *Entry) bool {
		seen++
		foreign := e.Zone != 0 && e.Status&Translated == 0
		return !foreign && stale(e.Original.Dst, e.Reply.Src)
	})
	return seen, deleted, err
}
