// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"

	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// The objects that list and the status page write. Their fields are in docs/see.md;
// they may become more, and none of them changes its meaning within a version.

// objectVersion is the apiVersion of what we write.
const objectVersion = "kube-nft/v1"

type listObject struct {
	APIVersion    string        `json:"apiVersion"`
	Kind          string        `json:"kind"`
	Tables        []tableObject `json:"tables"`
	NodeAddresses []netip.Addr  `json:"nodeAddresses"`
	Items         []portObject  `json:"items"`
}

type tableObject struct {
	Table    string `json:"table"`
	IPFamily string `json:"ipFamily"`
	// Whole is false if something was committed while the table was read.
	Whole bool `json:"whole"`
	// Altered says what in the constant part somebody changed.
	Altered  string         `json:"altered,omitempty"`
	Features []string       `json:"features"`
	Elements map[string]int `json:"elements"` // by set, as far as the kernel tells
}

type portObject struct {
	Namespace   string           `json:"namespace"`
	Service     string           `json:"service"`
	Port        string           `json:"port,omitempty"`
	Protocol    string           `json:"protocol"`
	State       string           `json:"state"`
	Connections uint64           `json:"connections"`
	PerSecond   *float64         `json:"connectionsPerSecond,omitempty"` // of the status page
	Affinity    *affinityObject  `json:"affinity,omitempty"`
	Frontends   []frontendObject `json:"frontends"`
	Endpoints   []endpointObject `json:"endpoints"`
}

type affinityObject struct {
	TimeoutSeconds int  `json:"timeoutSeconds"`
	Clients        *int `json:"clients,omitempty"`
	Full           bool `json:"full"`
}

type frontendObject struct {
	Kind     string `json:"kind"`
	IPFamily string `json:"ipFamily"`
	Address  string `json:"address,omitempty"`
	Port     uint16 `json:"port"`
	wayObject
	// Others is the way of those who are neither pods on this node nor the node.
	Others       *wayObject `json:"others,omitempty"`
	SourceRanges *[]string  `json:"sourceRanges,omitempty"`
}

type wayObject struct {
	State      string           `json:"state"`
	Torn       bool             `json:"torn,omitempty"`
	Masquerade string           `json:"masquerade,omitempty"`
	Packets    uint64           `json:"packets"`
	Endpoints  []netip.AddrPort `json:"endpoints"`
}

type endpointObject struct {
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port"`
	ThisNode bool       `json:"thisNode"`
}

// familyName is the API's word for a family (corev1.IPFamily).
func familyName(f nft.Family) string {
	if f == nft.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

func objectOfPort(v *view.View, p *view.ServicePort) portObject {
	o := portObject{
		Namespace: p.Namespace, Service: p.Service, Port: p.Name.Port, Protocol: p.Protocol.String(),
		State: p.Worst().String(), Connections: p.Connections(),
		Frontends: make([]frontendObject, len(p.Frontends)), Endpoints: []endpointObject{},
	}
	if a := p.Affinity; a != nil {
		o.Affinity = &affinityObject{TimeoutSeconds: int(a.Timeout.Seconds()), Full: a.Full()}
		if a.Clients >= 0 {
			o.Affinity.Clients = &a.Clients
		}
	}
	for i := range p.Frontends {
		o.Frontends[i] = objectOfFrontend(&p.Frontends[i])
	}
	for _, e := range p.Endpoints() {
		o.Endpoints = append(o.Endpoints, endpointObject{e.Addr(), e.Port(), v.Here(e.Addr())})
	}
	return o
}

func objectOfFrontend(f *view.Frontend) frontendObject {
	o := frontendObject{Kind: f.Kind.String(), IPFamily: familyName(f.Family), Port: f.Port, wayObject: objectOfWay(&f.Way)}
	if f.Addr.IsValid() {
		o.Address = f.Addr.String()
	}
	if f.Local != nil {
		others := objectOfWay(f.Local)
		o.Others = &others
	}
	if f.Restricted {
		ranges := make([]string, len(f.Sources))
		for i, s := range f.Sources {
			ranges[i] = s.String()
		}
		o.SourceRanges = &ranges
	}
	return o
}

func objectOfWay(w *view.Way) wayObject {
	o := wayObject{State: w.State.String(), Torn: w.Torn, Packets: w.Packets, Endpoints: w.Endpoints}
	if w.State == view.Served {
		o.Masquerade = w.Masquerade.String()
	}
	if o.Endpoints == nil {
		o.Endpoints = []netip.AddrPort{}
	}
	return o
}

// featureNames name the features of a table, in the order of their bits.
var featureNames = []struct {
	feature nft.Features
	name    string
}{
	{nft.LocalPolicy, "LocalPolicy"},
	{nft.ClientAffinity, "ClientAffinity"},
	{nft.SourceFilter, "SourceFilter"},
	{nft.ServiceRanges, "ServiceRanges"},
	{nft.Hairpins, "Hairpins"},
	{nft.LocalAffinity, "LocalAffinity"},
	{nft.NodePortAffinity, "NodePortAffinity"},
}

func objectOfTable(found *kernel.Survey) tableObject {
	f := found.Schema.Family
	o := tableObject{
		Table: f.String() + " " + nft.TableName, IPFamily: familyName(f), Whole: found.Whole,
		Features: []string{}, Elements: make(map[string]int),
	}
	if found.Altered != nil {
		o.Altered = found.Altered.Error()
	}
	for _, n := range featureNames {
		if found.Schema.Features&n.feature != 0 {
			o.Features = append(o.Features, n.name)
		}
	}
	for _, set := range found.Schema.Sets() {
		if n := found.Counts[set]; n >= 0 {
			o.Elements[set.String()] = n
		}
	}
	return o
}

// printObjects writes Service ports as JSON or YAML.
func printObjects(w io.Writer, form string, seen *sight, ports []view.ServicePort) error {
	list := listObject{APIVersion: objectVersion, Kind: "ServicePortList", Tables: []tableObject{}, NodeAddresses: []netip.Addr{}}
	for _, found := range seen.found {
		list.Tables = append(list.Tables, objectOfTable(found))
	}
	list.NodeAddresses = append(list.NodeAddresses, seen.view.NodeAddrs...)
	if form == "yaml" {
		return printYAML(w, &list, seen.view, ports)
	}
	list.Items = make([]portObject, len(ports))
	for i := range ports {
		list.Items[i] = objectOfPort(seen.view, &ports[i])
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fmt.Errorf("write json: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

// printYAML writes one item after the other: 10,000 Services as one document would take
// the YAML library more than a gigabyte.
func printYAML(out io.Writer, list *listObject, v *view.View, ports []view.ServicePort) error {
	w := bufio.NewWriter(out)
	head, err := yaml.Marshal(map[string]any{"apiVersion": list.APIVersion, "kind": list.Kind, "tables": list.Tables, "nodeAddresses": list.NodeAddresses})
	if err != nil {
		return fmt.Errorf("write yaml: %w", err)
	}
	_, _ = w.Write(head) // Flush tells
	if len(ports) == 0 {
		fmt.Fprintln(w, "items: []")
	} else {
		fmt.Fprintln(w, "items:")
	}
	for i := range ports {
		item, err := yaml.Marshal([]portObject{objectOfPort(v, &ports[i])})
		if err != nil {
			return fmt.Errorf("write yaml: %w", err)
		}
		_, _ = w.Write(item) // Flush tells
	}
	return w.Flush()
}
