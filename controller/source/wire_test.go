// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// wireObject is an object that the wire format is generated for.
type wireObject interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// wireKinds are the kinds that are stripped on the wire.
var wireKinds = []struct {
	name  string
	empty func() wireObject
	keep  message
	strip func(any)
}{
	{"Service", func() wireObject { return &corev1.Service{} }, serviceMessage, func(o any) { StripService(o.(*corev1.Service)) }},
	{"EndpointSlice", func() wireObject { return &discoveryv1.EndpointSlice{} }, sliceMessage, func(o any) { StripSlice(o.(*discoveryv1.EndpointSlice)) }},
	{"Node", func() wireObject { return &corev1.Node{} }, nodeMessage, func(o any) { StripNode(o.(*corev1.Node)) }},
}

// TestWireNumbers: each field has the number that the generated code has for its name.
func TestWireNumbers(t *testing.T) {
	t.Parallel()
	var check func(t *testing.T, path string, of reflect.Type, m message)
	check = func(t *testing.T, path string, of reflect.Type, m message) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		types := make(map[string]reflect.Type)
		for f := range of.Fields() {
			tag := strings.Split(f.Tag.Get("protobuf"), ",") // like bytes,1,opt,name=metadata
			if i := slices.IndexFunc(tag, func(s string) bool { return strings.HasPrefix(s, "name=") }); i > 0 {
				types[tag[1]+" "+strings.TrimPrefix(tag[i], "name=")] = f.Type
			}
		}
		for number, f := range m {
			if f.name == "" {
				continue
			}
			at := path + "." + f.name
			typ, ok := types[fmt.Sprintf("%d %s", number, f.name)]
			switch {
			case !ok:
				t.Errorf("%s is not number %d of %s", at, number, of)
			case (f.keys != nil) != (typ.Kind() == reflect.Map):
				t.Errorf("%s: keys are for maps", at)
			case f.of != nil:
				check(t, at, typ, f.of)
			}
		}
	}
	for _, k := range wireKinds {
		check(t, k.name, reflect.TypeOf(k.empty()), k.keep)
	}
}

// sameStripped says how an object that is stripped on the wire differs from one that is
// stripped when it is decoded.
func sameStripped(t *testing.T, kind int, data []byte) {
	t.Helper()
	k := wireKinds[kind]
	want, got := k.empty(), k.empty()
	if err := want.Unmarshal(data); err != nil {
		return
	}
	kept, ok := k.keep.strip(nil, data)
	if !ok {
		return // all of it is decoded
	}
	if len(kept) > len(data) {
		t.Errorf("%d bytes of %d are kept", len(kept), len(data))
	}
	if err := got.Unmarshal(kept); err != nil {
		t.Fatalf("%s: what is kept of it: %v\n%x\n%x", k.name, err, data, kept)
	}
	k.strip(want)
	k.strip(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: -stripped when decoded +stripped on the wire\n%s", k.name, diff)
	}
}

// TestStripOnTheWire: it makes no difference whether an object is stripped before it is
// decoded or after, whatever it holds.
func TestStripOnTheWire(t *testing.T) {
	t.Parallel()
	for kind, k := range wireKinds {
		for seed := range uint64(500) {
			o := k.empty()
			fill(rand.New(rand.NewPCG(seed, uint64(kind))), reflect.ValueOf(o).Elem(), 0)
			data, err := o.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			sameStripped(t, kind, data)
			if _, ok := k.keep.strip(nil, data); !ok {
				t.Fatalf("%s: taken for malformed: %x", k.name, data)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// FuzzStripOnTheWire is TestStripOnTheWire of what no API server says.
func FuzzStripOnTheWire(f *testing.F) {
	for kind, k := range wireKinds {
		for seed := range uint64(4) {
			o := k.empty()
			fill(rand.New(rand.NewPCG(seed, uint64(kind))), reflect.ValueOf(o).Elem(), 0)
			data, err := o.Marshal()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(byte(kind), data)
		}
	}
	f.Add(byte(0), []byte("\x0a\x80\x01"))                 // a length beyond the end
	f.Add(byte(0), []byte("\x0a\x02\x5a\x00"))             // an empty label
	f.Add(byte(1), []byte("\x12\x82\x80\x00\x12\x00\x22")) // a length with leading zeros, half a field
	f.Add(byte(1), []byte("\x13\x14"))                     // a group
	f.Add(byte(2), []byte("\x08\x01"))                     // a number for a message
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		sameStripped(t, int(kind)%len(wireKinds), data)
	})
}

// fill sets fields at random: each second one, to keep it small.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if v.Type() == reflect.TypeFor[metav1.Time]() {
		v.Set(reflect.ValueOf(metav1.Unix(r.Int64N(1<<32), 0)))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Field(i).CanSet() && (depth < 2 || r.IntN(2) == 0) {
				fill(r, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		n := r.IntN(4)
		if n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range n {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(4) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, key, depth+1)
			fill(r, value, depth+1)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		words := append(append(append([]string{"", "a", "10.0.0.1", strings.Repeat("long", 40)}, serviceLabels...), sliceLabels...), annotations...)
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.Int32() - 1<<30))
	case reflect.Uint8:
		v.SetUint(uint64(r.IntN(256)))
	}
}

// TestStripKeepsForReflector: what client-go reads of an object is left in it.
func TestStripKeepsForReflector(t *testing.T) {
	t.Parallel()
	in := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web-1", UID: "u", ResourceVersion: "12", CreationTimestamp: metav1.NewTime(time.Unix(1, 0)),
		Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
	}}
	want := in.DeepCopy()
	in.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}}
	in.Annotations["x"] = "y"
	data, err := in.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	kept, _ := sliceMessage.strip(nil, data)
	got := &discoveryv1.EndpointSlice{}
	if err := got.Unmarshal(kept); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
