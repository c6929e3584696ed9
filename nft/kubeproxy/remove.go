// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/conntrack"
)

// Remove removes all of it: rules first, then the virtual services of IPVS, whose
// connections end with them, ipsets, and the device. What is gone is no error. Another
// proxy must have programmed the host before.
func (f *Found) Remove(ctx context.Context) error {
	if err := f.RemoveRules(ctx); err != nil {
		return err
	}
	return f.RemoveIPVS(ctx)
}

// RemoveRules removes what is in packet filters: of nf_tables all at once, of
// iptables-legacy a table at once. A connection that is tracked goes on as it was
// translated, as long as any chain of type nat is left in its family. IPVS goes on as
// well.
func (f *Found) RemoveRules(ctx context.Context) error {
	if err := f.removeNFT(ctx); err != nil {
		return err
	}
	for _, r := range f.Rules {
		if r.Backend == IPTablesLegacy && !r.empty() {
			if err := removeLegacy(ctx, r.Family, r.Table); err != nil {
				return err
			}
		}
	}
	return f.removeAccounts()
}

// Of linux/netfilter/nfnetlink_acct.h.
const (
	deleteAccount = unix.NFNL_SUBSYS_ACCT<<8 | 3
	accountName   = 1
)

// removeAccounts removes what rules counted in. One that is gone is no error, nor one
// that somebody else's rule counts in.
func (f *Found) removeAccounts() error {
	var names []string
	for _, r := range f.Rules {
		names = append(names, r.accounts...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return nil
	}
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer s.close()
	for _, name := range names {
		s.seq++
		if err := s.send(request(nil, deleteAccount, unix.NLM_F_ACK, s.seq, unix.AF_UNSPEC, text(accountName, name))); err != nil {
			return err
		}
		if _, err := s.entries(func([]byte) {}); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
			return explain("delete account "+name+" of nfacct", err)
		}
	}
	return nil
}

// removeNFT removes what is in nf_tables, in one transaction. If others have changed
// anything there since it was found it is looked at again.
func (f *Found) removeNFT(ctx context.Context) error {
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer s.close()
	now := f
	for range attempts {
		if !now.inNFT() {
			return nil
		}
		err = s.commit(now.generation, now.batch)
		if err == nil || !isOther(err) {
			return explain("remove kube-proxy's rules of nf_tables", err)
		}
		now = &Found{}
		if err := now.addNFT(ctx, s); err != nil {
			return err
		}
	}
	return fmt.Errorf("remove kube-proxy's rules of nf_tables: somebody changes or uses them meanwhile; is kube-proxy running? %w", err)
}

// isOther says that what is there is not what was found. A kernel that does not look at
// generations says so by what is missing.
func isOther(err error) bool {
	return errors.Is(err, unix.ERESTART) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY)
}

// inNFT says whether there is anything to remove from nf_tables.
func (f *Found) inNFT() bool {
	for _, r := range f.Rules {
		if r.Backend == IPTablesNFT && !r.empty() {
			return true
		}
	}
	return len(f.Tables) > 0
}

func (f *Found) batch(b *batch) {
	for _, t := range f.Tables {
		t.remove(b)
	}
	for _, r := range f.Rules {
		if r.Backend == IPTablesNFT {
			r.remove(b)
		}
	}
}

// RemoveIPVS removes what is of the mode ipvs alone, and ends connections that go through
// IPVS; RemoveIdle does not. Conntrack forgets them, so that what clients go on to send is
// translated by another proxy: it answers flows of UDP, and an endpoint that does not know
// a connection of TCP resets it. The sets that know node ports go when the services are
// gone, so that a second run finds what a first one left.
func (f *Found) RemoveIPVS(ctx context.Context) error {
	if len(f.Services) > 0 {
		v, err := openIPVS()
		if err != nil || v == nil {
			return err
		}
		defer v.conn.Close()
		for _, s := range f.Services {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := v.remove(&s); err != nil {
				return err
			}
		}
		if err := forget(ctx, f.Services, func(_ connection, e *conntrack.Entry) bool {
			return e.Status&conntrack.Translated == 0
		}); err != nil {
			return err
		}
	}
	if len(f.IPSets) > 0 {
		s, err := openSocket()
		if err != nil {
			return err
		}
		defer s.close()
		var errs []error
		for _, name := range f.IPSets {
			errs = append(errs, s.destroySet(name))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	if f.Device != nil {
		return f.Device.remove()
	}
	return nil
}
