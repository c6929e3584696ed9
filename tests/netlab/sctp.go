// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Chunk and parameter types, RFC 9260 sections 3.2 and 3.3.
const (
	chunkInit    = 1
	chunkInitAck = 2
	chunkAbort   = 6
	paramCookie  = 7
)

// Lengths in bytes: the common header, and the fixed part of INIT and INIT ACK
// with its chunk header.
const (
	sctpHeaderLen = 12
	initLen       = 20
)

// sctpPacket is a packet with one chunk. Connection tracking takes the ports
// and the tags from it, and drops it if the checksum or the lengths are wrong.
type sctpPacket struct {
	src, dst uint16
	tag      uint32 // verification tag: the one that the receiver initiated
	chunk    uint8
	initTag  uint32 // INIT and INIT ACK: the tag that the sender initiates
	cookie   string // INIT ACK: the answer
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// marshal encodes an INIT or INIT ACK.
func (p sctpPacket) marshal() []byte {
	be := binary.BigEndian
	b := make([]byte, 0, 128)
	b = be.AppendUint16(b, p.src)
	b = be.AppendUint16(b, p.dst)
	b = be.AppendUint32(b, p.tag)
	b = be.AppendUint32(b, 0) // checksum

	length := initLen
	if p.cookie != "" {
		length += 4 + len(p.cookie)
	}
	b = append(b, p.chunk, 0)
	b = be.AppendUint16(b, uint16(length))
	b = be.AppendUint32(b, p.initTag)
	b = be.AppendUint32(b, 65536) // receiver window
	b = be.AppendUint16(b, 1)     // streams out
	b = be.AppendUint16(b, 1)     // streams in
	b = be.AppendUint32(b, p.initTag)
	if p.cookie != "" {
		b = be.AppendUint16(b, paramCookie)
		b = be.AppendUint16(b, uint16(4+len(p.cookie)))
		b = append(b, p.cookie...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	// The bytes of the checksum are in the reverse order of all others.
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// unmarshal decodes the first chunk of a packet and verifies the checksum.
func (p *sctpPacket) unmarshal(b []byte) error {
	be := binary.BigEndian
	if len(b) < sctpHeaderLen+4 {
		return fmt.Errorf("sctp packet of %d bytes", len(b))
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	clear(b[8:12])
	if want := crc32.Checksum(b, castagnoli); sum != want {
		return fmt.Errorf("sctp checksum %#x, want %#x", sum, want)
	}
	*p = sctpPacket{src: be.Uint16(b), dst: be.Uint16(b[2:]), tag: be.Uint32(b[4:])}
	chunk := b[sctpHeaderLen:]
	p.chunk = chunk[0]
	length := int(be.Uint16(chunk[2:]))
	if length < 4 || length > len(chunk) {
		return fmt.Errorf("sctp chunk of %d bytes in %d", length, len(chunk))
	}
	if p.chunk != chunkInit && p.chunk != chunkInitAck {
		return nil
	}
	if length < initLen {
		return fmt.Errorf("sctp init chunk of %d bytes", length)
	}
	p.initTag = be.Uint32(chunk[4:])
	if param := chunk[initLen:length]; len(param) >= 4 && be.Uint16(param) == paramCookie {
		if n := int(be.Uint16(param[2:])); n >= 4 && n <= len(param) {
			p.cookie = string(param[4:n])
		}
	}
	return nil
}

// receiveSCTP answers INIT chunks to the port of the server until the socket
// is closed. The kernel gives a raw socket all SCTP packets to its address, so
// a port without a server at an address that has another one stays silent.
func (s *Server) receiveSCTP(c *net.IPConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromIP(buf) // without the IPv4 header
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var p sctpPacket
		if err != nil || p.unmarshal(buf[:n]) != nil || p.chunk != chunkInit || p.dst != s.addr.Port() {
			continue
		}
		addr, _ := netip.AddrFromSlice(from.IP)
		source := netip.AddrPortFrom(addr.Unmap(), p.src)
		reply := sctpPacket{
			src: p.dst, dst: p.src, tag: p.initTag,
			chunk: chunkInitAck, initTag: newTag(), cookie: line(s.name, source),
		}
		s.count.Add(1)
		// A client that has gone is no concern of the server.
		_, _ = c.WriteToIP(reply.marshal(), from)
	}
}

// An association is the client's half of a handshake over a raw socket that is
// connected to the address of the server.
type association struct {
	conn     *net.IPConn
	src, dst uint16
}

// sctpPort counts through the ephemeral ports: nobody else hands them out.
var sctpPort atomic.Uint32

func newAssociation(c *net.IPConn, src, dst uint16) *association {
	if src == 0 {
		src = uint16(32768 + sctpPort.Add(1)%28232)
	}
	return &association{conn: c, src: src, dst: dst}
}

// exchange sends an INIT and returns the cookie of the INIT ACK.
func (a *association) exchange() (string, error) {
	request := sctpPacket{src: a.src, dst: a.dst, chunk: chunkInit, initTag: newTag()}
	for tries := 1; ; tries++ {
		_, err := a.conn.Write(request.marshal())
		if err == nil {
			break
		}
		// What this host itself says of the packet is in no queue, but comes each time.
		if a.concerns(err) || tries == 3 {
			return "", err
		}
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := a.conn.ReadFromIP(buf)
		if err != nil {
			if a.concerns(err) {
				return "", err
			}
			continue
		}
		var p sctpPacket
		if p.unmarshal(buf[:n]) != nil || p.src != a.dst || p.dst != a.src || p.tag != request.initTag {
			continue // to another association of the same two hosts
		}
		switch p.chunk {
		case chunkInitAck:
			return p.cookie, nil
		case chunkAbort:
			return "", unix.ECONNREFUSED
		}
	}
}

// concerns reports whether an error of the socket is about this association.
// An ICMP error is delivered to all raw sockets of the same two hosts, but the
// error queue shows the packet that caused it. It is there before the error is, so
// that it may have been read on account of an earlier one: then it was another's.
func (a *association) concerns(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return true // a deadline or a closed socket
	}
	raw, rerr := a.conn.SyscallConn()
	if rerr != nil {
		return true
	}
	mine := false
	buf := make([]byte, 1500)
	rerr = raw.Control(func(fd uintptr) {
		for {
			n, _, _, _, err := unix.Recvmsg(int(fd), buf, nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			mine = mine || n >= 2 && binary.BigEndian.Uint16(buf) == a.src
		}
	})
	return rerr != nil || mine
}

// newTag returns an initiate tag, which is never 0.
func newTag() uint32 { return rand.Uint32N(1<<32-1) + 1 }
