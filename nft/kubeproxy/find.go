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
	if err := found.addNFT(ctx, s); err != nil {
		return found, err
	}
	for _, f := range nft.Families {
		if err := found.addLegacy(ctx, f); err != nil {
			return found, err
		}
	}
	if err := found.addIPVS(s); err != nil {
		return found, err
	}
	found.frontends = sorted(found.frontends)
	return found, nil
}

// addNFT adds what is in nf_tables. What is removed by its handle later must be what was
// seen here: handles are given out anew when somebody makes a table anew. So the
// generation is read first.
func (f *Found) addNFT(ctx context.Context, s *socket) (err error) {
	if f.generation, err = s.generation(); err != nil {
		return explain("read the generation of nf_tables", err)
	}
	for _, family := range nft.Families {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		tables, frontends, err := s.findTables(family)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // no IPv6 in this kernel
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
	}
	return nil
}

// addLegacy adds what a family has in iptables-legacy.
func (f *Found) addLegacy(ctx context.Context, family nft.Family) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	rules, frontends, err := findLegacy(family)
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
