// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Watch calls changed whenever somebody else changes one of our tables, with the
// table's family, until ctx ends. changed must not block. When notifications were
// lost it is called for every family, because nobody can know.
//
// The kernel describes every commit to those who listen, ours too, and that costs
// it time in the commit: listen only once the bulk is programmed. Our own commits
// are filtered out before they reach the socket's buffer.
func (c *Conn) Watch(ctx context.Context, changed func(nft.Family)) error {
	socket, err := dial(c.options)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := socket.SetBPF(notFrom(c.socket.PID())); err != nil {
		return fmt.Errorf("watch nftables: filter: %w", err)
	}
	if err := socket.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	for {
		messages, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			for _, f := range nft.Families {
				changed(f)
			}
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		}
		for _, f := range touched(messages) {
			changed(f)
		}
	}
}

// touched lists the families whose table the notifications are about.
func touched(messages []netlink.Message) []nft.Family {
	var families []nft.Family
	for _, m := range messages {
		if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Header.Type&0xff == unix.NFT_MSG_NEWGEN || len(m.Data) < wire.FamilyLen {
			continue
		}
		// Attribute 1 is the table's name in every kind of notification.
		f := nft.Family(m.Data[0])
		if cstring(wire.First(m.Data[wire.FamilyLen:], unix.NFTA_TABLE_NAME)) != nft.TableName {
			continue
		}
		if len(families) == 0 || families[len(families)-1] != f {
			families = append(families, f)
		}
	}
	return families
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
