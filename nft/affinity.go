// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"strings"
	"time"
	"unique"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Port names a Service port, for what it owns: namespace/service/protocol/port,
// the last part only if the port has a name. It is small and comparable.
type Port struct{ handle unique.Handle[string] }

// PortOf returns the Port of a name.
func PortOf(name string) Port { return Port{unique.Make(name)} }

// String returns the name, "" for the zero Port.
func (p Port) String() string {
	if p == (Port{}) {
		return ""
	}
	return p.handle.Value()
}

// Split returns the parts of the name; what a name does not have is "".
func (p Port) Split() (namespace, service, protocol, port string) {
	var parts [4]string
	copy(parts[:], strings.SplitN(p.String(), "/", len(parts)))
	return parts[0], parts[1], parts[2], parts[3]
}

// AffinitySize is how many clients a Service port remembers at most. To those who
// come when its map is full it behaves as if it had no affinity, until entries
// expire: they are served, but remembered nowhere.
const AffinitySize = 65536

// Affinity is what a Service port with session affinity owns beside elements: a
// map from clients to endpoints, and the chains that use it. The kernel fills the
// map by itself; a Contents does not hold what is in it.
type Affinity struct {
	Port  Port
	Proto Proto
	// Timeout is how long a client is remembered after its last connection, in
	// seconds.
	Timeout uint32
	// Local adds a second map, for those who may only reach endpoints on this node.
	Local bool
	// Ways are the chains that look clients up, a bit for each kind.
	Ways Ways
}

// Ways is a set of kinds of chains.
type Ways uint32

// With returns the set with a kind in it.
func (w Ways) With(k ChainKind) Ways { return w | 1<<k }

// Has reports whether a kind is in the set.
func (w Ways) Has(k ChainKind) bool { return w&(1<<k) != 0 }

// affinityKinds are the kinds of chains that look clients up.
var affinityKinds = [...]ChainKind{AffinityService, AffinityServiceLocal, AffinityExternal, AffinityShortcut, AffinityLocal}

// Maps names the maps from clients to endpoints.
func (a Affinity) Maps() []string {
	if a == (Affinity{}) {
		return nil
	}
	maps := []string{a.mapName(AffinityService)}
	if a.Local {
		maps = append(maps, a.mapName(AffinityLocal))
	}
	return maps
}

// mapName names the map that a chain of a kind looks clients up in.
func (a Affinity) mapName(k ChainKind) string {
	if k == AffinityServiceLocal || k == AffinityLocal {
		return chainPrefix[AffinityLocal] + a.Port.String()
	}
	return chainPrefix[AffinityService] + a.Port.String()
}

// ParseAffinityMap finds the Service port that a map from clients to endpoints
// belongs to, and whether it is the one of endpoints on this node.
func ParseAffinityMap(name string) (p Port, local, ok bool) {
	c, ok := ParseChain(name)
	return c.Port, c.Kind == AffinityLocal, ok && (c.Kind == AffinityService || c.Kind == AffinityLocal)
}

// AffinityType is the wire description of a map from clients to endpoints.
func AffinityType(f Family) Type {
	l := affinityLayout
	t := Type{UserData: typeofUserData(f, l)}
	t.KeyType, t.KeyLen = fieldsType(f, l.key)
	t.DataType, t.DataLen = fieldsType(f, l.data)
	return t
}

var affinityLayout = layout{key: []field{fieldSaddr}, data: endpoint}

// AffinityChains returns the chains that a Service port with session affinity
// owns.
func (s *Schema) AffinityChains(a Affinity) []RuleChain {
	if a == (Affinity{}) {
		return nil
	}
	var all []RuleChain
	for _, k := range affinityKinds {
		if a.Ways.Has(k) {
			all = append(all, RuleChain{Name: Chain{Kind: k, Port: a.Port}.String(), Rules: s.stick(a, k)})
		}
	}
	return append(all, s.learn(a))
}

