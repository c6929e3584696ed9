// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/controller/doctor"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/nft/kubeproxy"
	"github.com/kube-nft/kube-nft/nft/ruleset"
)

// gatherer collects facts about this host and its network namespace.
type gatherer struct {
	facts doctor.Facts
	root  string // where the host's root is mounted
}

// gatherFacts looks at everything that doctor judges. What cannot be read is a gap;
// without the tables there is no check, which is an error.
func gatherFacts(ctx context.Context, hostRoot string) (*doctor.Facts, error) {
	g := &gatherer{root: hostRoot}
	var err error
	if g.facts.Tables, err = ruleset.List(ctx); err != nil && !errors.Is(err, ruleset.ErrUnsupported) {
		return nil, err
	}
	legacy, err := ruleset.ListLegacy("/proc")
	g.facts.Tables = append(g.facts.Tables, legacy...)
	g.gap("rules of iptables-legacy", err)
	conn, err := kernel.Open(kernel.Options{})
	if err == nil {
		defer conn.Close()
		g.families(ctx, conn)
	}
	g.kernel(ctx, conn, err)
	g.running(ctx)
	g.leftovers(ctx)
	g.interfaces()
	g.params()
	g.routes()
	g.processes()
	g.listeners()
	return &g.facts, nil
}

// gap notes what could not be looked at; no error is no gap.
func (g *gatherer) gap(what string, err error) {
	if err == nil {
		return
	}
	gap := doctor.Gap{What: what, Why: err.Error()}
	if !slices.Contains(g.facts.Gaps, gap) { // of both families, often
		g.facts.Gaps = append(g.facts.Gaps, gap)
	}
}

func (g *gatherer) kernel(ctx context.Context, conn *kernel.Conn, opening error) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		g.facts.Kernel.Release = unix.ByteSliceToString(u.Release[:])
	}
	err := opening
	for _, f := range families() {
		if err == nil && conn != nil {
			err = conn.Preflight(ctx, nft.NewSchema(f, nft.Options{MasqueradeBit: nft.DefaultMasqueradeBit}))
		}
	}
	if errors.Is(err, kernel.ErrUnsupported) {
		g.facts.Kernel.Lacks = err.Error()
		return
	}
	g.gap("what the kernel can do", err)
}

// families reads our tables.
func (g *gatherer) families(ctx context.Context, conn *kernel.Conn) {
	for _, f := range families() {
		g.facts.Families = append(g.facts.Families, doctor.Family{Family: f})
		family := &g.facts.Families[len(g.facts.Families)-1]
		found, err := conn.Survey(ctx, f, func(uint64, nft.Element, uint64) {})
		family.State, family.Detail = stateOf(found, err)
		if family.State == doctor.Unknown {
			g.gap("table "+f.String()+" "+nft.TableName, err)
		}
		if found == nil {
			continue
		}
		if g.dormant(f) {
			family.State = doctor.Dormant
		}
		if slices.Contains(found.Counts[:], -1) {
			g.gap("how full sets and affinity maps are", nft.ErrUncounted)
		}
		describe(family, found)
		if err := readSample(ctx, conn, family, found); err != nil {
			g.gap("endpoints of table "+f.String()+" "+nft.TableName, err)
		}
	}
}

// stateOf is what a table is like that was looked at.
func stateOf(found *kernel.Survey, err error) (doctor.State, string) {
	switch {
	case errors.Is(err, nft.ErrMissing):
		return doctor.Missing, ""
	case errors.Is(err, nft.ErrForeign):
		return doctor.Foreign, err.Error()
	case errors.Is(err, nft.ErrSchema):
		return doctor.OtherSchema, err.Error()
	case err != nil:
		return doctor.Unknown, ""
	case found.Altered != nil:
		return doctor.Altered, fmt.Sprintf("table %s %s: %v", found.Schema.Family, nft.TableName, found.Altered)
	}
	return doctor.Healthy, ""
}

func (g *gatherer) dormant(f nft.Family) bool {
	return slices.ContainsFunc(g.facts.Tables, func(t *ruleset.Table) bool {
		return t.Name == nft.TableName && t.Family == ruleset.Family(f) && t.Dormant
	})
}

