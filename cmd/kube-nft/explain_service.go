// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// serviceReport is what explain says of a Service.
type serviceReport struct {
	explain.Service
	KubeNFT informant `json:"kubeNFT"`
	// Frontends are those in the kernel, or that should be there.
	Frontends []frontendReport `json:"frontends,omitempty"`
	// NodePortsOn are the addresses of the node that serve node ports, by family: addresses,
	// or all.
	NodePortsOn map[string][]string `json:"nodePortsOn,omitempty"`
	Drift       []string            `json:"drift,omitempty"`
	Notes       []string            `json:"notes,omitempty"`
}

// frontendReport is a frontend as the kernel has it.
type frontendReport struct {
	Family   string `json:"family"`
	Port     string `json:"servicePort"` // namespace/name:port
	Frontend string `json:"frontend"`    // as a client addresses it
	Kind     string `json:"kind,omitempty"`
	// Elements are all but the slots, as nft text; none: it is not in the kernel.
	Elements []string `json:"elements,omitempty"`
	// Leads say where packets go.
	Leads       []string       `json:"leads"`
	Connections uint64         `json:"connections"`
	Sources     []netip.Prefix `json:"sourceRanges,omitempty"`
	// Lost: another Service has it.
	Lost string `json:"lostTo,omitempty"`
}

func (o *explainOptions) explainService(ctx context.Context, w io.Writer, conn *kernel.Conn, name types.NamespacedName) error {
	r := serviceReport{Service: explain.Service{Name: name.String()}}
	var err error
	if r.KubeNFT, err = o.informant(ctx); err != nil {
		return err
	}
	if r.KubeNFT.service != nil {
		if r.Service, err = r.KubeNFT.service(name); err != nil {
			return err
		}
	}
	tables, missing := 0, error(nil)
	for _, f := range nft.Families {
		table, err := openTable(ctx, conn, f)
		if errors.Is(err, nft.ErrMissing) {
			missing = err
			continue
		}
		if err != nil {
			return noTable(err)
		}
		tables++
		if err := r.look(table); err != nil {
			return err
		}
	}
	switch {
	case tables == 0:
		return noTable(missing)
	case !r.Known && r.Slices == 0 && len(r.Frontends) == 0:
		return r.nobody()
	}
	return o.write(w, r, r.text)
}

// nobody is the error for a Service that is not there.
func (r *serviceReport) nobody() error {
	if r.KubeNFT.service == nil {
		return fmt.Errorf("the kernel has nothing of Service %s, and whether it should is not known: %s", r.Name, r.KubeNFT.Missing)
	}
	return fmt.Errorf("no Service %s is served here, says %s: headless Services, ExternalNames and those with another proxy's label never are; `kube-nft list` shows those that are",
		r.Name, r.KubeNFT.Whence)
}

// look adds what one family's table has for the Service.
func (r *serviceReport) look(t *kernelTable) error {
	if t.fault != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("somebody has changed the table %s %s: %v", t.family, nft.TableName, t.fault))
	}
	if r.Known {
		for _, p := range r.Ports {
			if p.Family != t.family.String() {
				continue
			}
			for _, f := range p.Frontends {
				r.frontend(t, p, f)
				if !f.Granted {
					continue
				}
				drift, err := driftOf(t, r.Service, p, f)
				if err != nil {
					return err
				}
				r.Drift = append(r.Drift, drift...)
			}
		}
	} else {
		r.found(t)
	}
	r.nodePorts(t)
	return t.err
}

// nodePorts says where node ports are served, if the Service has one.
func (r *serviceReport) nodePorts(t *kernelTable) {
	family := t.family.String()
	if !slices.ContainsFunc(r.Frontends, func(f frontendReport) bool { return f.Family == family && strings.HasPrefix(f.Frontend, "node port") }) {
		return
	}
	var on []string
	if t.schema.Options.AllNodePorts {
		on = []string{"all"}
	}
	t.note(t.conn.List(t.ctx, t.family, nft.NodeIPs, func(e nft.Element, _ uint64) { on = append(on, e.Key.Addr.String()) }))
	if r.NodePortsOn == nil {
		r.NodePortsOn = make(map[string][]string)
	}
	slices.Sort(on)
	r.NodePortsOn[family] = on
}

