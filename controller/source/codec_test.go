// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	restwatch "k8s.io/client-go/rest/watch"
)

// watchOver is how client-go makes the decoder of a watch's answer.
func watchOver(t testing.TB, codecs runtime.NegotiatedSerializer, answer io.Reader) watch.Decoder {
	t.Helper()
	object, event, frames, err := runtime.NewClientNegotiator(codecs, schema.GroupVersion{}).StreamDecoder(runtime.ContentTypeProtobuf, nil)
	if err != nil {
		t.Fatal(err)
	}
	return restwatch.NewDecoder(streaming.NewDecoder(frames.NewFrameReader(io.NopCloser(answer)), event), object)
}

// inProtobuf is an object as a watch brings it.
func inProtobuf(t testing.TB, kind schema.GroupVersionKind, o runtime.Object) []byte {
	t.Helper()
	o.GetObjectKind().SetGroupVersionKind(kind)
	var b bytes.Buffer
	if err := protobuf.NewSerializer(known, known).Encode(o, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// eventFrame is an event of a watch as it is on the wire.
func eventFrame(t testing.TB, kind watch.EventType, object []byte) []byte {
	t.Helper()
	e := metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: object}}
	data, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return framed(t, data)
}

func framed(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := protobuf.LengthDelimitedFramer.NewFrameWriter(&b).Write(data); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// aSlice is an EndpointSlice as a cluster has it.
func aSlice(endpoints int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-abcde", GenerateName: "web-", UID: "6f0c1b1e-1111-4222-8333-444455557777", ResourceVersion: "123456",
			Generation: 3, CreationTimestamp: created,
			Labels:          map[string]string{discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"},
			Annotations:     map[string]string{corev1.EndpointsLastChangeTriggerTime: "2024-05-06T07:08:10Z"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "web", UID: "6f0c1b1e-1111-4222-8333-444455556666", Controller: new(true)}},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kube-controller-manager", Operation: "Update", APIVersion: "discovery.k8s.io/v1",
				Time: &created, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(strings.Repeat(`{"f:addressType":{}}`, 20))}},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}},
	}
	for i := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{fmt.Sprintf("10.128.0.%d", i)},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
			NodeName:   new("node-0"), Zone: new("zone-a"),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("web-7c5ddbdf54-%d", i), UID: "6f0c1b1e-1111-4222-8333-444455558888"},
		})
	}
	return s
}

