// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/nft/trace"
)

// traceLookup answers from the kernel's tables as they are now; base chains, which
// every packet meets, are asked for once.
type traceLookup struct {
	conn  *kernel.Conn
	bases map[chainName]foundBase
	err   error // the first one
}

type chainName struct {
	table trace.Table
	chain string
}

type foundBase struct {
	base kernel.BaseChain
	ok   bool
}

func newTraceLookup(conn *kernel.Conn) *traceLookup {
	return &traceLookup{conn: conn, bases: make(map[chainName]foundBase)}
}

func (l *traceLookup) note(err error) {
	if l.err == nil {
		l.err = err
	}
}

// Base implements trace.Lookup.
func (l *traceLookup) Base(t trace.Table, chain string) (hook string, nat, ok bool) {
	name := chainName{t, chain}
	found, known := l.bases[name]
	if !known {
		var err error
		found.base, found.ok, err = l.conn.BaseChain(t, chain)
		l.note(err)
		l.bases[name] = found
	}
	return found.base.Hook, found.base.Type == "nat", found.ok
}

// Rule implements trace.Lookup.
func (l *traceLookup) Rule(t trace.Table, chain string, handle uint64) (comment string, rejects, ok bool) {
	found, ok, err := l.conn.Rule(t, chain, handle)
	l.note(err)
	return found.Comment, found.Rejects, ok
}

// Frontend implements trace.Lookup.
func (l *traceLookup) Frontend(f nft.Family, set nft.Set, key nft.Key) (nft.Element, bool) {
	e, ok, err := l.conn.Frontend(f, set, key)
	l.note(err)
	return e, ok
}

// Slots implements trace.Lookup.
func (l *traceLookup) Slots(f nft.Family, frontend nft.Element) []nft.Element {
	slots, err := l.conn.Slots(f, frontend)
	l.note(err)
	return slots
}

// Device implements trace.Lookup.
func (l *traceLookup) Device(index uint32) string {
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return fmt.Sprintf("device %d", index)
}