// describe takes over what a table tells.
func describe(family *doctor.Family, found *kernel.Survey) {
	family.MasqueradeBit = found.Schema.Options.MasqueradeBit
	family.Counts, family.Sizes, family.Clients = found.Counts, found.Contents.Sizes, found.Clients
	for _, set := range []nft.Set{nft.Services, nft.NodePorts, nft.LocalServices, nft.LocalNodePorts, nft.NoEndpoints, nft.NoEndpointsNodePorts} {
		for key, value := range found.Contents.Elements[set] {
			family.Frontends = append(family.Frontends, doctor.Frontend{Addr: key.Addr, Proto: key.Proto, Port: key.Port, Service: value.Comment})
		}
	}
	slices.SortFunc(family.Frontends, func(a, b doctor.Frontend) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Service, b.Service))
	})
	family.Frontends = slices.Compact(family.Frontends)
	family.NodeAddrs = addrsOf(found.Contents.Elements[nft.NodeIPs])
	if found.Schema.Options.AllNodePorts {
		all, _ := localAddrs() // without, node ports are compared with nothing
		for _, a := range all {
			if nft.FamilyOf(a) == family.Family && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
				family.NodeAddrs = append(family.NodeAddrs, a)
			}
		}
	}
	family.ClusterIPs = addrsOf(found.Contents.Elements[nft.ClusterIPs])
	family.LocalEndpoints = addrsOf(found.Contents.Elements[nft.LoopBack])
}

func addrsOf(elements map[nft.Key]nft.Value) (all []netip.Addr) {
	for key := range elements {
		all = append(all, key.Addr)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// readSample reads the endpoints of the frontends that are compared with the rules of
// others, each endpoint once.
func readSample(ctx context.Context, conn *kernel.Conn, family *doctor.Family, found *kernel.Survey) error {
	wanted := make(map[doctor.Frontend]bool)
	for _, e := range family.Compared() {
		wanted[e] = true
	}
	want := func(e nft.Element) bool {
		return wanted[doctor.Frontend{Addr: e.Key.Addr, Proto: e.Key.Proto, Port: e.Key.Port, Service: e.Value.Comment}]
	}
	if err := conn.SurveyEndpoints(ctx, found, want); err != nil {
		return err
	}
	names := make(map[nft.Key]string)
	for _, e := range family.Frontends {
		names[nft.Key{Addr: e.Addr, Proto: e.Proto, Port: e.Port}] = e.Service
	}
	seen := make(map[doctor.Endpoint]bool)
	for _, set := range []nft.Set{nft.Endpoints, nft.NodePortEndpoints} {
		for key, value := range found.Contents.Elements[set] {
			e := doctor.Endpoint{To: value.To, Proto: key.Proto, Service: names[nft.Key{Addr: key.Addr, Proto: key.Proto, Port: key.Port}]}
			if !seen[e] {
				seen[e] = true
				family.Endpoints = append(family.Endpoints, e)
			}
		}
	}
	slices.SortFunc(family.Endpoints, func(a, b doctor.Endpoint) int {
		return cmp.Or(a.To.Compare(b.To), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Service, b.Service))
	})
	family.Endpoints = family.Endpoints[:min(len(family.Endpoints), maxEndpoints)]
	return nil
}

// maxEndpoints is how many endpoints are followed through the chains of others.
const maxEndpoints = 512

// running asks who holds the control socket.
func (g *gatherer) running(ctx context.Context) {
	r := &g.facts.Running
	status, err := askStatus(ctx)
	switch {
	case err == nil:
		r.State, r.Programmed = doctor.Runs, status.Programmed
		r.Detail = fmt.Sprintf("kube-nft %s, process %d, for node %s", status.Version, status.PID, status.Node)
	case errors.Is(err, errNotRunning):
		r.State = doctor.NotRunning
	case errors.Is(err, errStranger):
		r.State, r.Detail = doctor.Stranger, err.Error()
	default:
		g.gap("whether kube-nft runs", err)
	}
}

func (g *gatherer) leftovers(ctx context.Context) {
	found, err := kubeproxy.Find(ctx)
	if err != nil {
		g.gap("leftovers of kube-proxy", err)
		return
	}
	if !found.Empty() {
		g.facts.Leftovers, g.facts.LeftoverMode = found.Lines(), found.Mode()
		g.facts.LeftoversInert = len(found.Tables)+len(found.Services)+len(found.IPSets) == 0 && found.Device == nil &&
			!slices.ContainsFunc(found.Rules, func(r kubeproxy.Rules) bool { return r.InThem > 0 })
	}
}

// params reads kernel parameters, of the host's root if they are mounted there.
func (g *gatherer) params() {
	g.facts.Params = make(map[string]string)
	paths := []string{
		doctor.ParamForward4, doctor.ParamForward6, doctor.ParamConntrackMax, doctor.ParamConntrackNow, doctor.ParamBuckets,
		doctor.ParamBridge4, doctor.ParamBridge6, doctor.ParamPortRange, doctor.ParamReserved,
	}
	for _, device := range append([]doctor.Interface{{Name: "all"}}, g.facts.Interfaces...) {
		for _, name := range []string{"forwarding", "rp_filter", "route_localnet"} {
			paths = append(paths, doctor.ParamOf(nft.IPv4, device.Name, name))
		}
	}
	for _, path := range paths {
		text, err := g.read("proc/sys/" + path)
		if err == nil {
			g.facts.Params[path] = strings.TrimSpace(text)
		} else if !errors.Is(err, fs.ErrNotExist) {
			g.gap(path, err)
		}
	}
}
