// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A manifest is read into a tree of our own, with the line of every value, so
// that an error can name the line that must be mended. The YAML is that of
// version 1.2 (yes and no are strings); JSON is YAML.

// nodeKind is what a value is.
type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	intNode
	floatNode
	textNode
	mapNode
	listNode
)

func (k nodeKind) String() string {
	return [...]string{"nothing", "a boolean", "a number", "a number", "a text", "a mapping", "a list"}[k]
}

// node is a value: text for a scalar, fields for a mapping, items for a list.
type node struct {
	kind   nodeKind
	line   int
	text   string
	fields []field
	items  []*node
}

// field is one entry of a mapping. Duplicates are still there.
type field struct {
	name  string
	line  int
	value *node
}

// get returns the value of the first field of that name, nil if there is none.
func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	for _, f := range n.fields {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

// problem is what is wrong with a value, at a line and a path such as
// spec.ports[0].port.
type problem struct {
	line int
	path string
	text string
}

func (p problem) Error() string {
	if p.path == "" {
		return p.text
	}
	return p.path + ": " + p.text
}

// under puts the problems of a part below the name of that part.
func under(name string, problems []problem) []problem {
	for i, p := range problems {
		switch {
		case p.path == "" || strings.HasPrefix(p.path, "["):
			problems[i].path = name + p.path
		default:
			problems[i].path = name + "." + p.path
		}
	}
	return problems
}

// parseYAML reads every document of data. Of a stream that breaks off it returns
// the problem alone.
func parseYAML(data []byte) ([]*node, *problem) {
	var docs []*node
	r := resolver{left: 4*len(data) + 1000}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var y yaml.Node
		err := decoder.Decode(&y)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, syntaxProblem(err)
		}
		n, p := r.resolve(&y, 0)
		if p != nil {
			return nil, p
		}
		if n.kind != nullNode {
			docs = append(docs, n)
		}
	}
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s:(.*))$`)

func syntaxProblem(err error) *problem {
	p := &problem{line: 1, text: err.Error()}
	if m := syntaxLine.FindStringSubmatch(p.text); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			p.line = line
		}
		p.text = m[2]
	}
	if strings.HasPrefix(p.text, "did not find expected") {
		p.text += ", somewhere in the block that begins here" // the parser tells that line
	}
	p.text = "not YAML: " + p.text
	return p
}

// maxDepth bounds nesting, of which no object of ours needs a third.
const maxDepth = 64

// resolver turns parsed YAML into our tree: aliases and merge keys are replaced
// by what they stand for. That can make a few bytes stand for any number of
// values, and for ones that contain themselves, hence the bounds.
type resolver struct {
	left int // values that may still be made, in proportion to the file
}

func (r *resolver) resolve(y *yaml.Node, depth int) (*node, *problem) {
	if r.left--; r.left < 0 || depth > maxDepth {
		return nil, &problem{line: y.Line, text: "too large or nested too deeply (an alias within itself?)"}
	}
	n := &node{line: y.Line}
	switch y.Kind {
	case yaml.DocumentNode:
		return r.resolve(y.Content[0], depth+1)
	case yaml.AliasNode:
		return r.resolve(y.Alias, depth+1)
	case yaml.ScalarNode:
		n.kind, n.text = scalarKind(y), y.Value
	case yaml.SequenceNode:
		n.kind = listNode
		for _, c := range y.Content {
			item, p := r.resolve(c, depth+1)
			if p != nil {
				return nil, p
			}
			n.items = append(n.items, item)
		}
	case yaml.MappingNode:
		n.kind = mapNode
		return n, r.resolveFields(n, y, depth)
	}
	return n, nil
}

func (r *resolver) resolveFields(n *node, y *yaml.Node, depth int) *problem {
	var merged []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return &problem{line: key.Line, text: "a field name must be a text"}
		}
		value, p := r.resolve(y.Content[i+1], depth+1)
		if p != nil {
			return p
		}
		switch {
		case key.ShortTag() != "!!merge":
			n.fields = append(n.fields, field{name: key.Value, line: y.Content[i].Line, value: value})
		case value.kind == listNode:
			merged = append(merged, value.items...)
		default:
			merged = append(merged, value)
		}
	}
	for _, m := range merged {
		if m.kind != mapNode {
			return &problem{line: m.line, text: "a merge key (<<) wants a mapping"}
		}
		for _, f := range m.fields {
			if n.get(f.name) == nil {
				n.fields = append(n.fields, f)
			}
		}
	}
	return nil
}

func scalarKind(y *yaml.Node) nodeKind {
	switch y.ShortTag() {
	case "!!null":
		return nullNode
	case "!!bool":
		return boolNode
	case "!!int":
		return intNode
	case "!!float":
		return floatNode
	default:
		return textNode
	}
}

// integer returns the value of an intNode.
func (n *node) integer() (int64, error) {
	return strconv.ParseInt(strings.ReplaceAll(n.text, "_", ""), 0, 64)
}

// MarshalJSON implements json.Marshaler.
func (n *node) MarshalJSON() ([]byte, error) {
	switch n.kind {
	case nullNode:
		return []byte("null"), nil
	case boolNode:
		return json.Marshal(strings.EqualFold(n.text, "true"))
	case intNode:
		if i, err := n.integer(); err == nil {
			return json.Marshal(i)
		}
		return json.Marshal(n.text)
	case floatNode:
		if f, err := strconv.ParseFloat(n.text, 64); err == nil {
			if out, err := json.Marshal(f); err == nil {
				return out, nil
			}
		}
		return json.Marshal(n.text)
	case listNode:
		return json.Marshal(n.items)
	case mapNode:
		m := make(map[string]*node, len(n.fields))
		for _, f := range n.fields {
			m[f.name] = f.value
		}
		return json.Marshal(m)
	default:
		return json.Marshal(n.text)
	}
}

// lineOf returns the line of the value at path, or of the nearest thing above it
// that the manifest says.
func (n *node) lineOf(path string) int {
	line := n.line
	for path != "" && n != nil {
		var step string
		step, path = pathStep(path)
		var next *node
		if i, err := strconv.Atoi(step); err == nil && n.kind == listNode && i >= 0 && i < len(n.items) {
			next = n.items[i]
			line = next.line
		}
		for _, f := range n.fields {
			if f.name == step {
				next, line = f.value, f.line
				break
			}
		}
		n = next
	}
	return line
}

// pathStep splits "spec.ports[0].port" into "spec" and "ports[0].port", and
// "[0].port" into "0" and "port".
func pathStep(path string) (step, rest string) {
	if inner, ok := strings.CutPrefix(path, "["); ok {
		step, rest, _ = strings.Cut(inner, "]")
		return step, strings.TrimPrefix(rest, ".")
	}
	i := strings.IndexAny(path, ".[")
	if i < 0 {
		return path, ""
	}
	return path[:i], strings.TrimPrefix(path[i:], ".")
}

// quoted shows a scalar in an error message.
func (n *node) quoted() string {
	switch n.kind {
	case nullNode, mapNode, listNode:
		return n.kind.String()
	case textNode:
		return fmt.Sprintf("the text %.60q", n.text)
	default:
		return fmt.Sprintf("%s, %.60s", n.kind, n.text)
	}
}
