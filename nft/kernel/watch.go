// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// Watch calls changed for each transaction of somebody else that touched our tables,
// until ctx ends, and listening once it hears of them. Neither must block. When
// notifications were lost it says so, because nobody can know what they were.
//
// What it hears of is what transactions say. What the kernel does by itself it keeps
// to itself: entries that the packet path learns, and those that expire.
//
// The kernel describes every commit to those who listen, ours too, and that costs
// it time in the commit: listen only once the bulk is programmed. Our own commits
// are filtered out before they reach the socket's buffer.
func (c *Conn) Watch(ctx context.Context, listening func(), changed func(nft.Foreign)) error {
	w, err := Open(c.options)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.socket.SetBPF(notFrom(c.socket.PID())); err != nil {
		return fmt.Errorf("watch nftables: filter: %w", err)
	}
	if err := w.socket.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer stop()
	listening()
	var heard hearing
	for {
		err := w.receive(true, func(h header, body []byte) bool {
			if f, ok := heard.message(h, body); ok {
				changed(f)
			}
			return true
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrUnknown): // ENOBUFS
			heard = hearing{}
			changed(nft.Foreign{Lost: true})
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		}
	}
}

// notFrom is a socket filter that drops notifications caused by a port: all
// messages of one datagram belong to one commit, whose origin is in nlmsg_pid.
// The filter loads in network byte order, the field is in the host's.
func notFrom(port uint32) []bpf.RawInstruction {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		port = bits.ReverseBytes32(port)
	}
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: port, SkipTrue: 1},
		bpf.RetConstant{Val: 1<<32 - 1},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // a constant program
	}
	return program
}
