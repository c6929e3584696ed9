// SPDX-License-Identifier: Apache-2.0

// Package monitoring tests deploy/monitoring: that the alerts and the dashboard ask
// for metrics and labels that the program has. docs/metrics.md lists them, and a test
// in cmd/kube-nft keeps that list equal to the program's registry.
package monitoring

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"sigs.k8s.io/yaml"
)

const (
	alerts    = "../../deploy/monitoring/alerts.yaml"
	dashboard = "../../deploy/monitoring/dashboard.json"
)

// metric is what a name in an expression stands for.
type metric struct {
	kind   string
	labels []string
}

// query is an expression, and the labels that the text beside it shows of its result.
type query struct {
	where, expr string
	shown       []string
}

// TestRules: Prometheus loads the alerts, each says how bad it is and what to do, and
// asks for what there is.
func TestRules(t *testing.T) {
	t.Parallel()
	path, err := filepath.Abs(alerts)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := promql(t, nil, path); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var queries []query
	for _, group := range readAlerts(t) {
		for _, r := range group.Rules {
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: no severity, summary or description", r.Alert)
			}
			text := r.Annotations["summary"] + r.Annotations["description"]
			queries = append(queries, query{r.Alert, r.Expr, submatches(`\$labels\.(\w+)`, text)})
		}
	}
	verify(t, queries)
}

// TestDashboard: each panel asks for what there is, and shows labels that its result
// can have.
func TestDashboard(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	var queries []query
	titles := make(map[string]bool)
	for _, p := range board.Panels {
		if titles[p.Title] || p.Title == "" || (p.Type != "row" && len(p.Targets) == 0) {
			t.Errorf("panel %q has no name of its own or nothing to show", p.Title)
		}
		titles[p.Title] = true
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(target.Expr)
			queries = append(queries, query{p.Title, expr, submatches(`\{\{(\w+)\}\}`, target.LegendFormat)})
		}
	}
	for _, v := range board.Templating.List {
		if v.Type == "query" {
			fields := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Query)
			if fields == nil {
				t.Fatalf("variable %s: cannot read %s", v.Name, v.Query)
			}
			queries = append(queries, query{"variable " + v.Name, fields[1], fields[2:]})
		}
	}
	verify(t, queries)
}

// verify compares what the queries ask for with what there is.
func verify(t *testing.T, queries []query) {
	t.Helper()
	if len(queries) < 5 {
		t.Fatalf("only %d queries were found", len(queries))
	}
	known := knownMetrics(t)
	for i, a := range parse(t, queries) {
		q := queries[i]
		if a.Error != "" || len(a.Selectors) == 0 {
			t.Errorf("%s: %s: %s; %d metrics", q.where, q.expr, a.Error, len(a.Selectors))
		}
		var possible []string // labels of the metrics together
		missing := false
		for _, s := range a.Selectors {
			m, ok := known[s.Name]
			if !ok {
				t.Errorf("%s: no metric %s", q.where, s.Name)
				missing = true
				continue
			}
			for label := range s.Labels {
				if !slices.Contains(m.labels, label) {
					t.Errorf("%s: %s has no label %s, but %v", q.where, s.Name, label, m.labels)
				}
			}
			possible = append(possible, m.labels...)
		}
		if missing {
			continue
		}
		for _, label := range a.Labels {
			if !slices.Contains(possible, label) {
				t.Errorf("%s: no metric of %s has label %s", q.where, q.expr, label)
			}
		}
		if len(a.Labels) > 0 { // what an aggregation does not keep is gone
			possible = a.Labels
		}
		for _, label := range q.shown {
			if !slices.Contains(possible, label) {
				t.Errorf("%s: the result of %s has no label %s", q.where, q.expr, label)
			}
		}
	}
}

// knownMetrics are those of docs/metrics.md, of every program in Go, and Prometheus'
// own, under the names that expressions use.
func knownMetrics(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]metric{"up": {"gauge", nil}}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| (.*?) \\|").FindAllStringSubmatch(string(text), -1) {
		known[row[1]] = metric{row[2], submatches("`([a-z_]+)`", row[3])}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		m := metric{kind: strings.ToLower(f.GetType().String())}
		for _, l := range f.GetMetric()[0].GetLabel() {
			m.labels = append(m.labels, l.GetName())
		}
		known[f.GetName()] = m
	}
	names := make(map[string]metric)
	for name, m := range known {
		m.labels = append(slices.Clip(m.labels), "instance", "job") // Prometheus adds them to all
		if m.kind != "histogram" {
			names[name] = m
			continue
		}
		names[name+"_sum"], names[name+"_count"] = m, m
		names[name+"_bucket"] = metric{m.kind, append(slices.Clip(m.labels), "le")}
	}
	return names
}

// answer is what an expression asks for; see tests/tools/promql.
type answer struct {
	Error     string
	Selectors []struct {
		Name   string
		Labels map[string]string
	}
	Labels []string // that it groups or matches vectors by
}

// parse has Prometheus' parser read the queries.
func parse(t *testing.T, queries []query) (answers []answer) {
	t.Helper()
	exprs := make([]string, len(queries))
	for i, q := range queries {
		exprs[i] = q.expr
	}
	input, err := json.Marshal(exprs)
	if err != nil {
		t.Fatal(err)
	}
	out, err := promql(t, input)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(queries) {
		t.Fatalf("%d answers for %d queries, %v", len(answers), len(queries), err)
	}
	return answers
}

// promql runs the program of that name in tests/tools.
func promql(t *testing.T, input []byte, args ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "./promql"}, args...)...)
	cmd.Dir = "../tools"
	cmd.Stdin = bytes.NewReader(input)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Log(stderr.String())
	}
	return out, err
}

type ruleGroup struct {
	Name  string
	Rules []struct {
		Alert, Expr         string
		Labels, Annotations map[string]string
	}
}

func readAlerts(t *testing.T) []ruleGroup {
	t.Helper()
	text, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []ruleGroup }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups
}

// submatches returns the first group of each match.
func submatches(pattern, text string) (found []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}
