// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/trace"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Attributes and flags that golang.org/x/sys/unix lacks.
const (
	nftaTableOwner = 7
	nftTableOwner  = 0x2
)

// traceBuffer holds what the kernel tells of some thousand packets: it does not
// wait for us.
const traceBuffer = 16 << 20

// Tracer hears what the kernel tells of packets that a table of its own has it
// follow. The table is gone when the tracer is closed, or the process ends. One
// goroutine at a time may use it.
type Tracer struct {
	conn   *Conn
	socket *netlink.Conn
	raw    syscall.RawConn // of the socket
}

// Trace makes the table trace.OwnTable and listens. It is the one place where we
// make anything beside our tables; its owner is the socket (since Linux 5.12), so
// that the kernel deletes it when the socket is closed. There may be one trace in
// a network namespace: ErrTraced says that there is another one.
func Trace(o Options, f trace.Filter) (*Tracer, error) {
	conn, err := Open(o)
	if err != nil {
		return nil, err
	}
	t := &Tracer{conn: conn}
	// Nothing must be told before somebody listens.
	if t.socket, err = dial(o); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if err := t.listen(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if err := t.make(f); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Close ends the trace, and with it the table.
func (t *Tracer) Close() error {
	err := t.conn.Close()
	if t.socket != nil {
		err = errors.Join(err, t.socket.Close())
	}
	return err
}

func (t *Tracer) listen() error {
	var err error
	if t.raw, err = t.socket.SyscallConn(); err != nil {
		return fmt.Errorf("trace packets: %w", err)
	}
	listener := Conn{raw: t.raw}
	if err := listener.setBuffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, traceBuffer); err != nil {
		return fmt.Errorf("trace packets: %w", err)
	}
	switch err := t.socket.JoinGroup(unix.NFNLGRP_NFTRACE); {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("trace packets: needs CAP_NET_ADMIN, run as root: %w", fs.ErrPermission)
	case err != nil:
		return fmt.Errorf("trace packets: %w", err)
	}
	return nil
}

// make makes the table, in one transaction.
func (t *Tracer) make(f trace.Filter) error {
	c := t.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if owner, exists, err := c.traced(); err != nil {
		return err
	} else if exists {
		return fmt.Errorf("%w: table %s is there, and belongs to the socket with number %d, mostly the process of that number",
			ErrTraced, trace.OwnTable, owner)
	}
	create := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	b := &c.batch
	b.reset(trace.TableName)
	table := b.message(unix.NFT_MSG_NEWTABLE, trace.Inet, create)
	b.u32(unix.NFTA_TABLE_FLAGS, nftTableOwner)
	b.close(table)
	for _, chain := range f.Chains() {
		if err := b.traceChain(chain); err != nil {
			return err
		}
	}
	err := c.commit()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("%w: a trace needs Linux 5.12 or later, and CONFIG_NF_TABLES_INET: %w", ErrUnsupported, err)
	}
	return err
}

// traced reports whether there is a trace, and the socket that it belongs to.
func (c *Conn) traced() (owner uint32, exists bool, err error) {
	c.batch.clear(trace.TableName)
	c.batch.message(unix.NFT_MSG_GETTABLE, trace.Inet, 0)
	err = c.ask(func(body []byte) error {
		owner, exists = wire.U32(wire.First(body, nftaTableOwner)), true
		return nil
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return 0, false, nil
	}
	return owner, exists, err
}

func (b *batch) traceChain(c trace.Chain) error {
	m := b.message(unix.NFT_MSG_NEWCHAIN, trace.Inet, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.str(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Base != nil {
		b.hook(nft.Hook{Type: "filter", Number: c.Base.Number, Priority: c.Base.Priority})
	}
	b.close(m)
	for _, r := range c.Rules {
		m := b.message(unix.NFT_MSG_NEWRULE, trace.Inet, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
		b.str(unix.NFTA_RULE_CHAIN, c.Name)
		if err := b.expressions(trace.Inet, r); err != nil {
			return fmt.Errorf("chain %s: rule %q: %w", c.Name, r.Text, err)
		}
		b.close(m)
	}
	return nil
}

// Waiting reports whether events wait to be received, and need not be waited for.
func (t *Tracer) Waiting() (waiting bool, err error) {
	controlErr := t.raw.Control(func(fd uintptr) {
		var n int
		if n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); errors.Is(err, unix.EINTR) {
			n, err = 0, nil
		}
		waiting = n > 0
	})
	if err = cmp.Or(controlErr, err); err != nil {
		return false, fmt.Errorf("trace packets: %w", err)
	}
	return waiting, nil
}

// Receive waits for events and hands each of them to f, until the time until has
// come or ctx ends; once it has come, also those that wait are left. lost reports
// that the kernel had no room for some.
func (t *Tracer) Receive(ctx context.Context, until time.Time, f func(trace.Event)) (lost bool, err error) {
	if err := t.socket.SetReadDeadline(until); err != nil {
		return false, fmt.Errorf("trace packets: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = t.socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	messages, err := t.socket.Receive()
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("trace packets: %w", err)
	}
	now := time.Now()
	for _, m := range messages {
		if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE {
			continue
		}
		e, err := trace.Decode(m.Data)
		if err != nil {
			return false, fmt.Errorf("trace packets: %w", err)
		}
		e.Time = now
		f(e)
	}
	return false, nil
}
