// SPDX-License-Identifier: Apache-2.0

package source

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/rest"
)

// codecs are those of apimachinery, but for what a watch brings in protobuf. They
// would copy each event twice, out of one envelope and then out of another, and decode
// all of the object. Ours leave the bytes where they are, and decode what we keep.
type codecs struct {
	runtime.NegotiatedSerializer
	infos []runtime.SerializerInfo
}

func newCodecs() codecs {
	factory := rest.CodecFactoryForGeneratedClient(known, serializer.NewCodecFactory(known))
	c := codecs{factory.WithoutConversion(), slices.Clone(factory.SupportedMediaTypes())}
	for i := range c.infos {
		if info := &c.infos[i]; info.MediaType == runtime.ContentTypeProtobuf {
			info.Serializer = objectSerializer{protobuf.NewSerializer(known, known)}
			stream := *info.StreamSerializer
			stream.Serializer = eventSerializer{stream.Serializer}
			info.StreamSerializer = &stream
		}
	}
	return c
}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (c codecs) SupportedMediaTypes() []runtime.SerializerInfo { return c.infos }

// eventSerializer decodes the events of a watch.
type eventSerializer struct{ runtime.Serializer }

// Decode implements runtime.Decoder. The object in an event is part of data, which is
// the buffer that client-go reads frames into: it lasts until the next one. The only
// one to get the event, Decoder.Decode of client-go/rest/watch (v0.37.2), decodes the
// object before that and forgets the event.
func (s eventSerializer) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if event, ok := into.(*metav1.WatchEvent); ok && openEvent(data, event) {
		return event, &eventKind, nil
	}
	return s.Serializer.Decode(data, defaults, into)
}

var eventKind = metav1.SchemeGroupVersion.WithKind("WatchEvent")

// openEvent fills in an event of a watch without a copy of its object. It reports
// false when it meets something that it does not know.
func openEvent(data []byte, event *metav1.WatchEvent) bool {
	var kind, extension, object []byte
	if len(data) == 0 || !open(data, &kind, &extension) || !open(extension, &object) {
		return false
	}
	event.Type, event.Object.Raw = string(kind), object
	return true
}

// objectSerializer decodes objects, each with what says of what kind it is around it.
type objectSerializer struct{ *protobuf.Serializer }

// protobufPrefix is what begins an object in protobuf.
const protobufPrefix = "k8s\x00"

// Decode implements runtime.Decoder. Of an object that a watch brings there is only
// what is kept, and nothing says of what kind it is but its type: the decoder that
// client-go puts around this one would take that away again. Malformed fields that are
// dropped may go unnoticed; of all others the generated code tells.
func (s objectSerializer) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	k, raw := openObject(data)
	if k == nil || into != nil {
		return s.Serializer.Decode(data, defaults, into)
	}
	object, err := k.object(raw)
	return object, &k.GroupVersionKind, err
}

// buffers hold what is kept of an object while it is decoded; nothing decoded points
// into them.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// streamed is a kind of objects that lists and watches bring.
type streamed struct {
	schema.GroupVersionKind
	version string  // as it is on the wire
	keep    message // nil = all
	decode  func([]byte) (runtime.Object, error)
}

// streamedKinds are all there are, those that come in numbers first.
var streamedKinds = []streamed{
	{discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), discoveryv1.SchemeGroupVersion.String(), sliceMessage, decodeSlice},
	{corev1.SchemeGroupVersion.WithKind("Service"), corev1.SchemeGroupVersion.String(), serviceMessage,
		func(b []byte) (runtime.Object, error) { s := &corev1.Service{}; return s, s.Unmarshal(b) }},
	{corev1.SchemeGroupVersion.WithKind("Node"), corev1.SchemeGroupVersion.String(), nodeMessage,
		func(b []byte) (runtime.Object, error) { n := &corev1.Node{}; return n, n.Unmarshal(b) }},
	{networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"), networkingv1.SchemeGroupVersion.String(), nil,
		func(b []byte) (runtime.Object, error) { c := &networkingv1.ServiceCIDR{}; return c, c.Unmarshal(b) }},
}

// kindNamed returns one of streamedKinds.
func kindNamed(name string) *streamed {
	return &streamedKinds[slices.IndexFunc(streamedKinds, func(k streamed) bool { return k.Kind == name })]
}

// object decodes an object, what is kept of it.
func (k *streamed) object(raw []byte) (runtime.Object, error) {
	kept := raw
	if k.keep != nil {
		buffer := buffers.Get().(*[]byte)
		defer buffers.Put(buffer)
		var ok bool
		if *buffer, ok = k.keep.strip((*buffer)[:0], raw); ok {
			kept = *buffer
		}
	}
	object, err := k.decode(kept)
	if err != nil {
		return nil, err
	}
	return object, nil
}

// openObject returns of what kind an object is, and its encoding. The kind is nil if it
// is none of streamedKinds, or there is something that it does not know.
func openObject(data []byte) (*streamed, []byte) {
	if len(data) < len(protobufPrefix) || string(data[:len(protobufPrefix)]) != protobufPrefix {
		return nil, nil
	}
	var meta, raw, encoding, content, version, kind []byte
	if !open(data[len(protobufPrefix):], &meta, &raw, &encoding, &content) || !open(meta, &version, &kind) {
		return nil, nil
	}
	for i := range streamedKinds {
		if k := &streamedKinds[i]; string(kind) == k.Kind && string(version) == k.version {
			return k, raw
		}
	}
	return nil, nil
}

// open finds the fields 1, 2 and so on of a message, without a copy. It reports false
// when there is anything else, or anything twice.
func open(b []byte, fields ...*[]byte) bool {
	for len(b) > 0 {
		p := nextPart(b)
		if p.size < 0 || p.value == nil || int(p.number) > len(fields) || *fields[p.number-1] != nil {
			return false
		}
		*fields[p.number-1] = p.value
		b = b[p.size:]
	}
	return true
}

// decodeSlice decodes an EndpointSlice. The generated code would let its endpoints grow
// one by one, and leave as much behind as there is in the end.
func decodeSlice(b []byte) (runtime.Object, error) {
	s := &discoveryv1.EndpointSlice{}
	n := 0
	for rest := b; len(rest) > 0; {
		p := nextPart(rest)
		if p.size < 0 {
			break // which Unmarshal reports
		}
		if p.number == endpointsField {
			n++
		}
		rest = rest[p.size:]
	}
	if n > 0 {
		s.Endpoints = make([]discoveryv1.Endpoint, 0, n)
	}
	return s, s.Unmarshal(b)
}