// frontend adds a frontend that kube-nft knows.
func (r *serviceReport) frontend(t *kernelTable, p explain.ServicePort, f explain.PortFrontend) {
	port := r.Name
	if p.Name != "" {
		port += ":" + p.Name
	}
	out := frontendReport{Family: p.Family, Port: port, Frontend: frontendText(f) + "/" + p.Protocol, Kind: f.Kind}
	if f.Granted {
		proto, _ := parseProto(p.Protocol)
		out.read(t, nft.Key{Addr: f.Address, Proto: proto, Port: f.Port})
	} else {
		out.Lost = f.Winner
	}
	r.Frontends = append(r.Frontends, out)
}

// found looks for frontends by what the kernel says whose they are, since nobody else
// does.
func (r *serviceReport) found(t *kernelTable) {
	ports := make(map[nft.Key]string)
	for _, set := range [...]nft.Set{nft.Services, nft.NodePorts, nft.LocalServices, nft.LocalNodePorts, nft.NoEndpoints, nft.NoEndpointsNodePorts} {
		t.note(t.conn.List(t.ctx, t.family, set, func(e nft.Element, _ uint64) {
			if isOf(e.Value.Comment, r.Name) {
				ports[e.Key] = e.Value.Comment
			}
		}))
	}
	for _, k := range slices.SortedFunc(maps.Keys(ports), nft.Key.Compare) {
		at := explain.PortFrontend{Address: k.Addr, Port: k.Port}
		out := frontendReport{Family: t.family.String(), Port: ports[k], Frontend: frontendText(at) + "/" + k.Proto.String()}
		out.read(t, k)
		r.Frontends = append(r.Frontends, out)
		if r.KubeNFT.service != nil {
			for _, e := range out.Elements {
				r.Drift = append(r.Drift, "only in the kernel: "+e)
			}
		}
	}
}

// read reads what the kernel has for a frontend.
func (f *frontendReport) read(t *kernelTable, k nft.Key) {
	h := t.hold(k)
	f.Connections, f.Sources = h.packets, h.sources
	for _, e := range h.heads {
		f.Elements = append(f.Elements, e.String())
		if e.Set == nft.Firewall || e.Value.Verdict.Kind == nft.Learn {
			continue
		}
		f.Leads = append(f.Leads, h.leadsText(t, e))
	}
	if len(h.heads) == 0 {
		f.Leads = []string{"nowhere: it is not in the kernel"}
	}
}

// leadsText says where an element leads.
func (h *holding) leadsText(t *kernelTable, e nft.Element) string {
	who, to := "", ""
	switch e.Set {
	case nft.LocalServices, nft.LocalNodePorts, nft.AffinityLocalServices, nft.AffinityLocalNodePorts:
		who = "clients: "
	}
	c := e.Value.Verdict
	if set, ok := h.endpointsOf(e); ok && c.N > 0 {
		to = several(len(filled(h.leads[set])), "endpoint")
	}
	pods := podsText(t.schema.Options.LocalPods)
	switch c.Kind {
	case nft.Service:
		switch {
		case t.schema.Options.MasqueradeAll:
			to += ", everybody masqueraded"
		case pods == "":
			to += ", nobody masqueraded"
		default:
			to += ", masqueraded unless from " + pods
		}
	case nft.External, nft.NodePort:
		to += ", everybody masqueraded"
	case nft.Shortcut, nft.NodePortShortcut:
		who, to = "local pods and this node: ", to+", masqueraded unless from "+pods
	case nft.Local, nft.LocalNodePort:
		to += " on this node, nobody masqueraded"
	case nft.Drop:
		to = "dropped: no endpoint is on this node"
	case nft.Reject:
		to = "rejected: no endpoint takes connections"
	default:
		to = "to the endpoint of before, if the client is remembered"
	}
	return who + to
}

