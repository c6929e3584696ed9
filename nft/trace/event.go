// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Table names a table of any family.
type Table struct {
	Family nft.Family
	Name   string
}

// Families of nftables beside those that have a table of ours (linux/netfilter.h).
const (
	Inet   nft.Family = 1
	ARP    nft.Family = 3
	Netdev nft.Family = 5
	Bridge nft.Family = 7
)

// String returns the table as nft names it.
func (t Table) String() string {
	word := t.Family.String()
	switch t.Family {
	case Inet:
		word = "inet"
	case ARP:
		word = "arp"
	case Netdev:
		word = "netdev"
	case Bridge:
		word = "bridge"
	}
	return word + " " + t.Name
}

// Ours reports whether it is the table of Services.
func (t Table) Ours() bool {
	return t.Name == nft.TableName && (t.Family == nft.IPv4 || t.Family == nft.IPv6)
}

// Type says what an event is about (linux/netfilter/nf_tables.h, enum nft_trace_types).
type Type uint32

// The types of events.
const (
	Policy Type = 1 // a base chain came to its end
	Return Type = 2 // a chain that was jumped to came to its end
	Rule   Type = 3 // a rule matched
)

// Verdict is what a rule or a policy decided.
type Verdict struct {
	Code  int32
	Chain string // of jump and goto
}

// Codes of verdicts (linux/netfilter.h, linux/netfilter/nf_tables.h).
const (
	Drop     = 0
	Accept   = 1
	Stolen   = 2
	Queue    = 3
	Continue = -1
	Jump     = unix.NFT_JUMP
	Goto     = unix.NFT_GOTO
	Returned = unix.NFT_RETURN
)

// queueMask takes the number of a queue off its verdict.
const queueMask = 0xff

// code is the verdict's code without a queue's number.
func (v Verdict) code() int32 {
	if v.Code > 0 {
		return v.Code & queueMask
	}
	return v.Code
}

// String returns the verdict's word in nft text.
func (v Verdict) String() string {
	switch v.code() {
	case Drop:
		return "drop"
	case Accept:
		return "accept"
	case Stolen:
		return "stolen"
	case Queue:
		return "queue"
	case Continue:
		return "continue"
	case Jump:
		return "jump " + v.Chain
	case Goto:
		return "goto " + v.Chain
	case Returned:
		return "return"
	}
	return fmt.Sprintf("verdict(%d)", v.Code)
}

// Event is one thing that the kernel tells of a traced packet.
type Event struct {
	// ID is the same in all events of a packet, on its way from one device to the
	// next; a packet to this host from itself has another one on its way in.
	ID    uint32
	Time  time.Time // when it was received
	Table Table
	Chain string
	Rule  uint64 // the rule's handle; 0 if none decided
	Type  Type
	// Verdict is what was decided.
	Verdict Verdict
	Mark    uint32
	// In and Out are indexes of devices; 0 is none.
	In, Out uint32
	// Header is the packet as it was. Only the first event of a base chain has it, and In
	// and Out.
	Header *Header
}

// Decode reads the body of a message, which begins with the family (NFT_MSG_TRACE;
// nf_tables_trace.c, nft_trace_notify).
func Decode(body []byte) (Event, error) {
	if len(body) < wire.FamilyLen {
		return Event{}, fmt.Errorf("trace message of %d bytes", len(body))
	}
	e := Event{Table: Table{Family: nft.Family(body[0])}, Verdict: Verdict{Code: Continue}}
	var network, transport []byte
	for typ, v := range wire.Attrs(body[wire.FamilyLen:]) {
		switch typ {
		case unix.NFTA_TRACE_TABLE:
			e.Table.Name = text(v)
		case unix.NFTA_TRACE_CHAIN:
			e.Chain = text(v)
		case unix.NFTA_TRACE_RULE_HANDLE:
			e.Rule = number(v)
		case unix.NFTA_TRACE_TYPE:
			e.Type = Type(number(v))
		case unix.NFTA_TRACE_ID:
			e.ID = uint32(number(v))
		case unix.NFTA_TRACE_VERDICT:
			e.Verdict.Code = int32(number(wire.First(v, unix.NFTA_VERDICT_CODE)))
			e.Verdict.Chain = text(wire.First(v, unix.NFTA_VERDICT_CHAIN))
		case unix.NFTA_TRACE_POLICY:
			e.Verdict.Code = int32(number(v))
		case unix.NFTA_TRACE_MARK:
			e.Mark = uint32(number(v))
		case unix.NFTA_TRACE_IIF:
			e.In = uint32(number(v))
		case unix.NFTA_TRACE_OIF:
			e.Out = uint32(number(v))
		case unix.NFTA_TRACE_NETWORK_HEADER:
			network = v
		case unix.NFTA_TRACE_TRANSPORT_HEADER:
			transport = v
		}
	}
	if h, ok := ParseHeader(network, transport); ok {
		e.Header = &h
	}
	return e, nil
}

// number reads a number in network byte order.
func number(b []byte) uint64 {
	switch len(b) {
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	case 8:
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
