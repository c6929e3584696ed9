// SPDX-License-Identifier: Apache-2.0

// Package compile turns Services and their selected endpoints into elements of
// the table. It is pure, and the only place where it is decided what a Service
// looks like in nftables.
package compile

import (
	"net/netip"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// Frontend is what a client addresses: a service address, or without an address
// a node port.
type Frontend struct {
	Addr  netip.Addr
	Proto nft.Proto
	Port  uint16
}

// NodePort reports whether the frontend is a node port.
func (f Frontend) NodePort() bool { return !f.Addr.IsValid() }

// String names the frontend as a client would.
func (f Frontend) String() string {
	if f.NodePort() {
		return "node port " + itoa(f.Port) + "/" + f.Proto.String()
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String() + "/" + f.Proto.String()
}

func (f Frontend) key() nft.Key { return nft.Key{Addr: f.Addr, Proto: f.Proto, Port: f.Port} }

// Kind says what a Service calls a frontend. Lower kinds win over higher ones
// when two Services claim the same frontend.
type Kind uint8

// The kinds of frontends.
const (
	_ Kind = iota
	ClusterIP
	LoadBalancerIP
	ExternalIP
	NodePort
)

// String returns the kind's name.
func (k Kind) String() string {
	return [...]string{"none", "cluster IP", "load balancer IP", "external IP", "node port"}[k]
}

// frontends lists the frontends of a Service port in a family: none if the
// Service has no ClusterIP of it, as in kube-proxy.
func frontends(s *model.Service, p *model.ServicePort, family model.Family) []bound {
	if !s.ClusterIPs[family].IsValid() {
		return nil
	}
	proto := nft.Proto(p.Protocol)
	all := []bound{{Frontend{s.ClusterIPs[family], proto, p.Port}, ClusterIP}}
	for _, a := range s.LoadBalancerIPs {
		if model.FamilyOf(a) == family {
			all = append(all, bound{Frontend{a, proto, p.Port}, LoadBalancerIP})
		}
	}
	for _, a := range s.ExternalIPs {
		if model.FamilyOf(a) == family {
			all = append(all, bound{Frontend{a, proto, p.Port}, ExternalIP})
		}
	}
	if p.NodePort != 0 {
		all = append(all, bound{Frontend{Proto: proto, Port: p.NodePort}, NodePort})
	}
	return all
}

// bound is a frontend as a Service port has it.
type bound struct {
	Frontend
	kind Kind
}
