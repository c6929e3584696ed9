// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// watchBuffer holds some ten thousand new entries: the kernel does not wait for us.
const watchBuffer = 8 << 20

// Watch calls began for each connection that the kernel begins to track, until ctx
// ends, and lost whenever there was no room for some of them. The entry is began's
// until it returns.
//
// While somebody listens the kernel describes every new connection of the namespace,
// ours or not, which costs it a microsecond or so each. Where
// net.netfilter.nf_conntrack_events is 0 it tells of none.
func Watch(ctx context.Context, o Options, began func(*Entry), lost func()) error {
	var s socket
	if err := s.open(o); err != nil {
		return err
	}
	defer s.close()
	if err := s.conn.JoinGroup(unix.NFNLGRP_CONNTRACK_NEW); err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			err = explain(errno)
		}
		return fmt.Errorf("watch conntrack: %w", err)
	}
	if err := s.raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, watchBuffer)
		}
	}); err != nil {
		return fmt.Errorf("watch conntrack: %w", err)
	}
	conn := s.conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var e Entry
	for {
		datagram, err := s.read()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case err != nil:
			return fmt.Errorf("watch conntrack: %w", err)
		}
		for m := range messages(datagram) {
			if m.header.Type == messageNew && e.parse(m.body) == nil {
				began(&e)
			}
		}
	}
}
