// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// SourceRanges say who may reach the load balancer IPs of a family
// (spec.loadBalancerSourceRanges). They do not concern other addresses.
type SourceRanges struct {
	// Restricted says that sources in Prefixes are let in and no others; without
	// prefixes that is nobody. Else everybody is let in.
	Restricted bool
	// Prefixes are the ranges of this family, disjoint. One of length 0 stands
	// alone, and is not Restricted.
	Prefixes []netip.Prefix
}

// sourceRanges reads the source ranges as kube-proxy does, whatever the type of
// the Service: a family that the list says nothing about is open. In one thing it
// is stricter. A list in which nothing can be read was meant to keep somebody out,
// so it does not let everybody in, but nobody.
func sourceRanges(s *corev1.Service, p *problems) (out [Families]SourceRanges) {
	const field = "spec.loadBalancerSourceRanges"
	said, read := false, false
	for i, text := range s.Spec.LoadBalancerSourceRanges {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		said = true
		prefix, err := parsePrefix(text)
		if err != nil {
			p.add(fmt.Sprintf("%s[%d]", field, i), err.Error())
			continue
		}
		read = true
		r := &out[FamilyOf(prefix.Addr())]
		r.Prefixes = append(r.Prefixes, prefix)
	}
	if said && !read {
		p.add(field, "no entry is a CIDR, so nobody is let in: correct one, or empty the list to let everybody in")
	}
	for f := range out {
		r := &out[f]
		if r.Prefixes != nil {
			r.Prefixes = Disjoint(r.Prefixes)
			r.Restricted = r.Prefixes[0].Bits() > 0
		} else {
			r.Restricted = said && !read
		}
	}
	return out
}

// Doubt says what a Service does that its owner may not mean, in words for them;
// "" if there is nothing. Source ranges of one family leave the other one open, as
// in kube-proxy, and who wrote them rarely expects that.
func (s *Service) Doubt() string {
	for _, a := range s.LoadBalancerIPs {
		f := FamilyOf(a)
		here, other := s.SourceRanges[f], s.SourceRanges[Families-1-f]
		if !here.Restricted && len(here.Prefixes) == 0 && other.Restricted {
			return fmt.Sprintf("spec.loadBalancerSourceRanges has no %s range, so everybody is let in to %s: add one to keep others out", f, a)
		}
	}
	return ""
}
