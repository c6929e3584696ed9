// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// ServiceCIDR is a ServiceCIDR object: addresses that cluster IPs are taken from
// (KEP-1880).
type ServiceCIDR struct {
	Name     string
	Prefixes []netip.Prefix
}

// FromServiceCIDR reads a ServiceCIDR. What is invalid in it is left out; each
// such part is an error that begins with the path of its field, all of them
// joined. The API takes a CIDR that holds every address, but what is refused there
// includes all that is not a cluster IP, the API server too: it is left out.
func FromServiceCIDR(s *networkingv1.ServiceCIDR) (*ServiceCIDR, error) {
	var p problems
	out := &ServiceCIDR{Name: s.Name}
	for i, text := range s.Spec.CIDRs {
		prefix, err := parsePrefix(text)
		if err == nil && prefix.Bits() == 0 {
			err = fmt.Errorf("%q is every address", text)
		}
		if err != nil {
			p.add(fmt.Sprintf("spec.cidrs[%d]", i), err.Error())
			continue
		}
		out.Prefixes = append(out.Prefixes, prefix)
	}
	return out, p.err()
}

// ServiceCIDRs are all ServiceCIDRs. A prefix that several objects list stays
// until the last of them goes. The zero value has none.
type ServiceCIDRs struct {
	objects  map[string][]netip.Prefix
	families [Families][]netip.Prefix
}

// Known reports whether anything was ever said of objects: if not, that there are
// none means nothing.
func (c *ServiceCIDRs) Known() bool { return c.objects != nil }

// Set adds or replaces an object, and reports whether that changes Of for any
// family.
func (c *ServiceCIDRs) Set(s *ServiceCIDR) bool {
	c.know()
	c.objects[s.Name] = s.Prefixes
	return c.update()
}

// Delete removes an object, if it is there, and reports whether that changes Of
// for any family.
func (c *ServiceCIDRs) Delete(name string) bool {
	c.know()
	delete(c.objects, name)
	return c.update()
}

func (c *ServiceCIDRs) know() {
	if c.objects == nil {
		c.objects = make(map[string][]netip.Prefix)
	}
}

// Of returns the prefixes of a family, disjoint. The caller must not change them.
func (c *ServiceCIDRs) Of(f Family) []netip.Prefix { return c.families[f] }

// update sums up the objects. There are few of them, and they rarely change.
func (c *ServiceCIDRs) update() bool {
	var all []netip.Prefix
	for _, prefixes := range c.objects {
		all = append(all, prefixes...)
	}
	var families [Families][]netip.Prefix
	for _, p := range Disjoint(all) {
		f := FamilyOf(p.Addr())
		families[f] = append(families[f], p)
	}
	changed := !slices.EqualFunc(c.families[:], families[:], slices.Equal)
	c.families = families
	return changed
}
