// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
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

// open counts the open connections of each virtual service in this namespace, as
// /proc/net/ip_vs_conn has them.
func (v *ipvs) open() (map[Frontend]int, error) {
	udp, err := v.timeoutUDP()
	if err != nil {
		return nil, err
	}
	file, err := os.Open("/proc/thread-self/net/ip_vs_conn")
	if err != nil {
		return nil, explain("list connections of IPVS", err)
	}
	defer file.Close()
	open := make(map[Frontend]int)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if to, ok := parseConnection(lines.Text(), udp); ok {
			open[to]++
		}
	}
	return open, explain("list connections of IPVS", lines.Err())
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
// ip_vs_conn_seq_show), and says where an open connection goes:
//
//	Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires
//	TCP 0AF40005 C5A2 0A600A50 0050 0AF40007 1F90 ESTABLISHED     899
//
// One that is over is not open, nor is a flow of UDP that is silent: its time to expire
// begins anew with each packet. A port 0 is of what persistence remembers.
func parseConnection(line string, udp time.Duration) (to Frontend, open bool) {
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[2] == "0000" {
		return to, false
	}
	protocols := map[string]nft.Proto{"TCP": nft.TCP, "UDP": nft.UDP, "SCTP": nft.SCTP}
	port, err := strconv.ParseUint(fields[4], 16, 16)
	addr, ok := hexAddr(fields[3])
	to = Frontend{Family: nft.FamilyOf(addr), Proto: protocols[fields[0]], Addr: addr, Port: uint16(port)}
	if err != nil || !ok || to.Proto == 0 {
		return to, false
	}
	switch to.Proto {
	case nft.TCP:
		return to, fields[7] != "TIME_WAIT" && fields[7] != "CLOSE"
	case nft.UDP:
		left, err := strconv.Atoi(fields[8])
		return to, err != nil || udp-time.Duration(left)*time.Second < silence
	}
	return to, fields[7] != "CLOSED"
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

// removeIdle removes a service without open connections. Flows of UDP that are silent
// are forgotten by conntrack as well: should one go on, it is a new one, which another
// proxy translates, and not one of IPVS, which would drop it.
func (v *ipvs) removeIdle(ctx context.Context, s *VirtualService) error {
	if err := v.remove(s); err != nil || s.Proto != nft.UDP || s.Inactive+s.Active == 0 {
		return err
	}
	conn, err := conntrack.Open(conntrack.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	var flows []conntrack.Entry
	to := netip.AddrPortFrom(s.Addr, s.Port)
	err = conn.Walk(ctx, conntrack.Filter{Family: s.Family, Proto: nft.UDP, Port: s.Port}, func(e *conntrack.Entry) bool {
		// What another proxy has translated goes on; IPVS changes no destination in
		// conntrack's eyes.
		if e.Original.Dst == to && e.Status&conntrack.Translated == 0 {
			flows = append(flows, *e)
		}
		return true
	})
	if err == nil {
		_, err = conn.Delete(flows...)
	}
	return err
}

// destinationsOf reads again how many connections a service has; false is gone.
func (v *ipvs) destinationsOf(s *VirtualService) (there bool, err error) {
	if err := v.destinations(s); err != nil {
		if isGone(err) {
			return false, nil
		}
		return false, err
	}
	return true, nil
}
