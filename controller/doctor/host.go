// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// Paths of kernel parameters below /proc/sys.
const (
	ParamForward4     = "net/ipv4/ip_forward"
	ParamForward6     = "net/ipv6/conf/all/forwarding"
	ParamConntrackMax = "net/netfilter/nf_conntrack_max"
	ParamConntrackNow = "net/netfilter/nf_conntrack_count"
	ParamBuckets      = "net/netfilter/nf_conntrack_buckets"
	ParamBridge4      = "net/bridge/bridge-nf-call-iptables"
	ParamBridge6      = "net/bridge/bridge-nf-call-ip6tables"
	ParamPortRange    = "net/ipv4/ip_local_port_range"
	ParamReserved     = "net/ipv4/ip_local_reserved_ports"
)

// ParamOf is the path of an interface's parameter: forwarding, rp_filter,
// route_localnet. The interfaces all and default are the kernel's own.
func ParamOf(f nft.Family, device, name string) string {
	family := "ipv4"
	if f == nft.IPv6 {
		family = "ipv6"
	}
	return "net/" + family + "/conf/" + device + "/" + name
}

// sysctl is a parameter as the command names it.
func sysctl(path string) string {
	if strings.Contains(path, ".") { // in an interface's name
		return path
	}
	return strings.ReplaceAll(path, "/", ".")
}

// number is a parameter's value; false if it is not known.
func (f *Facts) number(path string) (int, bool) {
	n, err := strconv.Atoi(f.Params[path])
	return n, err == nil
}

func checkKernel(f *Facts) []Finding {
	if f.Kernel.Lacks == "" {
		return nil
	}
	return []Finding{kernelLacks.at("Linux "+f.Kernel.Release, "%s", f.Kernel.Lacks)}
}

func checkForwarding(f *Facts) (all []Finding) {
	for i := range f.Families {
		family := &f.Families[i]
		path := ParamForward4
		if family.Family == nft.IPv6 {
			path = ParamForward6
		}
		if n, ok := f.number(path); ok && n == 0 {
			all = append(all, forwardingOff.at(sysctl(path), "%s packets are not forwarded: %s is 0", ipName(family.Family), sysctl(path)).
				mend("sysctl -w %s=1", sysctl(path)))
			continue
		}
		if family.Family == nft.IPv6 {
			continue // there it is the value of all that counts (ip6_output.c, ip6_forward)
		}
		for _, device := range f.Interfaces {
			path := ParamOf(family.Family, device.Name, "forwarding")
			if n, ok := f.number(path); !ok || n != 0 || device.Name == "lo" || len(device.Prefixes) == 0 {
				continue
			}
			found := forwardingOff.at(sysctl(path), "%s packets that come in by %s are not forwarded: %s is 0", ipName(family.Family), device.Name, sysctl(path)).
				mend("sysctl -w %s=1", sysctl(path))
			if device.Name != f.Uplinks[family.Family] && !f.leadsToPods(device.Name) {
				found = found.likely() // it may be meant so
			}
			all = append(all, found)
		}
	}
	return all
}

// leadsToPods reports whether packets to an endpoint leave by an interface.
func (f *Facts) leadsToPods(device string) bool {
	for _, r := range f.Routes {
		if r.Out == device && !r.Local {
			return true
		}
	}
	return false
}

func ipName(f nft.Family) string {
	if f == nft.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

func checkConntrack(f *Facts) (all []Finding) {
	most, okMost := f.number(ParamConntrackMax)
	now, okNow := f.number(ParamConntrackNow)
	if okMost && okNow && most > 0 {
		kind := conntrackFilling
		if now*100 >= most*95 {
			kind = conntrackFull
		}
		if now*100 >= most*80 {
			all = append(all, kind.at(sysctl(ParamConntrackMax), "%d of %d connections are tracked", now, most).
				mend("sysctl -w %s=%d", sysctl(ParamConntrackMax), 2*most))
		}
	}
	if buckets, ok := f.number(ParamBuckets); ok && okNow && buckets > 0 && now > 8*buckets {
		all = append(all, conntrackHash.at(sysctl(ParamBuckets), "%d connections are tracked in %d buckets", now, buckets).
			mend("sysctl -w %s=%d", sysctl(ParamBuckets), now/2))
	}
	return all
}

func checkParams(f *Facts) (all []Finding) {
	var local, strict []string
	for _, device := range slices.Concat([]Interface{{Name: "all"}}, f.Interfaces) {
		if n, ok := f.number(ParamOf(nft.IPv4, device.Name, "route_localnet")); ok && n != 0 {
			local = append(local, sysctl(ParamOf(nft.IPv4, device.Name, "route_localnet")))
		}
		// The kernel takes the larger value of the interface's and that of all
		// (inetdevice.h, IN_DEV_MAXCONF).
		own, ok := f.number(ParamOf(nft.IPv4, device.Name, "rp_filter"))
		common, _ := f.number(ParamOf(nft.IPv4, "all", "rp_filter"))
		if ok && device.Name != "all" && device.Name != "lo" && max(own, common) == 1 {
			strict = append(strict, device.Name)
		}
	}
	if len(local) > 0 {
		all = append(all, routeLocalnet.at(local[0], "%s: packets to and from 127.0.0.0/8 are routed", few(local)).
			mend("sysctl -w %s=0", strings.Join(local, "=0 ")))
	}
	if len(strict) > 0 && f.ReversePathDrops > 0 {
		all = append(all, reversePath.at(few(strict), "rp_filter is 1 for %s, and %d packets have been dropped that came in by another interface than answers would take",
			few(strict), f.ReversePathDrops).mend("sysctl -w %s=2", sysctl(ParamOf(nft.IPv4, strict[0], "rp_filter"))).likely())
	}
	return all
}

// checkBridges looks for two pods of this node on one bridge: what they say to each
// other is bridged, and passes netfilter only if it is asked to.
func checkBridges(f *Facts) (all []Finding) {
	for i := range f.Families {
		family := &f.Families[i]
		path := ParamBridge4
		if family.Family == nft.IPv6 {
			path = ParamBridge6
		}
		if n, ok := f.number(path); ok && n != 0 {
			continue
		}
		pods := make(map[string][]netip.Addr)
		for _, a := range family.LocalEndpoints {
			if r, ok := f.Routes[a]; ok && !r.Local {
				pods[r.Out] = append(pods[r.Out], a)
			}
		}
		for _, device := range f.Interfaces {
			if on := pods[device.Name]; device.Bridge && len(on) > 0 {
				state := "is not there"
				if f.Params[path] != "" {
					state = "is 0"
				}
				all = append(all, bridgeNetfilter.at(device.Name, "endpoint %s is on bridge %s, and %s %s", on[0], device.Name, sysctl(path), state).
					mend("modprobe br_netfilter; sysctl -w %s=1", sysctl(path)))
			}
		}
	}
	return all
}
