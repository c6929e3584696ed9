// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// ManifestError says what is wrong with a manifest, and where.
type ManifestError struct {
	File   string
	Line   int
	Object string // as "Service default/web"; empty when it is not known
	Err    error
}

// Error implements error: file:line, object, problem.
func (e *ManifestError) Error() string {
	if e.Object == "" {
		return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("%s:%d: %s: %v", e.File, e.Line, e.Object, e.Err)
}

// Unwrap returns the cause.
func (e *ManifestError) Unwrap() error { return e.Err }

// objectKey names an object of any of our kinds.
type objectKey struct {
	kind kind
	types.NamespacedName
}

func (k objectKey) String() string {
	if k.Namespace == "" {
		return string(k.kind) + " " + k.Name
	}
	return string(k.kind) + " " + k.NamespacedName.String()
}

// kind is one of the kinds that are used.
type kind string

const (
	kindService     kind = "Service"
	kindSlice       kind = "EndpointSlice"
	kindNode        kind = "Node"
	kindServiceCIDR kind = "ServiceCIDR"
)

// kinds maps apiVersion and kind to what is used. Lists of a kind are found by
// the suffix List.
var kinds = map[[2]string]kind{
	{"v1", "Service"}:                            kindService,
	{"discovery.k8s.io/v1", "EndpointSlice"}:     kindSlice,
	{"v1", "Node"}:                               kindNode,
	{"networking.k8s.io/v1", "ServiceCIDR"}:      kindServiceCIDR,
	{"v1", "List"}:                               "",
	{"v1", "ServiceList"}:                        kindService,
	{"discovery.k8s.io/v1", "EndpointSliceList"}: kindSlice,
	{"v1", "NodeList"}:                           kindNode,
	{"networking.k8s.io/v1", "ServiceCIDRList"}:  kindServiceCIDR,
}

// object is one object of a manifest, defaulted and stripped.
type object struct {
	key    objectKey
	line   int
	object runtime.Object
}

// manifest is what a file says.
type manifest struct {
	objects []object
	ignored map[string]int // other kinds, and the line of the first object of each
	errs    []error        // every one a *ManifestError; any of them makes the file bad
}

// parser reads the documents of one file.
type parser struct {
	manifest
	file  string
	check func(runtime.Object) error
	seen  map[objectKey]int // line of the object
}

// parseManifest reads a file's content. check may be nil.
func parseManifest(file string, data []byte, check func(runtime.Object) error) manifest {
	p := parser{file: file, check: check, seen: map[objectKey]int{}}
	p.ignored = map[string]int{}
	docs, bad := parseYAML(data)
	if bad != nil {
		p.fail(bad.line, "", errors.New(bad.Error()))
	}
	for _, doc := range docs {
		p.document(doc, "", "")
	}
	return p.manifest
}

func (p *parser) fail(line int, object string, err error) {
	p.errs = append(p.errs, &ManifestError{File: p.file, Line: line, Object: object, Err: err})
}

// document reads an object or a list. The version and kind given are those of
// the list that the object is in, for items that do not say their own.
func (p *parser) document(n *node, apiVersion, kindName string) {
	if n.kind != mapNode {
		p.fail(n.line, "", fmt.Errorf("wants an object with apiVersion and kind, not %s", n.quoted()))
		return
	}
	if v := n.get("apiVersion"); v != nil && v.kind == textNode {
		apiVersion = v.text
	}
	if v := n.get("kind"); v != nil && v.kind == textNode {
		kindName = v.text
	}
	if apiVersion == "" || kindName == "" {
		p.fail(n.line, "", errors.New("apiVersion and kind: missing"))
		return
	}
	k, ours := kinds[[2]string{apiVersion, kindName}]
	switch item, list := strings.CutSuffix(kindName, "List"); {
	case !ours:
		if other := apiVersion + " " + kindName; p.ignored[other] == 0 {
			p.ignored[other] = n.line
		}
	case list && k == "":
		p.list(n, kindName, "", "")
	case list:
		p.list(n, kindName, apiVersion, item)
	default:
		p.object(n, k)
	}
}

func (p *parser) list(n *node, name, apiVersion, kindName string) {
	for _, d := range duplicates(n) {
		p.fail(d.line, name, d)
	}
	for _, f := range n.fields {
		switch f.name {
		case "apiVersion", "kind", "metadata":
		case "items":
			if f.value.kind != listNode && f.value.kind != nullNode {
				p.fail(f.line, name, fmt.Errorf("items: wants a list, not %s", f.value.quoted()))
			}
			for _, item := range f.value.items {
				p.document(item, apiVersion, kindName)
			}
		default:
			p.fail(f.line, name, fmt.Errorf("%s: unknown field", f.name))
		}
	}
}

// object reads one object of a kind that is used.
func (p *parser) object(n *node, k kind) {
	o := newObject(k)
	problems := decode(n, reflect.ValueOf(o).Elem())
	setDefaults(o)
	key := keyOf(o)
	label := string(k)
	if key.Name != "" {
		label = key.String()
	}
	for _, bad := range problems {
		p.fail(bad.line, label, bad)
	}
	if key.Name == "" {
		p.fail(n.lineOf("metadata"), label, errors.New("metadata.name: missing"))
		return
	}
	if first, ok := p.seen[key]; ok {
		p.fail(n.line, label, fmt.Errorf("said twice in this file, first in line %d", first))
	}
	p.seen[key] = n.line
	if p.check != nil && len(problems) == 0 {
		for _, err := range flatten(p.check(o)) {
			p.fail(n.lineOf(errorPath(err)), label, err)
		}
	}
	if strip(o) {
		p.objects = append(p.objects, object{key: key, line: n.line, object: o})
	}
}

// others returns the kinds that were ignored, sorted.
func (m *manifest) others() []string { return slices.Sorted(maps.Keys(m.ignored)) }

func newObject(k kind) runtime.Object {
	switch k {
	case kindService:
		return &corev1.Service{}
	case kindSlice:
		return &discoveryv1.EndpointSlice{}
	case kindServiceCIDR:
		return &networkingv1.ServiceCIDR{}
	default:
		return &corev1.Node{}
	}
}

func setDefaults(o runtime.Object) {
	switch o := o.(type) {
	case *corev1.Service:
		defaultService(o)
	case *discoveryv1.EndpointSlice:
		defaultSlice(o)
	case *corev1.Node:
		o.Namespace = ""
	case *networkingv1.ServiceCIDR:
		o.Namespace = ""
	}
}

// strip strips o and reports whether the API source would have delivered it.
func strip(o runtime.Object) bool {
	switch o := o.(type) {
	case *corev1.Service:
		StripService(o)
		return serviceWanted(o)
	case *discoveryv1.EndpointSlice:
		StripSlice(o)
		return sliceWanted(o)
	case *corev1.Node:
		StripNode(o)
	case *networkingv1.ServiceCIDR:
		StripServiceCIDR(o)
	}
	return true
}

func keyOf(o runtime.Object) objectKey {
	switch o := o.(type) {
	case *corev1.Service:
		return objectKey{kind: kindService, NamespacedName: nameOf(o)}
	case *discoveryv1.EndpointSlice:
		return objectKey{kind: kindSlice, NamespacedName: nameOf(o)}
	case *networkingv1.ServiceCIDR:
		return objectKey{kind: kindServiceCIDR, NamespacedName: nameOf(o)}
	default:
		return objectKey{kind: kindNode, NamespacedName: nameOf(o.(metav1.Object))}
	}
}

// flatten takes joined errors apart, so that each gets its own line.
func flatten(err error) []error {
	var parts []error
	switch e := err.(type) {
	case nil:
		return nil
	case interface{ Unwrap() []error }:
		parts = e.Unwrap()
	case interface{ Errors() []error }:
		parts = e.Errors()
	default:
		return []error{err}
	}
	var all []error
	for _, part := range parts {
		all = append(all, flatten(part)...)
	}
	return all
}

// errorPath returns the path at the head of an error's text, as in
// "spec.ports[0].port: ...".
func errorPath(err error) string {
	path, _, _ := strings.Cut(err.Error(), ": ")
	if strings.ContainsAny(path, " \t\n") {
		return ""
	}
	return path
}