// stick returns the rules that send a client back to its endpoint, and others on
// to where the chain was called from.
func (s *Schema) stick(a Affinity, k ChainKind) []Rule {
	way := map[ChainKind]ChainKind{AffinityService: Service, AffinityServiceLocal: Service, AffinityExternal: External,
		AffinityShortcut: Shortcut, AffinityLocal: Local}[k]
	_, rules := s.way(way)
	// meta l4proto tcp dnat ip to ip saddr map @KUBE-AFFINITY-default/web/tcp/http
	return append(rules, rule(proto(a.Proto), dnatAffinity(s.Family, a.mapName(k))))
}

// learn returns the chain that remembers who was sent where. An entry that is
// there is never overwritten, only its time starts again.
func (s *Schema) learn(a Affinity) RuleChain {
	c := RuleChain{Name: Chain{Kind: Learn, Port: a.Port}.String()}
	for i, name := range a.Maps() {
		known := LearnEndpoints
		if i > 0 {
			known = LearnLocalEndpoints
		}
		// ip daddr . meta l4proto . th dport @KUBE-LEARN-SEP meta l4proto tcp
		// update @KUBE-AFFINITY-default/web/tcp/http { ct original ip saddr timeout 3h : ip daddr . tcp dport }
		c.Rules = append(c.Rules, rule(inSet(s.Family, known), proto(a.Proto), remember(s.Family, name, a)))
	}
	return c
}

// learnChains returns the chains that make translated connections known, at the
// hooks where their destination is the endpoint and conntrack still knows what it
// was before. Connections to this host's own addresses pass input alone.
func (s *Schema) learnChains() []RuleChain {
	common := RuleChain{Name: chainLearn}
	for _, p := range [...]Proto{TCP, UDP, SCTP} {
		// meta l4proto tcp ct original ip daddr . meta l4proto . ct original proto-dst vmap @KUBE-LEARN
		common.Rules = append(common.Rules, rule(proto(p), vmapOriginal(s.Family, LearnServices)))
		if s.has(NodePortAffinity) {
			// ct original ip daddr @KUBE-NODE-IP meta l4proto tcp meta l4proto . ct original proto-dst vmap @KUBE-LEARN-NODEPORTS
			common.Rules = append(common.Rules, rule(s.wasToNode(), proto(p), vmapOriginal(s.Family, LearnNodePorts)))
		}
	}
	at := func(hook string, base *Hook) RuleChain {
		c := RuleChain{Name: chainLearn + "-" + hook, Base: base, Rules: []Rule{
			// Once conntrack has confirmed a connection, its other packets say nothing
			// new, though it is called so until it is answered; and its endpoint may
			// have left meanwhile: ct status confirmed accept
			rule(confirmed(), accept()),
			// The endpoints of other Services pay for this one lookup alone:
			// ct status dnat ip daddr . meta l4proto . th dport @KUBE-LEARN-SEP jump KUBE-LEARN
			rule(translated(), inSet(s.Family, LearnEndpoints), jump(chainLearn)),
		}}
		if s.has(LocalAffinity) {
			// ct status dnat ip daddr . meta l4proto . th dport @KUBE-LEARN-SEP-XLB jump KUBE-LEARN
			c.Rules = append(c.Rules, rule(translated(), inSet(s.Family, LearnLocalEndpoints), jump(chainLearn)))
		}
		return c
	}
	return []RuleChain{common, at("INPUT", &learnInput), at("POSTROUTING", &learnPostrouting)}
}

// wasToNode matches connections that may have come to a node port: an address of
// Services may have the same number for another port. If node ports are on every
// address of this host, the kernel cannot be asked any more whether the original
// destination was one; at least it was no ClusterIP.
func (s *Schema) wasToNode() clause {
	if s.Options.AllNodePorts {
		return originalNotIn(s.Family, ClusterIPs)
	}
	return originalIn(s.Family, NodeIPs)
}

