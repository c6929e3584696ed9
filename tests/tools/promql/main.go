// SPDX-License-Identifier: Apache-2.0

// promql tells what PromQL expressions ask for, as Prometheus' own parser reads them.
//
//	promql < expressions.json           a JSON list of expressions in, a list of Answers out
//	promql FILE...                      checks rule files, which is silent if all is well
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// Answer is what one expression asks for.
type Answer struct {
	Error     string     // what is wrong with it
	Selectors []Selector // in the order of the expression
	Labels    []string   // that it groups or matches vectors by
}

// Selector is a metric and what its labels are compared with.
type Selector struct {
	Name   string
	Labels map[string]string
}

func main() {
	var err error
	if len(os.Args) > 1 {
		err = check(os.Args[1:])
	} else {
		err = answer(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// check validates rule files as Prometheus does when it loads them.
func check(files []string) error {
	var errs []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		_, wrong := rulefmt.Parse(text, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
		for _, err := range wrong {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
		}
	}
	return errors.Join(errs...)
}

func answer(r io.Reader, w io.Writer) error {
	var expressions []string
	if err := json.NewDecoder(r).Decode(&expressions); err != nil {
		return fmt.Errorf("read expressions: %w", err)
	}
	answers := make([]Answer, len(expressions))
	for i, text := range expressions {
		answers[i] = read(text)
	}
	return json.NewEncoder(w).Encode(answers)
}

// read reads one expression.
func read(text string) (a Answer) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			s := Selector{Name: n.Name, Labels: make(map[string]string)}
			for _, m := range n.LabelMatchers {
				if m.Name != labels.MetricName {
					s.Labels[m.Name] = m.Value
				}
			}
			a.Selectors = append(a.Selectors, s)
		case *parser.AggregateExpr:
			a.Labels = append(a.Labels, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				a.Labels = append(a.Labels, n.VectorMatching.MatchingLabels...)
				a.Labels = append(a.Labels, n.VectorMatching.Include...)
			}
		}
		return nil
	})
	return a
}