// text writes the report for people.
func (r *serviceReport) text(w io.Writer) {
	fmt.Fprintf(w, "Service %s\n", r.Name)
	r.head(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if len(r.Frontends) > 0 {
		fmt.Fprintln(t, "\nFRONTEND\tKIND\tPORT\tCONNECTIONS\tLEADS")
	}
	for _, f := range r.Frontends {
		leads := f.Leads
		if f.Lost != "" {
			leads = []string{"not this Service's: " + f.Lost + " has it"}
		}
		if len(f.Sources) > 0 {
			leads = append(leads, "only from "+join(f.Sources))
		}
		at := f.Frontend
		if strings.HasPrefix(at, "node port") { // of both families
			at += ", " + f.Family
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", at, f.Kind, strings.TrimPrefix(strings.TrimPrefix(f.Port, r.Name), ":"), f.Connections, leads[0])
		for _, more := range leads[1:] {
			fmt.Fprintf(t, "\t\t\t\t%s\n", more)
		}
	}
	t.Flush()
	r.nodePortsText(w)
	for _, p := range r.Ports {
		r.endpoints(w, p)
	}
	driftText(w, r.Drift, r.KubeNFT)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\nNote: %s.\n", n)
	}
}

// nodePortsText writes where node ports are served.
func (r *serviceReport) nodePortsText(w io.Writer) {
	for _, f := range nft.Families {
		on, asked := r.NodePortsOn[f.String()]
		switch {
		case !asked:
		case len(on) == 0:
			fmt.Fprintf(w, "Node ports of family %s are served on no address of this node.\n", f)
		case on[0] == "all":
			fmt.Fprintf(w, "Node ports of family %s are served on all addresses of this node but loopback.\n", f)
		default:
			fmt.Fprintf(w, "Node ports of family %s are served on %s.\n", f, strings.Join(on, ", "))
		}
	}
}

func (r *serviceReport) head(w io.Writer) {
	if !r.Known {
		if r.KubeNFT.service != nil {
			fmt.Fprintf(w, "  No such Service is served here; it has %d EndpointSlices.\n", r.Slices)
		}
		return
	}
	fmt.Fprintf(w, "  internal traffic policy %s, external %s", r.InternalPolicy, r.ExternalPolicy)
	if r.Affinity > 0 {
		fmt.Fprintf(w, ", clients remembered for %d s", r.Affinity)
	}
	if r.Zone != "" {
		fmt.Fprintf(w, "; this node is in zone %s", r.Zone)
	}
	fmt.Fprintf(w, "\n  %d EndpointSlices\n", r.Slices)
	if r.Doubt != "" {
		fmt.Fprintf(w, "  Doubtful: %s\n", r.Doubt)
	}
}

// endpoints writes those of a port, with what becomes of each.
func (r *serviceReport) endpoints(w io.Writer, p explain.ServicePort) {
	name := p.Name
	if name == "" {
		name = "without a name"
	}
	fmt.Fprintf(w, "\nEndpoints of port %s, %s, %s\n", name, p.Protocol, p.Family)
	if len(p.Endpoints) == 0 {
		fmt.Fprintln(w, "  none: no EndpointSlice has a port of this name and protocol with an address of this family")
		return
	}
	local := r.InternalPolicy == "Local" || r.ExternalPolicy == "Local"
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	columns := "  ENDPOINT\tCONDITION\tNODE\tHINTS\tTAKES\tBECAUSE"
	if local {
		columns = "  ENDPOINT\tCONDITION\tNODE\tHINTS\tPOLICY CLUSTER\tPOLICY LOCAL"
	}
	fmt.Fprintln(t, columns)
	for _, e := range p.Endpoints {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t", e.Address, condition(e), map[bool]string{true: "this", false: "another"}[e.Here], hints(e))
		if local {
			fmt.Fprintf(t, "%s\t%s\n", inText(e.Cluster), inText(e.Local))
		} else {
			fmt.Fprintf(t, "%s\t%s\n", yes(e.Cluster.In), e.Cluster.Why)
		}
	}
	t.Flush()
}

func yes(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }

func inText(v explain.Verdict) string { return yes(v.In) + ": " + v.Why }

func condition(e explain.Endpoint) string {
	words := []string{"not ready"}
	if e.Ready {
		words = []string{"ready"}
	}
	if e.Terminating {
		words = append(words, "terminating")
		if e.Serving {
			words = append(words, "serving")
		}
	}
	return strings.Join(words, ", ")
}

func hints(e explain.Endpoint) string {
	var words []string
	switch {
	case e.ForThisNode:
		words = append(words, "this node")
	case e.NodeHints:
		words = append(words, "other nodes")
	}
	if len(e.ZoneHints) > 0 {
		words = append(words, "zone "+strings.Join(e.ZoneHints, ", "))
	}
	if words == nil {
		return "-"
	}
	return strings.Join(words, "; ")
}
