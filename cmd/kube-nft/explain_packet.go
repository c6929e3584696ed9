// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// packetReport is what explain says of a packet.
type packetReport struct {
	explain.Explanation
	KubeNFT informant `json:"kubeNFT"`
	// Candidates are all endpoints of the Service port that the packet met.
	Candidates []candidate `json:"candidates,omitempty"`
	// Claims are those to the destination, where a Service does not have what it claims.
	Claims []explain.FrontendClaim `json:"claims,omitempty"`
	// Others is what tables of others do to it.
	Others []other `json:"others,omitempty"`
	// Drift is in what the kernel differs from what kube-nft wants.
	Drift []string `json:"drift,omitempty"`
	Notes []string `json:"notes,omitempty"`
}

// candidate is an endpoint of a Service port, whether or not it is in the kernel.
type candidate struct {
	Endpoint netip.AddrPort `json:"endpoint"`
	// In: the kernel sends packets there. Share is how many of those that are like this
	// one.
	In     bool    `json:"in"`
	Share  float64 `json:"share,omitempty"`
	Why    string  `json:"reason,omitempty"`
	Here   bool    `json:"thisNode,omitempty"`
	Wanted bool    `json:"wanted"`
}

func (o *explainOptions) explainPacket(ctx context.Context, w io.Writer, conn *kernel.Conn, p explain.Packet) error {
	table, err := openTable(ctx, conn, nft.FamilyOf(p.Destination.Addr()))
	if err != nil {
		return noTable(err)
	}
	host, err := newHost()
	if err != nil {
		return err
	}
	r := packetReport{Explanation: explain.Walk(table, host, p)}
	if r.KubeNFT, err = o.informant(ctx); err != nil {
		return err
	}
	if table.fault != nil {
		r.Notes = append(r.Notes, "somebody has changed the table, so packets may fare otherwise: "+table.fault.Error())
	}
	if p.Destination.Addr().IsLoopback() {
		r.Notes = append(r.Notes, "the table serves nothing on loopback; with --localhost-nodeports kube-nft itself accepts there, and connects to an endpoint")
	}
	if err := r.inform(table); err != nil {
		return err
	}
	if table.err != nil {
		return fmt.Errorf("read the table: %w", table.err)
	}
	if err := r.others(ctx); err != nil {
		return err
	}
	return o.write(w, r, r.text)
}

// inform adds what kube-nft knows of the Service that the packet met, or did not meet.
func (r *packetReport) inform(table *kernelTable) error {
	for _, e := range r.Ends {
		r.Candidates = append(r.Candidates, candidate{Endpoint: e.Endpoint, In: true, Share: e.Share, Wanted: true})
	}
	if r.KubeNFT.service == nil {
		return nil
	}
	at, err := r.KubeNFT.frontend(r.Packet.Destination, r.Packet.Protocol)
	if err != nil {
		return err
	}
	r.claimed(at)
	if r.Frontend == "" {
		return nil
	}
	s, err := r.KubeNFT.service(nameOf(r.Frontend))
	if err != nil {
		return err
	}
	port, frontend := portOf(s, table.family, r.Packet)
	if port == nil {
		r.Drift = append(r.Drift, fmt.Sprintf("only in the kernel: the table leads to %s, and kube-nft knows no such port", r.Frontend))
		return nil
	}
	if frontend.Kind == "cluster IP" {
		r.Policy = s.InternalPolicy
	}
	r.judge(port)
	drift, err := driftOf(table, s, *port, *frontend)
	r.Drift = append(r.Drift, drift...)
	return err
}

// claimed says who claims the destination and does not have it, and who has it if the
// packet did not come so far.
func (r *packetReport) claimed(at explain.Frontend) {
	if slices.ContainsFunc(at.Claims, func(c explain.FrontendClaim) bool { return !c.Granted }) {
		r.Claims = at.Claims
	}
	granted := slices.IndexFunc(at.Claims, func(c explain.FrontendClaim) bool { return c.Granted })
	switch {
	case r.Frontend != "":
	case granted >= 0 && !at.NodePort:
		// It was dropped before, or is not in the kernel, which comparing will tell.
		if r.Frontend = at.Claims[granted].Service; at.Claims[granted].Port != "" {
			r.Frontend += ":" + at.Claims[granted].Port
		}
	case granted >= 0:
		r.Notes = append(r.Notes, fmt.Sprintf("%d is a node port of Service %s, but node ports are not served on %s (--nodeport-addresses)", r.Packet.Destination.Port(), at.Claims[granted].Service, r.Packet.Destination.Addr()))
	case len(at.Services) > 0 && len(at.Claims) == 0:
		r.Notes = append(r.Notes, fmt.Sprintf("the address is one of Service %s, which has no port %d/%s", at.Services[0], r.Packet.Destination.Port(), r.Protocol))
	}
}

// portOf finds the port of a Service that has what the packet was sent to.
func portOf(s explain.Service, f nft.Family, p explain.Packet) (*explain.ServicePort, *explain.PortFrontend) {
	for i := range s.Ports {
		port := &s.Ports[i]
		if port.Family != f.String() || port.Protocol != p.Protocol.String() {
			continue
		}
		for j := range port.Frontends {
			at := &port.Frontends[j]
			nodePort := !at.Address.IsValid()
			if at.Port == p.Destination.Port() && (nodePort || at.Address == p.Destination.Addr()) && at.Granted {
				return port, at
			}
		}
	}
	return nil, nil
}

// judge says of each endpoint why it is in or out.
func (r *packetReport) judge(port *explain.ServicePort) {
	known := make(map[netip.AddrPort]bool)
	for _, e := range port.Endpoints {
		known[e.Address] = true
		v := e.Cluster
		if r.Policy == "Local" {
			v = e.Local
		}
		i := slices.IndexFunc(r.Candidates, func(c candidate) bool { return c.Endpoint == e.Address })
		if i < 0 {
			r.Candidates = append(r.Candidates, candidate{Endpoint: e.Address})
			i = len(r.Candidates) - 1
		}
		c := &r.Candidates[i]
		c.Why, c.Here, c.Wanted = v.Why+hinted(e, v), e.Here, v.In
		if r.Remembered != nil && !c.In && v.In {
			c.Why += ", but the client is remembered at another one"
		}
	}
	for i := range r.Candidates {
		if c := &r.Candidates[i]; !known[c.Endpoint] {
			c.Why, c.Wanted = "no EndpointSlice has it", false
		}
	}
}

// hinted adds whom an endpoint is meant for.
func hinted(e explain.Endpoint, v explain.Verdict) string {
	if !v.In && len(e.ZoneHints) > 0 && !e.NodeHints {
		return fmt.Sprintf(" (%v)", e.ZoneHints)
	}
	return ""
}