// affinityName splits the name of a chain or map that a Service port owns.
func affinityName(name string) (Chain, bool) {
	for _, k := range [...]ChainKind{AffinityShortcut, AffinityLocal, AffinityExternal, AffinityServiceLocal, AffinityService, Learn} {
		port, ok := strings.CutPrefix(name, chainPrefix[k])
		if !ok {
			continue
		}
		// What a Service port owns bears its namespace, in lower case.
		if !strings.Contains(port, "/") || strings.ContainsFunc(port, notInNames) {
			return Chain{}, false
		}
		return Chain{Kind: k, Port: PortOf(port)}, true
	}
	return Chain{}, false
}

// notInNames reports whether a character is in no Port's name: Kubernetes' names are
// small letters, digits, dashes and dots.
func notInNames(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '/'
}

// proto matches the protocol: `meta l4proto tcp`. The kernel does not need it,
// nft does, to know what a port is.
func proto(p Proto) clause {
	return clause{"meta l4proto " + p.String(), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstReg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{uint8(p)}},
	}}
}

// dnatAffinity translates to the client's endpoint; it does nothing if the client
// has none.
func dnatAffinity(f Family, name string) clause {
	c := clause{text: fmt.Sprintf("dnat %s to %s saddr map @%s", f, f, name)}
	c.code = append(c.code, load(f, fieldSaddr, 0, firstReg),
		&expr.Lookup{SourceRegister: firstReg, DestRegister: firstReg, IsDestRegSet: true, SetName: name},
		natTo(f))
	return c
}

// vmapOriginal goes where the verdict map says for what the client addressed.
func vmapOriginal(f Family, s Set) clause {
	var c clause
	words := make([]string, 0, 3)
	reg := uint32(firstReg)
	for _, fl := range layouts[s].key {
		word := "ct original proto-dst"
		switch fl {
		case fieldDaddr:
			word = "ct original " + f.String() + " daddr"
			c.code = append(c.code, loadOriginal(ctDaddr(f), reg))
		case fieldProto:
			word = "meta l4proto"
			c.code = append(c.code, load(f, fl, 0, reg))
		default:
			c.code = append(c.code, loadOriginal(expr.CtKeyPROTODST, reg))
		}
		words = append(words, word)
		reg += registers(fl.size(f))
	}
	c.text = strings.Join(words, " . ") + " vmap @" + s.String()
	c.code = append(c.code, &expr.Lookup{SourceRegister: firstReg, SetName: s.String(), IsDestRegSet: true})
	return c
}

// originalIn matches connections by the address that the client used.
func originalIn(f Family, s Set) clause {
	return clause{"ct original " + f.String() + " daddr @" + s.String(), []expr.Any{
		loadOriginal(ctDaddr(f), firstReg),
		&expr.Lookup{SourceRegister: firstReg, SetName: s.String()},
	}}
}

func originalNotIn(f Family, s Set) clause {
	return clause{"ct original " + f.String() + " daddr != @" + s.String(), []expr.Any{
		loadOriginal(ctDaddr(f), firstReg),
		&expr.Lookup{SourceRegister: firstReg, SetName: s.String(), Invert: true},
	}}
}

// remember notes where a client was sent, or that it came again.
func remember(f Family, name string, a Affinity) clause {
	data := firstReg + registers(uint32(f.addrLen()))
	return clause{
		fmt.Sprintf("update @%s { ct original %s saddr timeout %s : %s daddr . th dport }", name, f, duration(a.Timeout), f),
		[]expr.Any{
			loadOriginal(ctSaddr(f), firstReg),
			load(f, fieldDaddr, 0, data),
			load(f, fieldPort, 0, data+registers(uint32(f.addrLen()))),
			&expr.Dynset{
				SrcRegKey: firstReg, SrcRegData: data, SetName: name,
				Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: time.Duration(a.Timeout) * time.Second,
			},
		},
	}
}

// duration writes seconds as nft does: 1d2h3m4s.
func duration(seconds uint32) string {
	var b strings.Builder
	for _, unit := range [...]struct {
		length uint32
		letter byte
	}{{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}} {
		if n := seconds / unit.length; n > 0 {
			b.WriteString(itoa(n))
			b.WriteByte(unit.letter)
			seconds %= unit.length
		}
	}
	return b.String()
}
