// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// proxyAlone is IPVS as nobody runs it in Kubernetes: set up by hand for one Service,
// with nothing beside it that looks at packets, and without conntrack, which policies
// and masquerading want. It is what IPVS itself costs.
const proxyAlone = "ipvs-alone"

// hasIPVS reports whether this kernel and this machine can do that.
func hasIPVS() bool {
	_, kernel := os.Stat("/proc/net/ip_vs")
	_, program := exec.LookPath("ipvsadm")
	return kernel == nil && program == nil
}

// addAlone adds the place of it, if there can be one.
func (g *ground) addAlone(ctx context.Context) (err error) {
	if !hasIPVS() {
		return nil
	}
	if g.alone, err = g.place(ctx, proxyAlone); err != nil {
		return err
	}
	g.alone.meter.lane.Untracked = true
	first, n := g.shape.EndpointsOf(0)
	var endpoints []netip.AddrPort
	for i := range n {
		endpoints = append(endpoints, netip.AddrPortFrom(shape.Endpoint(first+i), shape.TargetPort))
	}
	return setUpIPVS(g.alone.node.Router, g.shape.Frontend(0), endpoints)
}

// alongside adds it to a trial of one Service.
func (g *ground) alongside(t trial) trial {
	if g.alone != nil {
		t.lanes = append(t.lanes, contender{proxyAlone, g.alone.meter, always(g.shape.Frontend(0))})
	}
	return t
}

// setUpIPVS has a node carry one Service. Packets for it go through IPVS where they
// would be the node's own, so the address is.
func setUpIPVS(node *netlab.Namespace, service netip.AddrPort, endpoints []netip.AddrPort) error {
	err := node.IP("link add ipvs type dummy", "link set ipvs up", fmt.Sprintf("addr add %s/32 dev ipvs", service.Addr()))
	if err != nil {
		return err
	}
	if _, err := node.Run("sysctl", "-qw", "net.ipv4.vs.conntrack=0"); err != nil {
		return err
	}
	cmd := node.Command(context.Background(), "ipvsadm", "-R")
	cmd.Stdin = strings.NewReader(saved(service, endpoints))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ipvsadm: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// saved is a service as ipvsadm saves it: round robin, with translation.
func saved(service netip.AddrPort, endpoints []netip.AddrPort) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-A -t %s -s rr\n", service)
	for _, e := range endpoints {
		fmt.Fprintf(&b, "-a -t %s -r %s -m -w 1\n", service, e)
	}
	return b.String()
}
