// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/controller/migrate"
	"github.com/kube-nft/kube-nft/nft/kubeproxy"
)

// migration is the report.
type migration struct {
	KubeProxy proxyReport      `json:"kubeProxy"`
	KubeNFT   ourReport        `json:"kubeNFT"`
	Changes   []migrate.Change `json:"changes"`
	// Next is what to do now, in order.
	Next []string `json:"next"`
}

type proxyReport struct {
	Mode    string `json:"mode"`
	Running bool   `json:"running"`
	Process int    `json:"process,omitempty"`
	Config  string `json:"config,omitempty"` // where it was found
	// Left is what kube-proxy has programmed, and Stays what will not be removed.
	Left      []string `json:"left"`
	Stays     []string `json:"stays,omitempty"`
	Frontends int      `json:"frontends"`
}

type ourReport struct {
	Running    bool `json:"running"`
	Programmed bool `json:"programmed"`
	Frontends  int  `json:"frontends"`
	// Missing are in kube-proxy's rules and not in our tables.
	Missing []string `json:"missing,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

// report says what changes, and changes nothing.
func (o *migrateOptions) report(ctx context.Context, w io.Writer) error {
	switch o.output {
	case "text", "json", "yaml":
	default:
		return fmt.Errorf("--output %q: text, json or yaml; %w", o.output, errUsage)
	}
	running, err := proxiesHere("/proc")
	if err != nil {
		return err
	}
	conf, err := findConfig(o.file, running)
	if err != nil {
		return err
	}
	found, served, err := findLeftovers(ctx)
	if err != nil {
		return err
	}
	m := newMigration(ctx, running, conf, &found, served)
	switch o.output {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(m)
	case "yaml":
		text, err := yaml.Marshal(m)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	}
	m.print(w)
	return nil
}

func newMigration(ctx context.Context, running []proxyProcess, conf proxyConfig, found *kubeproxy.Found, served []kubeproxy.Frontend) *migration {
	facts := factsOf(conf, found)
	m := &migration{
		KubeProxy: proxyReport{Mode: facts.Mode, Config: conf.from, Left: found.Lines(), Stays: found.KeptLines(), Frontends: len(found.Frontends())},
		KubeNFT:   ourReport{Frontends: len(served)},
		Changes:   migrate.Changes(facts),
	}
	if len(running) > 0 {
		m.KubeProxy.Running, m.KubeProxy.Process = true, running[0].pid
	}
	err := programmedHere(ctx)
	m.KubeNFT.Running, m.KubeNFT.Programmed = !errors.Is(err, errNotRunning), err == nil
	if err != nil && m.KubeNFT.Running {
		m.KubeNFT.Problem = err.Error()
	}
	if m.KubeNFT.Running {
		for _, f := range kubeproxy.Missing(found.Frontends(), served) {
			m.KubeNFT.Missing = append(m.KubeNFT.Missing, f.String())
		}
	}
	m.Next = m.next(found.Empty())
	return m
}

// next says what to do now.
func (m *migration) next(clean bool) (steps []string) {
	if clean && m.KubeNFT.Running {
		return []string{"nothing: kube-proxy has left nothing here"}
	}
	if !m.KubeNFT.Running {
		config := "kube-proxy's configuration file"
		if m.KubeProxy.Config != "" && !strings.HasPrefix(m.KubeProxy.Config, "--") {
			config, _, _ = strings.Cut(m.KubeProxy.Config, " of ")
		}
		steps = append(steps, "start kube-nft here with --config "+config+": in its mode, and on ports of its own while kube-proxy runs (docs/migrate.md)")
	}
	if m.KubeProxy.Running {
		steps = append(steps, "stop kube-proxy here; its rules stay, and go on to carry packets")
	}
	return append(steps, "kube-nft migrate take-over --dry-run", "kube-nft migrate take-over")
}

func (m *migration) print(w io.Writer) {
	p := m.KubeProxy
	mode := p.Mode
	if mode == "" {
		mode = "unknown: it has programmed nothing here, and does not run here; see --config"
	}
	fmt.Fprintf(w, "kube-proxy\n  mode     %s\n", mode)
	if p.Config != "" {
		fmt.Fprintf(w, "  config   %s\n", p.Config)
	}
	if p.Running {
		fmt.Fprintf(w, "  runs     as process %d\n", p.Process)
	} else {
		fmt.Fprintln(w, "  runs     no, as far as can be seen from here")
	}
	printLines(w, "  has left ", p.Left)
	printLines(w, "  stays    ", p.Stays)
	m.printOurs(w)
	fmt.Fprintln(w, "\nWhat changes")
	for _, c := range m.Changes {
		mark := "-"
		if c.Breaks {
			mark = "!"
		}
		fmt.Fprintf(w, "%s %s\n    do: %s\n", mark, c.What, c.Do)
	}
	fmt.Fprintln(w, "\nNext")
	for i, step := range m.Next {
		fmt.Fprintf(w, "%d. %s\n", i+1, step)
	}
}

func (m *migration) printOurs(w io.Writer) {
	k := m.KubeNFT
	fmt.Fprintln(w, "\nkube-nft")
	switch {
	case !k.Running:
		fmt.Fprintln(w, "  runs     no")
		return
	case k.Problem != "":
		fmt.Fprintf(w, "  runs     yes, but %s\n", k.Problem)
	default:
		fmt.Fprintf(w, "  runs     yes, and carries %d frontends\n", k.Frontends)
	}
	const most = 10
	for i, missing := range k.Missing {
		if i == most {
			fmt.Fprintf(w, "  missing  and %d more\n", len(k.Missing)-most)
			break
		}
		fmt.Fprintf(w, "  missing  %s\n", missing)
	}
}
