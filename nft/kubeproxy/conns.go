// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/conntrack"
	"github.com/kube-nft/kube-nft/nft/wire"
)

const (
	ipvsGetConfig  = 13
	ipvsTimeoutUDP = 6
	// silence is after how long a flow of UDP counts as over.
	silence = 30 * time.Second
)

// connection is one that IPVS knows.
type connection struct {
	client netip.AddrPort
	to     Frontend
}

// open counts the connections that end with each of services: those of IPVS that are
// open, and see handOver.
func (v *ipvs) open(ctx context.Context, services []VirtualService) (map[Frontend]int, error) {
	conns, err := v.connections()
	if err != nil {
		return nil, err
	}
	if err := handOver(ctx, services, conns); err != nil {
		return nil, err
	}
	open := make(map[Frontend]int)
	for c, needed := range conns {
		if needed {
			open[c.to]++
		}
	}
	return open, nil
}

// handOver changes which of IPVS's connections are open to what conntrack knows better.
// A client that uses a port again to which IPVS still has a connection that is over gets
// a new one from another proxy; but IPVS takes the answers of the same endpoint for those
// of its own (ip_vs_core.c, ip_vs_out_hook), and so its connection lives again: on a busy
// node there is always one. It is needed as long as the new one is open: with its own
// connection IPVS ends whatever conntrack has of the same addresses and ports
// (ip_vs_nfct.c, ip_vs_conn_drop_conntrack). To a flow of UDP that means another endpoint
// at worst.
//
// Flows of UDP to services that are over are forgotten by conntrack: should one go on, it
// is a new one, which another proxy translates. Else it would be for IPVS again.
func handOver(ctx context.Context, services []VirtualService, conns map[connection]bool) error {
	return forget(ctx, services, func(c connection, e *conntrack.Entry) bool {
		open, known := conns[c]
		udp, translated := c.to.Proto == nft.UDP, e.Status&conntrack.Translated != 0
		switch {
		case udp && !translated:
			return !open
		case known && (translated || e.Open()):
			conns[c] = e.Open() && !udp
		}
		return false
	})
}

// connections returns those that IPVS knows in this namespace, and which it takes for
// open.
func (v *ipvs) connections() (map[connection]bool, error) {
	udp, err := v.timeoutUDP()
	if err != nil {
		return nil, err
	}
	file, err := os.Open("/proc/thread-self/net/ip_vs_conn")
	if err != nil {
		return nil, explain("list connections of IPVS", err)
	}
	defer file.Close()
	conns := make(map[connection]bool)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if c, open, ok := parseConnection(lines.Text(), udp); ok {
			conns[c] = open
		}
	}
	return conns, explain("list connections of IPVS", lines.Err())
}

// forget deletes from conntrack those of the connections to services that over names.
// One is translated if another proxy carries it: IPVS changes no destination in
// conntrack's eyes. What is in a zone is somebody else's.
func forget(ctx context.Context, services []VirtualService, over func(c connection, e *conntrack.Entry) bool) error {
	ours, filters := make(map[Frontend]bool), make(map[conntrack.Filter]bool)
	for _, s := range services {
		ours[s.Frontend] = true
		filters[conntrack.Filter{Family: s.Family, Proto: s.Proto}] = true
	}
	conn, err := conntrack.Open(conntrack.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	for filter := range filters {
		if _, err := conn.DeleteIf(ctx, filter, func(e *conntrack.Entry) bool {
			dst := e.Original.Dst
			c := connection{e.Original.Src, Frontend{e.Family, e.Proto, dst.Addr(), dst.Port()}}
			return e.Zone == 0 && e.Original.Zone == 0 && ours[c.to] && over(c, e)
		}); err != nil {
			return err
		}
	}
	return nil
}

// timeoutUDP is how long IPVS keeps a flow of UDP.
func (v *ipvs) timeoutUDP() (time.Duration, error) {
	bodies, err := v.execute(ipvsGetConfig, 0, nil)
	if err != nil {
		return 0, explain("read timeouts of IPVS", err)
	}
	for _, body := range bodies {
		if t := wire.First(body, ipvsTimeoutUDP); len(t) == 4 {
			return time.Duration(binary.NativeEndian.Uint32(t)) * time.Second, nil
		}
	}
	return 5 * time.Minute, nil // a kernel without UDP in IPVS
}

// parseConnection reads a line of /proc/net/ip_vs_conn (ip_vs_conn.c,
// ip_vs_conn_seq_show), and says whether the connection is open:
//
//	Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires
//	TCP 0AF40005 C5A2 0A600A50 0050 0AF40007 1F90 ESTABLISHED     899
//
// One that is over is not open, nor is a flow of UDP that is silent: its time to expire
// begins anew with each packet. A connection of TCP is in SYN_SENT when IPVS has met an
// endpoint's answers alone, which are another's (see handOver). A port 0 is of what
// persistence remembers.
func parseConnection(line string, udp time.Duration) (c connection, open, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[2] == "0000" {
		return c, false, false
	}
	protocols := map[string]nft.Proto{"TCP": nft.TCP, "UDP": nft.UDP, "SCTP": nft.SCTP}
	client, known := hexAddrPort(fields[1], fields[2])
	to, ok := hexAddrPort(fields[3], fields[4])
	c = connection{client, Frontend{
		Family: nft.FamilyOf(to.Addr()), Proto: protocols[fields[0]], Addr: to.Addr(), Port: to.Port(),
	}}
	if !known || !ok || c.to.Proto == 0 {
		return c, false, false
	}
	switch c.to.Proto {
	case nft.TCP:
		open = !slices.Contains([]string{"TIME_WAIT", "CLOSE", "SYN_SENT"}, fields[7])
	case nft.UDP:
		left, err := strconv.Atoi(fields[8])
		open = err != nil || udp-time.Duration(left)*time.Second < silence
	default:
		open = fields[7] != "CLOSED"
	}
	return c, open, true
}

// hexAddrPort reads an address and a port as /proc/net/ip_vs_conn writes them.
func hexAddrPort(addr, port string) (netip.AddrPort, bool) {
	a, ok := hexAddr(addr)
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(a, uint16(n)), ok && err == nil
}

// hexAddr reads an address as /proc/net/ip_vs_conn writes it: eight digits, or the long
// form of IPv6.
func hexAddr(s string) (netip.Addr, bool) {
	if strings.Contains(s, ":") {
		a, err := netip.ParseAddr(s)
		return a, err == nil
	}
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || len(s) != 8 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(n)))), true
}
