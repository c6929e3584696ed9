// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/ruleset"
	"github.com/kube-nft/kube-nft/nft/trace"
)

func tableOf(f nft.Family) string { return f.String() + " " + nft.TableName }

func checkTables(f *Facts) (all []Finding) {
	for i := range f.Families {
		family := &f.Families[i]
		name := "table " + tableOf(family.Family)
		switch family.State {
		case Missing:
			missing := tableMissing.at(name, "no %s: no %s Service is served here", name, ipName(family.Family))
			if f.Running.State == Runs && f.Running.Programmed {
				missing = missing.mend("stop who removes it again and again: the log of kube-nft, which runs (%s), names the process; docs/heal.md", f.Running.Detail)
			}
			all = append(all, missing)
		case Foreign:
			all = append(all, tableForeign.at(name, "%s", family.Detail).mend("nft delete table %s, if nobody needs it", tableOf(family.Family)))
		case OtherSchema:
			all = append(all, tableSchema.at(name, "%s", family.Detail))
		case Altered:
			all = append(all, tableAltered.at(name, "%s", family.Detail))
		case Dormant:
			all = append(all, tableDormant.at(name, "%s is dormant, packets pass it by", name).
				mend("nft add table %s", tableOf(family.Family)))
		}
	}
	return all
}

// checkSizes looks at how full sets are. Maps from clients have a size of their own.
func checkSizes(f *Facts) (all []Finding) {
	for i := range f.Families {
		family := &f.Families[i]
		for _, set := range nft.Sets {
			if n, size := family.Counts[set], int(family.Sizes[set]); size > 0 && n*100 >= size*95 {
				all = append(all, setFilling.at(fmt.Sprintf("%s %s", tableOf(family.Family), set), "%d of %d elements", n, size))
			}
		}
		for _, port := range sortedPorts(family.Clients) {
			if n := family.Clients[port]; n*100 >= nft.AffinitySize*90 {
				all = append(all, affinityFilling.at(port.String(), "%d of %d clients are remembered in family %s", n, nft.AffinitySize, family.Family))
			}
		}
	}
	return all
}

func sortedPorts(clients map[nft.Port]int) []nft.Port {
	ports := make([]nft.Port, 0, len(clients))
	for p := range clients {
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b nft.Port) int { return cmp.Compare(a.String(), b.String()) })
	return ports
}

// programmed reports whether some table of ours is there.
func (f *Facts) programmed() bool {
	return slices.ContainsFunc(f.Families, func(x Family) bool {
		return x.State != Unknown && x.State != Missing && x.State != Foreign
	})
}

func checkRunning(f *Facts) []Finding {
	switch {
	case f.Running.State == NotRunning && f.programmed():
		return []Finding{notRunning.at("kube-nft", "no kube-nft runs in this network namespace, and its tables are there")}
	case f.Running.State == Stranger:
		return []Finding{socketTaken.at("@kube-nft", "%s", f.Running.Detail)}
	case f.Running.State == Runs && !f.Running.Programmed:
		return []Finding{notProgrammed.at("kube-nft", "%s has not programmed everything", f.Running.Detail)}
	}
	return nil
}

func checkProxies(f *Facts) (all []Finding) {
	for _, p := range f.Proxies {
		found := kubeProxyRuns.at(fmt.Sprintf("process %d", p.PID), "%s, process %d, runs beside kube-nft", p.Name, p.PID)
		if !p.Sure {
			found = found.likely()
		}
		all = append(all, found)
	}
	if len(f.Leftovers) > 0 {
		found := kubeProxyLeft.at("kube-proxy", "of kube-proxy, mode %s, there is: %s", cmp.Or(f.LeftoverMode, "unknown"), strings.Join(f.Leftovers, "; "))
		if f.LeftoversInert {
			found.Severity = Note
			found.Why = "these chains have no rules and do nothing"
		}
		all = append(all, found)
	}
	return all
}

func checkTrace(f *Facts) (all []Finding) {
	for _, t := range f.Tables {
		if t.Name != trace.TableName {
			continue
		}
		found := traceLeft.at("table "+t.String(), "table %s is there", t)
		if t.Owner != 0 {
			found.What += fmt.Sprintf(", and belongs to netlink port %d, as a rule a process of that number", t.Owner)
		}
		all = append(all, found.mend("end that trace, or nft delete table %s", t))
	}
	return all
}

// others are the tables that are neither ours nor kube-proxy's, without what
// kube-proxy and the kubelet have in those of iptables.
func (f *Facts) others() (tables []*ruleset.Table) {
	for _, t := range f.Tables {
		switch {
		case ours(t), t.Name == "kube-proxy", t.Name == trace.TableName:
		default:
			tables = append(tables, t.Without(func(chain string) bool { return strings.HasPrefix(chain, "KUBE-") }))
		}
	}
	return tables
}
