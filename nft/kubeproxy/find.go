// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// Find finds what kube-proxy has left, or is keeping, in the network namespace of the
// calling thread. It changes nothing, and loads no module of the kernel's but nf_tables.
func Find(ctx context.Context) (Found, error) {
	var found Found
	s, err := openSocket()
	if err != nil {
		return found, err
	}
	defer s.close()
	for _, f := range nft.Families {
		if err := ctx.Err(); err != nil {
			return found, context.Cause(ctx)
		}
		if err := found.addRules(s, f); err != nil {
			return found, err
		}
	}
	if err := found.addIPVS(s); err != nil {
		return found, err
	}
	found.frontends = sorted(found.frontends)
	return found, nil
}

// addRules adds what is in packet filters of a family.
func (f *Found) addRules(s *socket, family nft.Family) error {
	tables, frontends, err := s.findTables(family)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // no IPv6 in this kernel
	}
	if err != nil {
		return err
	}
	f.Tables, f.frontends = append(f.Tables, tables...), append(f.frontends, frontends...)
	rules, frontends, err := s.findNFT(family)
	if err != nil {
		return err
	}
	f.Rules, f.frontends = append(f.Rules, rules...), append(f.frontends, frontends...)
	rules, frontends, err = findLegacy(family)
	if err != nil {
		return err
	}
	f.Rules, f.frontends = append(f.Rules, rules...), append(f.frontends, frontends...)
	return nil
}

// addIPVS adds what is of the mode ipvs alone.
func (f *Found) addIPVS(s *socket) error {
	names, nodePorts, err := s.findSets()
	if err != nil {
		return err
	}
	d, local, err := findDevice()
	if err != nil {
		return err
	}
	f.IPSets, f.Device = names, d
	if f.Services, err = findServices(d, local, nodePorts); err != nil {
		return err
	}
	bound := make(map[netip.Addr]bool)
	if d != nil {
		for _, a := range d.Addrs {
			bound[a] = true
		}
	}
	for _, service := range f.Services {
		f.frontends = append(f.frontends, service.frontend(nodePorts, bound[service.Addr]))
	}
	return nil
}

// Served are the frontends in kube-nft's own tables, each once, in order: those without
// endpoints are among them, since kube-nft refuses them.
func Served(ctx context.Context) ([]Frontend, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	defer s.close()
	var all []Frontend
	for _, f := range nft.Families {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		found, err := s.readMaps(f, nft.TableName, ourMaps)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, err
		}
		all = append(all, found...)
	}
	return sorted(all), nil
}