// TestWatchInProtobuf: a watch says with our codecs what it says with apimachinery's,
// errors included, once it is stripped.
func TestWatchInProtobuf(t *testing.T) {
	t.Parallel()
	sliceKind := discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice")
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", ResourceVersion: "7"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.1", Selector: map[string]string{"app": "web"}},
	}
	status := &metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old"}
	slice := inProtobuf(t, sliceKind, aSlice(2))
	frames := map[string][]byte{
		"slice":       eventFrame(t, watch.Added, slice),
		"big slice":   eventFrame(t, watch.Modified, inProtobuf(t, sliceKind, aSlice(1000))),
		"empty slice": eventFrame(t, watch.Deleted, inProtobuf(t, sliceKind, &discoveryv1.EndpointSlice{})),
		"service":     eventFrame(t, watch.Added, inProtobuf(t, corev1.SchemeGroupVersion.WithKind("Service"), service)),
		"node": eventFrame(t, watch.Added, inProtobuf(t, corev1.SchemeGroupVersion.WithKind("Node"),
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", DeletionTimestamp: &created}, Spec: corev1.NodeSpec{ProviderID: "x"}})),
		"ServiceCIDR": eventFrame(t, watch.Added, inProtobuf(t, networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"),
			&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.0.0.0/8"}}})),
		"status":           eventFrame(t, watch.Error, inProtobuf(t, schema.GroupVersionKind{Version: "v1", Kind: "Status"}, status)),
		"other kind":       eventFrame(t, watch.Added, inProtobuf(t, schema.GroupVersionKind{Version: "v1", Kind: "Other"}, status)),
		"other version":    eventFrame(t, watch.Added, inProtobuf(t, schema.GroupVersionKind{Version: "v2", Kind: "Service"}, service)),
		"no kind":          eventFrame(t, watch.Added, inProtobuf(t, schema.GroupVersionKind{}, service)),
		"no object":        eventFrame(t, watch.Added, nil),
		"JSON":             eventFrame(t, watch.Added, []byte(`{"kind":"Service","apiVersion":"v1"}`)),
		"half an object":   eventFrame(t, watch.Added, slice[:len(slice)/2]),
		"prefix alone":     eventFrame(t, watch.Added, slice[:4]),
		"other event":      eventFrame(t, "SEEN", slice),
		"empty event":      framed(t, nil),
		"half an event":    framed(t, []byte("\x0a\x05ADD")),
		"malformed object": eventFrame(t, watch.Added, bytes.Replace(slice, []byte("\x0a\x0a10.128.0.1"), []byte("\x08\x0a10.128.0.1"), 1)),
		"event with something new": framed(t, append([]byte("\x1a\x01x\x0a\x05ADDED\x12"),
			append([]byte{byte(len(slice)&0x7f) | 0x80, byte(len(slice) >> 7), 0x0a, 0}, slice...)...)),
	}
	for name, frame := range frames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			says := func(codecs runtime.NegotiatedSerializer) (text string, object runtime.Object) {
				d := watchOver(t, codecs, bytes.NewReader(frame))
				kind, object, err := d.Decode()
				switch o := object.(type) {
				case *corev1.Service:
					StripService(o)
				case *discoveryv1.EndpointSlice:
					StripSlice(o)
				case *corev1.Node:
					StripNode(o)
				}
				_, _, end := d.Decode()
				return fmt.Sprintf("%s %v, then %v", kind, err, end), object
			}
			wantText, want := says(serializer.NewCodecFactory(known).WithoutConversion())
			text, got := says(newCodecs())
			if diff := cmp.Diff(wantText, text); diff != "" {
				t.Errorf("-apimachinery +ours\n%s", diff)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-apimachinery +ours\n%s", diff)
			}
		})
	}
}

// TestWatchReusesFrames: what is decoded does not change when the next frame comes.
func TestWatchReusesFrames(t *testing.T) {
	t.Parallel()
	var answer []byte
	for i := range 3 {
		s := aSlice(3)
		s.Name = fmt.Sprintf("web-%d", i)
		s.Endpoints[0].Addresses[0] = fmt.Sprintf("10.128.7.%d", i)
		answer = append(answer, eventFrame(t, watch.Added, inProtobuf(t, discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), s))...)
	}
	d := watchOver(t, newCodecs(), bytes.NewReader(answer))
	var got []*discoveryv1.EndpointSlice
	for {
		_, o, err := d.Decode()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.(*discoveryv1.EndpointSlice))
	}
	for i, s := range got {
		if s.Name != fmt.Sprintf("web-%d", i) || s.Endpoints[0].Addresses[0] != fmt.Sprintf("10.128.7.%d", i) {
			t.Errorf("slice %d is %s with %s", i, s.Name, s.Endpoints[0].Addresses)
		}
	}
	if len(got) != 3 {
		t.Errorf("%d slices", len(got))
	}
}

// BenchmarkWatch decodes and strips an EndpointSlice of a watch.
func BenchmarkWatch(b *testing.B) {
	for name, codecs := range map[string]runtime.NegotiatedSerializer{
		"apimachinery": serializer.NewCodecFactory(known).WithoutConversion(), "ours": newCodecs(),
	} {
		for _, endpoints := range []int{10, 100} {
			b.Run(fmt.Sprintf("%s/%d", name, endpoints), func(b *testing.B) {
				frame := eventFrame(b, watch.Added, inProtobuf(b, discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), aSlice(endpoints)))
				b.ReportAllocs()
				b.SetBytes(int64(len(frame)))
				d := watchOver(b, codecs, &repeat{b: frame})
				for b.Loop() {
					_, o, err := d.Decode()
					if err != nil {
						b.Fatal(err)
					}
					StripSlice(o.(*discoveryv1.EndpointSlice))
				}
			})
		}
	}
}

// repeat reads the same bytes for ever.
type repeat struct {
	b    []byte
	next int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.next:])
	r.next = (r.next + n) % len(r.b)
	return n, nil
}
