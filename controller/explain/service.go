// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// Service is what kube-nft knows of a Service: what it claims, and what becomes of each
// endpoint of its EndpointSlices. It is also the answer of the control socket, so that
// its field names are kept.
type Service struct {
	Name string `json:"name"`
	// Known: there is a Service of this name that this kube-nft serves. Slices counts
	// its EndpointSlices, which there may be without it.
	Known  bool `json:"known"`
	Slices int  `json:"endpointSlices"`
	// Zone is this node's, "" if it has none.
	Zone           string `json:"zone,omitempty"`
	InternalPolicy string `json:"internalTrafficPolicy,omitempty"`
	ExternalPolicy string `json:"externalTrafficPolicy,omitempty"`
	// Affinity is how long clients are remembered, in seconds; 0 is not at all.
	Affinity            int            `json:"sessionAffinitySeconds,omitempty"`
	HealthCheckNodePort int            `json:"healthCheckNodePort,omitempty"`
	SourceRanges        []netip.Prefix `json:"loadBalancerSourceRanges,omitempty"`
	// Doubt is what the Service does that its owner may not mean.
	Doubt string        `json:"doubt,omitempty"`
	Ports []ServicePort `json:"ports,omitempty"`
}

// ServicePort is one port of a Service in one family.
type ServicePort struct {
	Name      string         `json:"name,omitempty"`
	Protocol  string         `json:"protocol"` // tcp, udp or sctp
	Family    string         `json:"family"`   // ip or ip6
	Frontends []PortFrontend `json:"frontends,omitempty"`
	Endpoints []Endpoint     `json:"endpoints,omitempty"`
}

// PortFrontend is an address and port that a Service claims, or a node port.
type PortFrontend struct {
	Address netip.Addr `json:"address,omitzero"` // none of a node port
	Port    uint16     `json:"port"`
	Kind    string     `json:"kind"` // as compile.Kind says it
	// Granted: the Service has it. Winner is who has it instead.
	Granted bool   `json:"granted"`
	Winner  string `json:"winner,omitempty"`
	// Wanted is what the table should hold for it, as nft text without the slots:
	// which endpoint has which is arbitrary.
	Wanted []string `json:"wanted,omitempty"`
	// Leads are the endpoints that it should lead to, by the set that holds them.
	Leads map[string][]netip.AddrPort `json:"leads,omitempty"`
}

// Endpoint is an endpoint of a Service port, as its EndpointSlices have it.
type Endpoint struct {
	Address     netip.AddrPort `json:"address"`
	Ready       bool           `json:"ready"`
	Serving     bool           `json:"serving"`
	Terminating bool           `json:"terminating"`
	// Here: it is on this node.
	Here      bool     `json:"thisNode"`
	ZoneHints []string `json:"zoneHints,omitempty"`
	// NodeHints: it has hints for nodes; ForThisNode: this one is among them.
	NodeHints   bool `json:"nodeHints,omitempty"`
	ForThisNode bool `json:"hintsThisNode,omitempty"`
	// What becomes of it under the traffic policies.
	Cluster Verdict `json:"policyCluster"`
	Local   Verdict `json:"policyLocal"`
}

// Verdict says whether an endpoint takes new connections, and why.
type Verdict struct {
	In  bool   `json:"in"`
	Why string `json:"reason"`
}

// Facts are what a kube-nft knows; controller.Facts are such.
type Facts interface {
	Service(types.NamespacedName) *model.Entry
	Zone() string
	Families() []nft.Family
	Desired(nft.Family) *compile.Table
}

// OfService collects what is known of a Service.
func OfService(f Facts, name types.NamespacedName) Service {
	out := Service{Name: name.String(), Zone: f.Zone()}
	entry := f.Service(name)
	if entry == nil {
		return out
	}
	out.Slices = entry.Slices()
	s := entry.Service
	if s == nil {
		return out
	}
	out.Known, out.Doubt = true, s.Doubt()
	out.InternalPolicy, out.ExternalPolicy = policyWord(s.InternalLocal), policyWord(s.ExternalLocal)
	out.Affinity, out.HealthCheckNodePort = int(s.AffinityTimeout.Seconds()), int(s.HealthCheckNodePort)
	for _, family := range f.Families() {
		table := f.Desired(family)
		out.SourceRanges = append(out.SourceRanges, s.SourceRanges[table.Model()].Prefixes...)
		claims, wanted := table.ClaimsOf(name), wantedOf(table, name)
		for i := range s.Ports {
			p := ServicePort{Name: s.Ports[i].Name, Protocol: nft.Proto(s.Ports[i].Protocol).String(), Family: family.String()}
			for _, c := range claims {
				if c.Index == i {
					p.Frontends = append(p.Frontends, frontend(c, wanted))
				}
			}
			p.Endpoints = endpointsOf(entry, &s.Ports[i], table.Model(), f.Zone())
			if len(p.Frontends) > 0 || len(p.Endpoints) > 0 {
				out.Ports = append(out.Ports, p)
			}
		}
	}
	return out
}

