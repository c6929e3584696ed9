// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Alone has a node carry one Service by IPVS as nobody runs it in Kubernetes: by hand,
// with nothing beside it that looks at packets, and without conntrack, which network
// policies and masquerading want. It is what IPVS itself costs.
func Alone(node *netlab.Namespace, service netip.AddrPort, endpoints ...netip.AddrPort) error {
	// Packets for a Service go through IPVS where they would be the node's own.
	err := node.IP("link add ipvs type dummy", "link set ipvs up", fmt.Sprintf("addr add %s/32 dev ipvs", service.Addr()))
	if err != nil {
		return err
	}
	if _, err := node.Run("sysctl", "-qw", "net.ipv4.vs.conntrack=0"); err != nil {
		return err
	}
	if err := ipvsadm(node, aloneLines(service, endpoints)); err != nil {
		return fmt.Errorf("set up IPVS: %w", err)
	}
	return nil
}

// aloneLines are as ipvsadm saves a service: round robin, with translation.
func aloneLines(service netip.AddrPort, endpoints []netip.AddrPort) []string {
	lines := []string{fmt.Sprintf("-A -t %s -s rr", service)}
	for _, e := range endpoints {
		lines = append(lines, fmt.Sprintf("-a -t %s -r %s -m -w 1", service, e))
	}
	return lines
}

// ipvsadm has the lines restored in a namespace.
func ipvsadm(node *netlab.Namespace, lines []string) error {
	cmd := node.Command(context.Background(), "ipvsadm", "-R")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ipvsadm: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
