// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"
)

// The fuzz tests of the codec compare it with apimachinery's own: whatever comes, what
// we keep of it is what apimachinery would have told.

// FuzzEvent is about the envelope of a watch's event.
func FuzzEvent(f *testing.F) {
	for _, e := range []metav1.WatchEvent{
		{Type: string(watch.Added), Object: runtime.RawExtension{Raw: []byte("k8s\x00x")}},
		{Type: string(watch.Bookmark)},
		{Object: runtime.RawExtension{Raw: bytes.Repeat([]byte{0xff}, 200)}},
	} {
		data, err := e.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("\x0a\x05ADDED\x0a\x05ADDED"))
	f.Add([]byte("\x12\x02\x0a\x00\x12\x02\x0a\x00"))
	theirs := protobuf.NewRawSerializer(known, known)
	ours := eventSerializer{theirs}
	f.Fuzz(func(t *testing.T, data []byte) {
		want, got := &metav1.WatchEvent{}, &metav1.WatchEvent{}
		_, _, wantErr := theirs.Decode(bytes.Clone(data), nil, want)
		_, _, err := ours.Decode(bytes.Clone(data), nil, got)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, apimachinery says %v", err, wantErr)
		}
		if want.Type != got.Type || !bytes.Equal(want.Object.Raw, got.Object.Raw) {
			t.Errorf("%q with %x, apimachinery says %q with %x", got.Type, got.Object.Raw, want.Type, want.Object.Raw)
		}
	})
}

// FuzzObject is about an object of a watch with what is around it. Ours may not notice
// that a field is malformed which it drops, and nothing else.
func FuzzObject(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range wireKinds {
		o := k.empty()
		fill(r, reflect.ValueOf(o).Elem(), 0)
		for _, streamed := range streamedKinds {
			if streamed.Kind == k.name {
				f.Add(inProtobuf(f, streamed.GroupVersionKind, o.(runtime.Object)))
			}
		}
	}
	f.Add([]byte("k8s\x00\x0a\x0d\x0a\x02v1\x12\x07Service\x12\x02\x0a\x00"))
	f.Add([]byte("k8s\x00\x12\x00"))
	f.Add([]byte("k8s\x01"))
	f.Add([]byte(`{"kind":"Service","apiVersion":"v1"}`))
	ours, theirs := decoderOf(f, newCodecs()), decoderOf(f, serializer.NewCodecFactory(known).WithoutConversion())
	f.Fuzz(func(t *testing.T, data []byte) {
		want, wantKind, wantErr := theirs.Decode(bytes.Clone(data), nil, nil)
		got, kind, err := ours.Decode(bytes.Clone(data), nil, nil)
		if wantErr != nil {
			if err == nil && !ourKind(got) {
				t.Fatalf("%T is told of, apimachinery says %v", got, wantErr)
			}
			return
		}
		if err != nil {
			t.Fatalf("%v, apimachinery tells of %v", err, wantKind)
		}
		if *kind != *wantKind {
			t.Errorf("kind %v, apimachinery says %v", kind, wantKind)
		}
		stripObject(want)
		stripObject(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-apimachinery +ours\n%s", diff)
		}
	})
}

// decoderOf is what a watch decodes its objects with.
func decoderOf(f *testing.F, codecs runtime.NegotiatedSerializer) runtime.Decoder {
	f.Helper()
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		f.Fatal("no protobuf")
	}
	return codecs.DecoderToVersion(info.Serializer, nil)
}

// ourKind reports whether an object is of a kind that is stripped on the wire.
func ourKind(o runtime.Object) bool {
	switch o.(type) {
	case *corev1.Service, *discoveryv1.EndpointSlice, *corev1.Node:
		return true
	}
	return false
}

func stripObject(o runtime.Object) {
	switch o := o.(type) {
	case *corev1.Service:
		StripService(o)
	case *discoveryv1.EndpointSlice:
		StripSlice(o)
	case *corev1.Node:
		StripNode(o)
	}
}
