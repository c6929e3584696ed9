// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// Tables of xtables. The kernel gives a table as one blob of entries, each with
// matches and a target behind it; chains are where it is entered, and entries whose
// target is called ERROR (linux/netfilter_ipv4/ip_tables.h, ip6_tables.h,
// linux/netfilter/x_tables.h).

// xtLayout says where things are in an entry of a family.
type xtLayout struct {
	family       Family
	names        string // file that lists the tables in use
	domain       int
	level        uintptr
	addrLen      int
	interfaces   int // of in and out, and then of their masks
	proto        int
	flags        int
	invert       int
	flagGoto     byte
	targetOffset int
	size         int
}

var xtLayouts = []xtLayout{
	{IPv4, "ip_tables_names", unix.AF_INET, unix.SOL_IP, 4, 16, 80, 82, 83, 2, 88, 112},
	{IPv6, "ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6, 16, 64, 128, 131, 132, 4, 140, 168},
}

// Options of both families.
const (
	xtGetInfo    = 64
	xtGetEntries = 65
	xtNameLen    = 32
	xtInfoLen    = 84 // name, hooks, five entries, five underflows, entries, size
	xtHooks      = 5
	xtHeader     = 32 // of a match or target: size, name, revision
)

// priorities of the tables' chains (linux/netfilter_ipv4.h); nat's are special.
var xtPriorities = map[string]int32{"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}

// ListLegacy reads the tables of iptables-legacy and ip6tables-legacy of the calling
// thread's network namespace; none is the rule. It asks only for tables that are in
// use, since to ask for another one makes it. It wants CAP_NET_ADMIN where there is
// one. proc is where the process's own /proc is.
func ListLegacy(proc string) (tables []*Table, err error) {
	for _, l := range xtLayouts {
		names, err := os.ReadFile(proc + "/thread-self/net/" + l.names)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the kernel has none of it
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("read %s: %w", l.names, errPermission)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", l.names, err)
		}
		for name := range strings.FieldsSeq(string(names)) {
			t, err := l.read(name)
			if err != nil {
				return nil, fmt.Errorf("read table %s %s of xtables: %w", l.family, name, err)
			}
			tables = append(tables, t)
		}
	}
	return tables, nil
}

// read reads a table.
func (l *xtLayout) read(name string) (*Table, error) {
	// Any socket of the family will do, and a datagram one needs no privilege.
	fd, err := unix.Socket(l.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for try := 0; ; try++ {
		info := make([]byte, xtInfoLen)
		copy(info, name)
		if err := l.get(fd, xtGetInfo, info); err != nil {
			return nil, err
		}
		size := binary.NativeEndian.Uint32(info[80:])
		// struct ipt_get_entries: name, size, and entries aligned to 8.
		request := make([]byte, xtNameLen+8+int(size))
		copy(request, name)
		binary.NativeEndian.PutUint32(request[xtNameLen:], size)
		err := l.get(fd, xtGetEntries, request)
		if err == unix.EAGAIN && try < maxInterrupted {
			continue // it has another size by now
		}
		if err != nil {
			return nil, err
		}
		return l.parse(name, info, request[xtNameLen+8:]), nil
	}
}

func (l *xtLayout) get(fd, option int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), l.level, uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	switch errno {
	case 0:
		return nil
	case unix.EPERM:
		return errPermission
	}
	return errno
}

// xtParser turns a blob into chains.
type xtParser struct {
	*xtLayout
	table  *Table
	blob   []byte
	names  map[int]string // of chains, by the offset of their first entry
	policy map[int]bool   // offsets of entries that are policies
	chain  *Chain
}

func (l *xtLayout) parse(name string, info, blob []byte) *Table {
	t := &Table{Family: l.family, Name: name, Legacy: true, Chains: make(map[string]*Chain), Sets: map[string]*Set{}}
	p := xtParser{xtLayout: l, table: t, blob: blob, names: make(map[int]string), policy: make(map[int]bool)}
	word := func(i int) int { return int(binary.NativeEndian.Uint32(info[xtNameLen+4*i:])) }
	for hook := range xtHooks {
		if word(0)&(1<<hook) == 0 {
			continue
		}
		word, words := hookName(l.family, uint32(hook)), word
		c := &Chain{Name: strings.ToUpper(word), Hook: word, Type: "filter", Priority: xtPriorities[name]}
		if name == "nat" {
			c.Type = "nat"
			if hook == 1 || hook == 4 { // input and postrouting translate sources
				c.Priority = 100
			}
		}
		t.Chains[c.Name] = c
		p.names[words(1+hook)] = c.Name
		p.policy[words(1+xtHooks+hook)] = true
	}
	p.each(p.nameChain)
	p.each(p.add)
	return t
}

// each calls f with each entry and its offset; it stops at one that does not fit.
func (p *xtParser) each(f func(off int, entry []byte)) {
	for off := 0; off+p.size <= len(p.blob); {
		next := int(binary.NativeEndian.Uint16(p.blob[off+p.targetOffset+2:]))
		target := p.target(p.blob[off:])
		if next < p.size+xtHeader || off+next > len(p.blob) || target < p.size || target+xtHeader > next {
			return
		}
		f(off, p.blob[off:off+next])
		off += next
	}
}

func (p *xtParser) target(entry []byte) int {
	return int(binary.NativeEndian.Uint16(entry[p.targetOffset:]))
}

// nameChain notes where a chain that others lead to begins: behind its name.
func (p *xtParser) nameChain(off int, entry []byte) {
	if target := entry[p.target(entry):]; wire.String(target[2:31]) == "ERROR" {
		p.names[off+len(entry)] = wire.String(target[xtHeader:])
	}
}

// add adds an entry to its chain.
func (p *xtParser) add(off int, entry []byte) {
	target := entry[p.target(entry):]
	name, info := wire.String(target[2:31]), target[xtHeader:]
	if chain, ok := p.names[off]; ok {
		if p.table.Chains[chain] == nil {
			p.table.Chains[chain] = &Chain{Name: chain}
		}
		p.chain = p.table.Chains[chain]
	}
	if p.chain == nil || name == "ERROR" {
		return
	}
	if p.policy[off] {
		p.chain.Drop = verdictOf(info) == -nfDrop-1
		return
	}
	d := decoder{family: p.family}
	p.header(&d, entry)
	for at := p.size; at+xtHeader <= p.target(entry); {
		n := int(binary.NativeEndian.Uint16(entry[at:]))
		if n < xtHeader || at+n > p.target(entry) {
			break
		}
		d.xtMatchOf(wire.String(entry[at+2:at+31]), uint32(entry[at+31]), entry[at+xtHeader:at+n])
		at += n
	}
	if name == "" {
		d.rule.Verdict = p.standard(verdictOf(info), off+len(entry), entry[p.flags]&p.flagGoto != 0)
	} else {
		d.xtTargetOf(name, info)
	}
	if name == "" && d.rule.Verdict.Kind == Continue {
		return // it only counts
	}
	p.table.Rules++
	p.chain.Total++
	p.chain.note(&d.rule)
	if len(p.chain.Rules) < maxRulesOfChain && len(p.chain.Rules) == p.chain.Total-1 && p.table.Rules < maxRules {
		p.chain.Rules = append(p.chain.Rules, d.rule)
	}
}

func verdictOf(info []byte) int32 {
	if len(info) < 4 {
		return 0
	}
	return int32(binary.NativeEndian.Uint32(info))
}

// standard is the verdict of a target without a name: below 0 it is one, else where
// to jump to.
func (p *xtParser) standard(v int32, next int, goTo bool) Verdict {
	const xtReturn = -4 - 1 // NF_REPEAT
	switch {
	case v == -nfAccept-1:
		return Verdict{Kind: Act, Action: Accept}
	case v == -nfDrop-1:
		return Verdict{Kind: Act, Action: Drop}
	case v == -nfQueue-1:
		return Verdict{Kind: Act, Action: Queue}
	case v == xtReturn:
		return Verdict{Kind: Return}
	case v < 0 || int(v) == next: // the next entry: a rule without a target
		return Verdict{}
	case goTo:
		return Verdict{Kind: Goto, Chain: p.names[int(v)]}
	}
	return Verdict{Kind: Jump, Chain: p.names[int(v)]}
}

// header turns what an entry says of addresses, interfaces and protocol into
// conditions.
func (p *xtParser) header(d *decoder, entry []byte) {
	invert, n := entry[p.invert], p.addrLen
	part := func(i, n int) []byte { return entry[i : i+n] }
	for i, f := range []struct {
		field     field
		v, mask   []byte
		invertBit byte
	}{
		{sourceAddr, part(0, n), part(2*n, n), 0x08},
		{destAddr, part(n, n), part(3*n, n), 0x10},
		{inName, part(p.interfaces, unix.IFNAMSIZ), part(p.interfaces+32, unix.IFNAMSIZ), 0x01},
		{outName, part(p.interfaces+16, unix.IFNAMSIZ), part(p.interfaces+48, unix.IFNAMSIZ), 0x02},
	} {
		if bytes.Count(f.mask, []byte{0}) == len(f.mask) {
			continue
		}
		of := operand{field: f.field, mask: bytes.Clone(f.mask)}
		v := bytes.Clone(f.v)
		if i >= 2 { // what is behind the name's part that counts may be anything
			for j := range v {
				v[j] &= f.mask[j]
			}
		}
		d.match(Match{of: of, ranges: []span{{v, v}}, not: invert&f.invertBit != 0})
	}
	if proto := binary.NativeEndian.Uint16(part(p.proto, 2)); proto != 0 {
		v := []byte{byte(proto)}
		d.match(Match{of: operand{field: protocol}, ranges: []span{{v, v}}, not: invert&0x40 != 0})
	}
}
