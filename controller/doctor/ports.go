// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// socket is an address and port of a protocol; node ports have no address.
type socket struct {
	addr  netip.Addr
	proto nft.Proto
	port  uint16
}

// checkListeners looks for processes on addresses and ports of Services. One that
// listens on loopback alone is no matter: node ports are not served there, unless by
// our own relay.
func checkListeners(f *Facts) (all []Finding) {
	services := make(map[socket]string)
	nodes := make(map[netip.Addr]bool)
	for _, family := range f.Families {
		for _, e := range family.Frontends {
			services[socket{e.Addr, e.Proto, e.Port}] = e.Service
		}
		for _, a := range family.NodeAddrs {
			nodes[a] = true
		}
	}
	seen := make(map[string]bool)
	for _, l := range f.Listeners {
		key := socket{l.Addr, l.Proto, l.Port}
		service, ok := services[key] // on a Service's own address
		if !ok && (l.Addr.IsUnspecified() || nodes[l.Addr]) {
			key.addr = netip.Addr{}
			service, ok = services[key]
		}
		object := fmt.Sprintf("%s port %d", l.Proto, l.Port)
		if !ok || seen[object] {
			continue
		}
		seen[object] = true
		who := "a process"
		if l.Process != "" {
			who = l.Process
		}
		what := "the node port"
		if key.addr.IsValid() {
			what = "a frontend"
		}
		all = append(all, nodePortListener.at(object, "%s listens at %s, which is %s of %s", who, netip.AddrPortFrom(l.Addr, l.Port), what, service))
	}
	return all
}

// checkPortRange compares node ports with the range of local ports.
func checkPortRange(f *Facts) []Finding {
	ends := strings.Fields(f.Params[ParamPortRange])
	if len(ends) != 2 {
		return nil
	}
	first, err1 := strconv.Atoi(ends[0])
	last, err2 := strconv.Atoi(ends[1])
	reserved, ok := f.Params[ParamReserved]
	if err1 != nil || err2 != nil || !ok {
		return nil
	}
	var hit []int
	for _, family := range f.Families {
		for _, e := range family.Frontends {
			if p := int(e.Port); !e.Addr.IsValid() && first <= p && p <= last && !within(p, reserved) {
				hit = append(hit, p)
			}
		}
	}
	if len(hit) == 0 {
		return nil
	}
	slices.Sort(hit)
	hit = slices.Compact(hit)
	names := make([]string, len(hit))
	for i, p := range hit {
		names[i] = strconv.Itoa(p)
	}
	add := fmt.Sprintf("%d-%d", hit[0], hit[len(hit)-1])
	if len(hit) == 1 {
		add = names[0]
	}
	if reserved != "" {
		add = reserved + "," + add
	}
	return []Finding{nodePortRange.at(sysctl(ParamPortRange), "node port %s is in %d-%d, from where outgoing connections take their ports", few(names), first, last).
		mend("sysctl -w %s=%s", sysctl(ParamReserved), add)}
}

// within reports whether a list like 8080,30000-32767 has a number.
func within(n int, list string) bool {
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil && first <= n && n <= last {
			return true
		}
	}
	return false
}

// checkAddresses looks for ClusterIPs that mean something else here. NodeLocal
// DNSCache has the addresses of Services on purpose, and kube-proxy's device is its
// leftover.
func checkAddresses(f *Facts) (all []Finding) {
	for _, device := range f.Interfaces {
		if device.Name == "kube-ipvs0" || device.Name == "nodelocaldns" {
			continue
		}
		for _, prefix := range device.Prefixes {
			var hit []string
			for _, family := range f.Families {
				for _, a := range family.ClusterIPs {
					if prefix.Contains(a) {
						hit = append(hit, a.String())
					}
				}
			}
			if len(hit) > 0 {
				all = append(all, addressOverlap.at(device.Name, "interface %s has %s, in which ClusterIP %s is", device.Name, prefix, few(hit)))
			}
		}
	}
	return all
}