func policyWord(local bool) string {
	if local {
		return "Local"
	}
	return "Cluster"
}

// wantedOf collects what the table should hold for a Service, by frontend.
func wantedOf(t *compile.Table, name types.NamespacedName) map[nft.Key][]nft.Element {
	wanted := make(map[nft.Key][]nft.Element)
	for e := range t.ElementsOf(name) {
		k := frontendKey(e.Key)
		wanted[k] = append(wanted[k], e)
	}
	return wanted
}

// frontendKey is the part of a key that names a frontend.
func frontendKey(k nft.Key) nft.Key { return nft.Key{Addr: k.Addr, Proto: k.Proto, Port: k.Port} }

func frontend(c compile.Claim, wanted map[nft.Key][]nft.Element) PortFrontend {
	out := PortFrontend{Address: c.Frontend.Addr, Port: c.Frontend.Port, Kind: c.Kind.String(), Granted: c.Granted, Winner: c.Winner}
	if !c.Granted {
		return out
	}
	for _, e := range wanted[nft.Key{Addr: c.Frontend.Addr, Proto: c.Frontend.Proto, Port: c.Frontend.Port}] {
		if e.Set.HoldsEndpoints() {
			if out.Leads == nil {
				out.Leads = make(map[string][]netip.AddrPort)
			}
			out.Leads[e.Set.String()] = append(out.Leads[e.Set.String()], e.Value.To)
			continue
		}
		out.Wanted = append(out.Wanted, e.String())
	}
	return out
}

func endpointsOf(entry *model.Entry, p *model.ServicePort, f model.Family, zone string) (all []Endpoint) {
	found := entry.Endpoints(nil, p, f)
	cluster, local := model.Judge(found, zone)
	for i, e := range found {
		all = append(all, Endpoint{
			Address: e.Addr, Ready: e.Ready, Serving: e.Serving, Terminating: e.Terminating, Here: e.Local,
			ZoneHints: e.Hints.ZoneNames(), NodeHints: e.Hints.Nodes, ForThisNode: e.Hints.ThisNode,
			Cluster: Verdict{cluster[i].In(), cluster[i].String()}, Local: Verdict{local[i].In(), local[i].String()},
		})
	}
	return all
}

// Frontend is what kube-nft knows of an address and port.
type Frontend struct {
	// Claims are those to it, who has it first.
	Claims []FrontendClaim `json:"claims,omitempty"`
	// Services have the address, on whatever ports.
	Services []string `json:"services,omitempty"`
	// NodePort: the claims are to the node port of this number.
	NodePort bool `json:"nodePort,omitempty"`
}

// FrontendClaim is a Service port's claim to a frontend.
type FrontendClaim struct {
	Service string `json:"service"`
	Port    string `json:"port,omitempty"`
	Kind    string `json:"kind"`
	Granted bool   `json:"granted"`
	Winner  string `json:"winner,omitempty"`
}

// OfFrontend collects who claims an address and port, or, where nobody does, the node
// port of that number.
func OfFrontend(f Facts, at netip.AddrPort, proto nft.Proto) (out Frontend) {
	table := f.Desired(nft.FamilyOf(at.Addr()))
	if table == nil {
		return out
	}
	out.Claims = claimants(table, compile.Frontend{Addr: at.Addr(), Proto: proto, Port: at.Port()})
	if out.Claims == nil {
		out.Claims = claimants(table, compile.Frontend{Proto: proto, Port: at.Port()})
		out.NodePort = out.Claims != nil
	}
	for _, name := range table.At(at.Addr()) {
		out.Services = append(out.Services, name.String())
	}
	return out
}

func claimants(t *compile.Table, f compile.Frontend) (all []FrontendClaim) {
	for _, c := range t.Claimants(f) {
		all = append(all, FrontendClaim{Service: c.Service.String(), Port: c.Port, Kind: c.Kind.String(), Granted: c.Granted, Winner: c.Winner})
	}
	return all
}
