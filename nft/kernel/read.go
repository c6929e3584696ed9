// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// Read reads back what the family's table holds. It returns ErrMissing if there
// is none, ErrForeign if it is not ours, and ErrSchema if its constant part is
// not that of s; the error says where.
func (c *Conn) Read(ctx context.Context, s *nft.Schema) (nft.Contents, error) {
	if err := ctx.Err(); err != nil {
		return nft.Contents{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	version, dormant, err := c.readTable(s.Family)
	if err != nil {
		return nft.Contents{}, err
	}
	if version != nft.Version {
		return nft.Contents{}, fmt.Errorf("%w: it has schema version %d instead of %d", nft.ErrSchema, version, nft.Version)
	}
	if dormant {
		return nft.Contents{}, fmt.Errorf("%w: it is dormant", nft.ErrSchema)
	}
	var contents nft.Contents
	counts := make(map[nft.Set]int)
	if err := c.checkSets(s, &contents.Sizes, counts); err != nil {
		return nft.Contents{}, err
	}
	if err := c.checkChains(s, &contents); err != nil {
		return nft.Contents{}, err
	}
	for _, set := range nft.Sets {
		if set.HoldsEndpoints() {
			continue
		}
		if err := c.readElements(s.Family, set, &contents); err != nil {
			return nft.Contents{}, err
		}
	}
	for _, frontends := range nft.Sets {
		if endpoints, ok := frontends.EndpointsOf(); ok {
			if err := c.readEndpoints(s.Family, frontends, endpoints, counts[endpoints], &contents); err != nil {
				return nft.Contents{}, err
			}
		}
	}
	return contents, nil
}

// readTable reads the version in the table's comment, and whether somebody put
// the table to sleep.
func (c *Conn) readTable(f nft.Family) (version int, dormant bool, err error) {
	var comment string
	c.begin(unix.NFT_MSG_GETTABLE, f, 0)
	err = c.ask(func(body []byte) error {
		comment = nft.DecodeComment(first(body, nftaTableUserData))
		dormant = u32(first(body, unix.NFTA_TABLE_FLAGS))&nftTableDormant != 0
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAFNOSUPPORT):
		return 0, false, fmt.Errorf("%w in family %s", nft.ErrMissing, f)
	case err != nil:
		return 0, false, fmt.Errorf("read table %s %s: %w", f, nft.TableName, err)
	}
	digits, ok := strings.CutPrefix(comment, "kube-nft schema ")
	version, err = strconv.Atoi(digits)
	if !ok || err != nil {
		return 0, false, fmt.Errorf("table %s %s: %w: its comment is %q; if nobody needs it, delete it: nft delete table %s %s",
			f, nft.TableName, nft.ErrForeign, comment, f, nft.TableName)
	}
	return version, dormant, nil
}

// begin starts a request about our table; the caller may add attributes before ask.
func (c *Conn) begin(typ uint16, f nft.Family, flags uint16) {
	c.batch.clear(nft.TableName)
	c.batch.message(typ, f, flags)
}

// maxInterrupted is how often a dump is repeated that the kernel calls
// interrupted. It does so when anything at all changed in the namespace's
// nf_tables; our own tables have one writer, which is waiting here, so that a
// dump among busy neighbours is taken in the end.
const maxInterrupted = 3

// ask sends the request begun and hands each answer to f.
func (c *Conn) ask(f func(body []byte) error) error {
	c.batch.close(0)
	dump := binary.NativeEndian.Uint16(c.batch.buf[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	for try := 0; ; try++ {
		interrupted, err := c.askOnce(dump, f)
		if err != nil || !interrupted || try == maxInterrupted {
			return err
		}
	}
}

func (c *Conn) askOnce(dump bool, f func(body []byte) error) (interrupted bool, err error) {
	if err := c.send(); err != nil {
		return false, err
	}
	var failed error
	err = c.receive(true, func(h unix.NlMsghdr, body []byte) bool {
		interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
		switch h.Type {
		case unix.NLMSG_DONE:
			return false
		case unix.NLMSG_ERROR:
			if errno, _, _ := decodeError(h, body); errno != 0 {
				failed = errno
			}
			return false
		}
		if len(body) >= familyLen && failed == nil {
			failed = f(body[familyLen:])
		}
		return dump
	})
	return interrupted, errors.Join(failed, err)
}

// list sends the request for a dump and returns the answers that are about our
// table; attribute 1 names the table in all of them.
func (c *Conn) list(typ uint16, f nft.Family) ([][]byte, error) {
	c.begin(typ, f, unix.NLM_F_DUMP)
	seen := make(map[string]bool) // a dump may be repeated, or repeat itself
	var all [][]byte
	err := c.ask(func(body []byte) error {
		if key := string(body); cstring(first(body, unix.NFTA_TABLE_NAME)) == nft.TableName && !seen[key] {
			seen[key] = true
			all = append(all, []byte(key))
		}
		return nil
	})
	return all, err
}

// declaration is what must agree in a set's declaration. Its size may differ: a
// table grows by being made anew.
type declaration struct {
	flags, keyLen, dataType, dataLen uint32
	counted                          bool
}

// checkSets compares the sets' declarations with the schema's, and reads how many
// elements each may hold and how many it holds; counts is -1 where the kernel
// does not say (before NFTA_SET_COUNT).
func (c *Conn) checkSets(s *nft.Schema, sizes *nft.Sizes, counts map[nft.Set]int) error {
	sets, err := c.list(unix.NFT_MSG_GETSET, s.Family)
	if err != nil {
		return fmt.Errorf("read sets: %w", err)
	}
	have := make(map[string]declaration)
	for _, body := range sets {
		name := cstring(first(body, unix.NFTA_SET_NAME))
		set, ok := nft.ParseSet(name)
		if !ok {
			return fmt.Errorf("%w: set %s is not ours", nft.ErrSchema, name)
		}
		sizes[set] = u32(first(first(body, unix.NFTA_SET_DESC), unix.NFTA_SET_DESC_SIZE))
		counts[set] = -1
		if n := first(body, nftaSetCount); n != nil {
			counts[set] = int(u32(n))
		}
		have[name] = declaration{
			flags:    u32(first(body, unix.NFTA_SET_FLAGS)),
			keyLen:   u32(first(body, unix.NFTA_SET_KEY_LEN)),
			dataType: u32(first(body, unix.NFTA_SET_DATA_TYPE)),
			dataLen:  u32(first(body, unix.NFTA_SET_DATA_LEN)),
			counted:  first(body, nftaSetExpr) != nil,
		}
	}
	for _, set := range nft.Sets {
		t := set.Type(s.Family)
		want := declaration{setFlags(set), t.KeyLen, t.DataType, t.DataLen, s.Counted(set)}
		if h, ok := have[set.String()]; !ok {
			return fmt.Errorf("%w: set %s is missing", nft.ErrSchema, set)
		} else if h != want {
			return fmt.Errorf("%w: set %s was declared otherwise", nft.ErrSchema, set)
		}
	}
	return nil
}

// checkChains compares chains and rules with the schema's, and collects the
// chains that exist for a number of endpoints.
func (c *Conn) checkChains(s *nft.Schema, contents *nft.Contents) error {
	want := make(map[string]nft.RuleChain)
	for _, chain := range s.Chains {
		want[chain.Name] = chain
	}
	chains, err := c.list(unix.NFT_MSG_GETCHAIN, s.Family)
	if err != nil {
		return fmt.Errorf("read chains: %w", err)
	}
	rules, err := c.ruleHashes(s.Family)
	if err != nil {
		return err
	}
	for _, body := range chains {
		name := cstring(first(body, unix.NFTA_CHAIN_NAME))
		chain, ok := want[name]
		if !ok {
			dynamic, ok := nft.ParseChain(name)
			if !ok {
				return fmt.Errorf("%w: chain %s is not ours", nft.ErrSchema, name)
			}
			chain = s.Dynamic(dynamic)
			contents.PutChain(dynamic)
		}
		delete(want, name)
		if !sameHook(chain.Base, body) {
			return fmt.Errorf("%w: chain %s sits at another hook", nft.ErrSchema, name)
		}
		var hashes strings.Builder
		for _, r := range chain.Rules {
			hash := s.Hash(chain, r)
			hashes.Write(hash[:])
		}
		if rules[name] != hashes.String() {
			return fmt.Errorf("%w: the rules of chain %s are not ours", nft.ErrSchema, name)
		}
	}
	for name := range want {
		return fmt.Errorf("%w: chain %s is missing", nft.ErrSchema, name)
	}
	return nil
}

func sameHook(want *nft.Hook, chain []byte) bool {
	hook := first(chain, unix.NFTA_CHAIN_HOOK)
	if want == nil || hook == nil {
		return want == nil && hook == nil
	}
	return want.Type == cstring(first(chain, unix.NFTA_CHAIN_TYPE)) &&
		want.Number == u32(first(hook, unix.NFTA_HOOK_HOOKNUM)) &&
		want.Priority == int32(u32(first(hook, unix.NFTA_HOOK_PRIORITY))) &&
		u32(first(chain, unix.NFTA_CHAIN_POLICY)) == nfAccept
}

// ruleHashes reads, for each chain, the hashes of its rules one behind the other;
// a rule without one, so not ours, counts as "?".
func (c *Conn) ruleHashes(f nft.Family) (map[string]string, error) {
	all, err := c.list(unix.NFT_MSG_GETRULE, f)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	rules := make(map[string]string)
	for _, body := range all {
		hash := "?"
		if udata := first(body, unix.NFTA_RULE_USERDATA); len(udata) == 10 && udata[0] == udataRuleHash {
			hash = string(udata[2:])
		}
		rules[cstring(first(body, unix.NFTA_RULE_CHAIN))] += hash
	}
	return rules, nil
}

func (c *Conn) readElements(f nft.Family, set nft.Set, contents *nft.Contents) error {
	c.begin(unix.NFT_MSG_GETSETELEM, f, unix.NLM_F_DUMP)
	c.batch.str(unix.NFTA_SET_ELEM_LIST_SET, set.String())
	err := c.ask(func(body []byte) error {
		for _, v := range attrs(first(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e, _, err := decodeElement(f, set, v)
			if err != nil {
				return fmt.Errorf("%w: %w", nft.ErrSchema, err)
			}
			contents.Put(e)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s %s: %w", f, set, err)
	}
	return nil
}
