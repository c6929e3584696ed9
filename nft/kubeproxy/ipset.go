// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Of linux/netfilter/ipset/ip_set.h. Version 6 of the protocol is in every kernel.
const (
	ipsets        = unix.NFNL_SUBSYS_IPSET << 8
	ipsetDestroy  = 3
	ipsetList     = 7
	ipsetProtocol = 6

	ipsetAttrProtocol = 1
	ipsetAttrName     = 2
	ipsetAttrType     = 3
	ipsetAttrFlags    = 6
	ipsetAttrData     = 7
	ipsetAttrADT      = 8
	ipsetAttrPort     = 4 // of an element
	ipsetAttrProto    = 7

	ipsetOnlyHeaders = 4 // IPSET_FLAG_LIST_HEADER

	// ipsetReferenced is what the kernel says of a set that a rule asks.
	ipsetReferenced = 4108
)

// nodePort is one that kube-proxy in mode ipvs serves.
type nodePort struct {
	proto nft.Proto
	port  uint16
}

// findSets finds kube-proxy's ipsets, and the node ports in them. Where ipset is not
// loaded there is none, and to ask would load it.
func (s *socket) findSets() (names []string, nodePorts map[nodePort]bool, err error) {
	if _, err := os.Stat("/sys/module/ip_set"); err != nil {
		return nil, nil, nil
	}
	attrs := wire.AppendAttr(nil, ipsetAttrProtocol, ipsetProtocol)
	headers := wire.AppendAttr(slices.Clone(attrs), ipsetAttrFlags|unix.NLA_F_NET_BYTEORDER, 0, 0, 0, ipsetOnlyHeaders)
	ports := make(map[string]nft.Proto)
	begin := func() { names = nil; clear(ports) }
	err = s.list(ipsets|ipsetList, unix.AF_UNSPEC, headers, begin, func(body []byte) {
		name := wire.String(wire.First(body, ipsetAttrName))
		ipv4, ok := setOf(name, wire.String(wire.First(body, ipsetAttrType)))
		if !ok || slices.Contains(names, name) {
			return
		}
		names = append(names, name)
		switch ipv4 {
		case "KUBE-NODE-PORT-TCP":
			ports[name] = nft.TCP
		case "KUBE-NODE-PORT-UDP":
			ports[name] = nft.UDP
		case "KUBE-NODE-PORT-SCTP-HASH":
			ports[name] = nft.SCTP
		}
	})
	if err != nil {
		return nil, nil, explain("list ipsets", err)
	}
	slices.Sort(names)
	nodePorts = make(map[nodePort]bool)
	for name, proto := range ports {
		one := append(slices.Clone(attrs), text(ipsetAttrName, name)...)
		err := s.list(ipsets|ipsetList, unix.AF_UNSPEC, one, func() {}, func(body []byte) {
			for _, e := range wire.Attrs(wire.First(body, ipsetAttrADT)) {
				if port := wire.First(e, ipsetAttrPort); len(port) == 2 {
					nodePorts[nodePort{proto, binary.BigEndian.Uint16(port)}] = true
				}
			}
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, nil, explain("list ipset "+name, err)
		}
	}
	return names, nodePorts, nil
}

// errReferenced says that a rule asks a set.
var errReferenced = errors.New("a rule that is not kube-proxy's asks it; remove that rule first")

// destroySet removes a set; one that is gone is no error. nf_tables lets go of what
// deleted rules have asked a moment after their transaction.
func (s *socket) destroySet(name string) error {
	err := s.tryDestroySet(name)
	for try := 1; errors.Is(err, errReferenced) && try < attempts; try++ {
		time.Sleep(50 * time.Millisecond)
		err = s.tryDestroySet(name)
	}
	return explain("destroy ipset "+name, err)
}

func (s *socket) tryDestroySet(name string) error {
	attrs := append(wire.AppendAttr(nil, ipsetAttrProtocol, ipsetProtocol), text(ipsetAttrName, name)...)
	s.seq++
	if err := s.send(request(nil, ipsets|ipsetDestroy, unix.NLM_F_ACK, s.seq, unix.AF_INET, attrs)); err != nil {
		return err
	}
	_, err := s.entries(func([]byte) {})
	var errno unix.Errno
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.As(err, &errno) && errno == ipsetReferenced:
		return errReferenced
	}
	return err
}
