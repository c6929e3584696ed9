// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const webService = `apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  clusterIP: 10.96.0.10
  ports:
  - name: http
    port: 80
`

const webSlice = `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
endpoints:
- addresses: [10.128.0.1]
  conditions: {ready: true}
ports:
- name: http
  port: 8080
`

func TestParseErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown field", strings.Replace(webService, "clusterIP:", "clusterIp:", 1),
			[]string{"f.yaml:6: Service default/web: spec.clusterIp: unknown field; clusterIP is meant?"}},
		{"text for number", strings.Replace(webService, "port: 80", "port: http", 1),
			[]string{`f.yaml:9: Service default/web: spec.ports[0].port: wants a whole number, not the text "http"`}},
		{"quoted number", strings.Replace(webService, "port: 80", `port: "80"`, 1),
			[]string{`f.yaml:9: Service default/web: spec.ports[0].port: wants a whole number, not the text "80" (leave out the quotes)`}},
		{"number too large", strings.Replace(webService, "port: 80", "port: 99999999999", 1),
			[]string{"f.yaml:9: Service default/web: spec.ports[0].port: the number 99999999999 is out of range"}},
		{"number for text", strings.Replace(webService, "10.96.0.10", "10", 1),
			[]string{"f.yaml:6: Service default/web: spec.clusterIP: wants a text, not a number, 10 (in quotes, if that is meant)"}},
		{"mapping for list", strings.Replace(webService, "  - name: http\n    port: 80\n", "    port: 80\n", 1),
			[]string{"f.yaml:8: Service default/web: spec.ports: wants a list, not a mapping"}},
		{"text for boolean", strings.Replace(webSlice, "ready: true", "ready: yes", 1),
			[]string{`f.yaml:9: EndpointSlice default/web-1: endpoints[0].conditions.ready: wants true or false, not the text "yes"`}},
		{"duplicate field", webService + "    port: 81\n",
			[]string{"f.yaml:10: Service default/web: spec.ports[0].port: said twice, first in line 9"}},
		{"no name", strings.Replace(webService, "name: web", "namespace: x", 1),
			[]string{"f.yaml:3: Service: metadata.name: missing"}},
		{"no kind", "apiVersion: v1\n", []string{"f.yaml:1: apiVersion and kind: missing"}},
		{"no object", "- a\n", []string{"f.yaml:1: wants an object with apiVersion and kind, not a list"}},
		{"not YAML", webService + "  }\n", []string{"f.yaml:5: not YAML: did not find expected key, somewhere in the block that begins here"}},
		{"tab", "a:\n\tb: 1\n", []string{"f.yaml:2: not YAML: found character that cannot start any token"}},
		{"same object twice", webService + "---\n" + webService, []string{"f.yaml:11: Service default/web: said twice in this file, first in line 1"}},
		{"alias within itself", "a: &a [*a]\n", []string{"f.yaml:1: too large or nested too deeply (an alias within itself?)"}},
		{"alias bomb", bomb(), []string{"f.yaml:2: too large or nested too deeply (an alias within itself?)"}},
		{"items of a list", "apiVersion: v1\nkind: List\nitems:\n- 1\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec: {x: 1}\nmore: 1\n",
			[]string{"f.yaml:4: wants an object with apiVersion and kind, not a number, 1",
				"f.yaml:8: Service default/a: spec.x: unknown field", "f.yaml:9: List: more: unknown field"}},
		{"all at once", strings.NewReplacer("clusterIP", "ip", "port: 80", "port: [1]").Replace(webService),
			[]string{"f.yaml:6: Service default/web: spec.ip: unknown field",
				"f.yaml:9: Service default/web: spec.ports[0].port: wants a whole number, not a list"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := parseManifest("f.yaml", []byte(tt.text), nil)
			var got []string
			for _, err := range m.errs {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// bomb is a text of a few hundred bytes that stands for a billion values.
func bomb() string {
	text := "a0: &a0 [x]\n"
	for i := 1; i < 10; i++ {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return text
}

func TestCheckErrorsGetLines(t *testing.T) {
	t.Parallel()
	check := func(o runtime.Object) error {
		if o.(*corev1.Service).Spec.Ports[0].Protocol != corev1.ProtocolTCP {
			return errors.New("checked before the defaults were filled in")
		}
		return errors.Join(errors.New("spec.ports[0].port: 80 is taken"), errors.New("spec.clusterIPs[0]: not ours"), errors.New("just bad"))
	}
	m := parseManifest("f.yaml", []byte("# head\n"+webService), check)
	want := "f.yaml:10: Service default/web: spec.ports[0].port: 80 is taken\n" +
		"f.yaml:6: Service default/web: spec.clusterIPs[0]: not ours\n" +
		"f.yaml:2: Service default/web: just bad"
	if diff := cmp.Diff(want, errors.Join(m.errs...).Error()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	var me *ManifestError
	if !errors.As(m.errs[0], &me) || me.Line != 10 || me.File != "f.yaml" || me.Object != "Service default/web" {
		t.Errorf("not a ManifestError with its parts: %#v", m.errs[0])
	}
}

func TestParseDocuments(t *testing.T) {
	t.Parallel()
	list := "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n" + item(webService) + item(webSlice)
	jsonList, err := yaml.YAMLToJSON([]byte(list))
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"Service default/web", "EndpointSlice default/web-1"}
	tests := []struct {
		name, text string
		want       []string
		others     []string
	}{
		{"documents", "# comment\n---\n" + webService + "---\n---\n# nothing\n---\n" + webSlice + "...\n", both, nil},
		{"List", list, both, nil},
		{"List in JSON", string(jsonList), both, nil},
		{"List in a List", "apiVersion: v1\nkind: List\nitems:\n" + item(list), both, nil},
		{"ServiceList, items without kind", "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a, namespace: x}\n", []string{"Service x/a"}, nil},
		{"EndpointSliceList", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSliceList\nitems:\n- metadata: {name: a}\n  addressType: IPv4\n", []string{"EndpointSlice default/a"}, nil},
		{"Node", "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n", []string{"Node n1"}, nil},
		{"others", webService + "---\napiVersion: apps/v1\nkind: Deployment\nspec: {any: [thing]}\n---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\n",
			both[:1], []string{"apps/v1 Deployment", "serving.knative.dev/v1 Service", "v1 Endpoints"}},
		{"headless, and another proxy's", strings.Replace(webService, "10.96.0.10", "None", 1) + "---\n" +
			strings.Replace(webService, "name: web", "name: b\n  labels: {service.kubernetes.io/service-proxy-name: x}", 1) + "---\n" +
			strings.Replace(webSlice, "service-name: web", "service-name: web, service.kubernetes.io/headless: ''", 1), nil, nil},
		{"anchors and merges", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - &p {name: a, port: 1}\n  - <<: *p\n    name: b\n", both[:1], nil},
		{"nothing", "# only a comment\n", nil, nil},
		{"null for everything", "apiVersion: v1\nkind: Service\nmetadata: {name: web, creationTimestamp: null, labels: }\nspec:\nstatus: {loadBalancer: {}}\n", both[:1], nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := parseManifest("f.yaml", []byte(tt.text), nil)
			if len(m.errs) > 0 {
				t.Fatal(errors.Join(m.errs...))
			}
			var got []string
			for _, o := range m.objects {
				got = append(got, o.key.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(tt.others, m.others()); diff != "" {
				t.Errorf("ignored: -want +got\n%s", diff)
			}
		})
	}
}

// item indents a document so that it is an item of a list.
func item(doc string) string {
	return "- " + strings.TrimSpace(strings.ReplaceAll(doc, "\n", "\n  ")) + "\n"
}

// strict decodes like kubectl: an oracle for what a document means.
var strict = json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})

// TestDecodeLikeKubectl decodes a Service and a slice with every field set.
func TestDecodeLikeKubectl(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]runtime.Object{"service.yaml": &corev1.Service{}, "slice.yaml": &discoveryv1.EndpointSlice{},
		"node.yaml": &corev1.Node{}, "servicecidr.yaml": &networkingv1.ServiceCIDR{}} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := strict.Decode(data, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		docs, bad := parseYAML(data)
		if bad != nil || len(docs) != 1 {
			t.Fatal(bad, len(docs))
		}
		if problems := decode(docs[0], reflect.ValueOf(o).Elem()); problems != nil {
			t.Fatal(problems)
		}
		if diff := cmp.Diff(want, o); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// FuzzDecode feeds manifests to the reader: it never fails otherwise than by an
// error with a line, and where it and kubectl accept an object, they agree on it.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{webService, webSlice, webService + "---\n" + webSlice, bomb(), "apiVersion: v1\nkind: List\nitems:\n" + item(webService),
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - &p {name: a, port: 0x50}\n  - <<: *p\n    name: b\n    targetPort: http\n",
		`{"apiVersion":"v1","kind":"Node","metadata":{"name":"n","creationTimestamp":"2024-01-01T00:00:00Z"},"status":{"capacity":{"cpu":1,"memory":"1Gi"}}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := parseManifest("f", data, nil)
		for _, err := range m.errs {
			var me *ManifestError
			if !errors.As(err, &me) || me.Line < 1 {
				t.Fatalf("no line: %v", err)
			}
		}
		for _, o := range m.objects {
			if again := encode(o.object); again == "" {
				t.Fatalf("%s has no encoding", o.key)
			}
		}
		docs, bad := parseYAML(data)
		if bad != nil || len(docs) != 1 {
			return
		}
		want, _, err := strict.Decode(data, nil, nil)
		if _, list := want.(*corev1.List); err != nil || list {
			return // what is in a list has no type yet: kubectl's Y is true, ours a text
		}
		got := reflect.New(reflect.TypeOf(want).Elem())
		if problems := decode(docs[0], got.Elem()); problems != nil {
			return
		}
		if diff := cmp.Diff(want, got.Interface()); diff != "" {
			t.Fatalf("not what kubectl reads: -want +got\n%s", diff)
		}
	})
}
