// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
)

// aList is a list as a server writes it.
func aList(t testing.TB, version string, items ...discoveryv1.EndpointSlice) []byte {
	t.Helper()
	list := &discoveryv1.EndpointSliceList{ListMeta: metav1.ListMeta{ResourceVersion: version}, Items: items}
	return inProtobuf(t, discoveryv1.SchemeGroupVersion.WithKind("EndpointSliceList"), list)
}

func namesIn(data io.Reader) (names []string, version string, err error) {
	version, err = readList(data, kindNamed("EndpointSlice"), func(o runtime.Object) error {
		names = append(names, o.(*discoveryv1.EndpointSlice).Name)
		return nil
	})
	return names, version, err
}

func TestReadList(t *testing.T) {
	small, large := *aSlice(1), *aSlice(1000)
	large.Name = "large"
	whole := aList(t, "12", small, large, small)
	names, version, err := namesIn(bytes.NewReader(whole))
	if err != nil || version != "12" || !slices.Equal(names, []string{"web-abcde", "large", "web-abcde"}) {
		t.Errorf("%v at %q: %v", names, version, err)
	}
	if names, version, err := namesIn(bytes.NewReader(aList(t, "13"))); err != nil || version != "13" || names != nil {
		t.Errorf("an empty list: %v at %q: %v", names, version, err)
	}
	// One that breaks off is not taken for a shorter one, wherever that is. Behind the
	// list's own bytes there are two empty fields of the envelope, which say nothing.
	whole = aList(t, "12", small, small)
	for n := range len(whole) - 4 {
		if _, _, err := namesIn(bytes.NewReader(whole[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes are a list", n, len(whole))
		}
	}
}

func TestReadListRefused(t *testing.T) {
	service := inProtobuf(t, corev1.SchemeGroupVersion.WithKind("ServiceList"), &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}})
	for name, c := range map[string]struct{ data, want string }{
		"nothing":    {"", "EOF"},
		"JSON":       {`{"kind":"EndpointSliceList"}`, "no protobuf"},
		"other kind": {string(service), "ServiceList of v1 is no EndpointSliceList of discovery.k8s.io/v1"},
		"no version": {string(aList(t, "", *aSlice(1))), "no resourceVersion"},
		"a number":   {"k8s\x00\x10\x01", "field 2 of a list is of type 0"},
		"too long":   {"k8s\x00\x12\x04\x12\x05aaaaa", "longer than what it is in"},
		"huge":       {"k8s\x00\x12\xff\xff\xff\xff\x0f\x12\xff\xff\xff\xff\x0e", "for one object"},
		"too large":  {"k8s\x00\x12" + strings.Repeat("\xff", 11), "too large"},
	} {
		if _, _, err := namesIn(strings.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzList compares with apimachinery: a list that we read is one for it as well, with
// the same objects.
func FuzzList(f *testing.F) {
	f.Add(aList(f, "12", *aSlice(2), *aSlice(0)))
	f.Add(aList(f, "13"))
	f.Add([]byte("k8s\x00\x12\xff\xff\xff\xff\x0f\x12\xff\xff\xff\xff\x0e"))
	theirs := decoderOf(f, serializer.NewCodecFactory(known).WithoutConversion())
	f.Fuzz(func(t *testing.T, data []byte) {
		names, version, err := namesIn(bytes.NewReader(data))
		if err != nil {
			return
		}
		o, _, err := theirs.Decode(data, nil, nil)
		if err != nil {
			return // of what we drop it may have been
		}
		list, ok := o.(*discoveryv1.EndpointSliceList)
		if !ok {
			return // nothing said of what kind it is
		}
		var want []string
		for i := range list.Items {
			want = append(want, list.Items[i].Name)
		}
		if diff := cmp.Diff(want, names); diff != "" || version != list.ResourceVersion {
			t.Errorf("at %q, want %q; -apimachinery +ours\n%s", version, list.ResourceVersion, diff)
		}
	})
}

// listingOver tells of a list that is there.
func listingOver(t *testing.T, body io.Reader) watch.Interface {
	t.Helper()
	w, err := startListing(t.Context(), kindNamed("EndpointSlice"),
		func(context.Context) (io.ReadCloser, error) { return io.NopCloser(body), nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

func TestListingEnds(t *testing.T) {
	whole := aList(t, "12", *aSlice(1))
	var told []string
	for e := range listingOver(t, bytes.NewReader(whole)).ResultChan() {
		o := e.Object.(*discoveryv1.EndpointSlice)
		told = append(told, fmt.Sprintf("%s %q at %s, end %q", e.Type, o.Name, o.ResourceVersion, o.Annotations[metav1.InitialEventsAnnotationKey]))
	}
	want := []string{`ADDED "web-abcde" at 123456, end ""`, `BOOKMARK "" at 12, end "true"`, `BOOKMARK "" at 12, end ""`}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	var last watch.Event
	for e := range listingOver(t, bytes.NewReader(whole[:len(whole)-5])).ResultChan() {
		last = e
	}
	if last.Type != watch.Error || !apierrors.IsInternalError(apierrors.FromObject(last.Object)) {
		t.Errorf("the last of one that breaks off is %v", last)
	}
}

// TestListingStops: nobody needs to read on when it is stopped.
func TestListingStops(t *testing.T) {
	many := slices.Repeat([]discoveryv1.EndpointSlice{*aSlice(1)}, 3*listingAhead)
	w := listingOver(t, bytes.NewReader(aList(t, "12", many...)))
	<-w.ResultChan()
	w.Stop()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return
			}
			if e.Type == watch.Bookmark {
				t.Fatal("the end is told of a list that was stopped")
			}
		case <-deadline:
			t.Fatal("it does not end")
		}
	}
}

// TestAPIListing lists twice, in protobuf, and is told in the second list what went.
func TestAPIListing(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t, map[string][]exchange{
		"services": {
			{kind: "list", frames: []string{serviceList("10", service("a", "5"), service("b", "6"))}},
			{kind: "watch", frames: []string{event("ADDED", service("late", "11")), gone}},
			{kind: "list", frames: []string{serviceList("900", service("b", "6"), service("c", "800"))}},
			{kind: "watch", hold: true},
		},
		"endpointslices": {
			{kind: "list", frames: []string{sliceList("10", slice("a-1", "7"))}},
			{kind: "watch", frames: []string{gone}},
			{kind: "list", frames: []string{sliceList("900", slice("c-1", "800"))}},
			{kind: "watch", hold: true},
		},
		"nodes": {
			{kind: "list", frames: []string{nodeList("10", "n1")}},
			{kind: "watch", hold: true},
		},
	})
	sink, log := runAPI(t, server.binaryClient(), "n1")
	sink.await(t, "synced", "set node n1", "set service default/late", "set service default/c", "delete service default/late", "delete slice default/a-1")
	if diff := cmp.Diff([]string{"service default/b", "service default/c", "slice default/c-1"}, sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	told := sink.take()
	if before, after := slices.Index(told, "delete service default/a"), slices.Index(told, "set service default/c"); before < 0 || after < before {
		t.Errorf("Services that went come after those that came: %v", told)
	}
	if lines := log.Lines(); len(lines) > 0 {
		t.Errorf("logged in a normal life:\n%s", strings.Join(lines, "\n"))
	}
	want := []string{"list ", "watch ", "list ", "watch "}
	for i, asked := range server.asked("endpointslices") {
		if i >= len(want) || !strings.HasPrefix(asked, want[i]) {
			t.Errorf("request %d: %s", i, asked)
		}
	}
}

// TestAPIListingRefused: what the server says of a list in protobuf is told as of any.
func TestAPIListingRefused(t *testing.T) {
	t.Parallel()
	refused := exchange{kind: "list", status: 403, frames: []string{forbidden}}
	server := newAPIServer(t, map[string][]exchange{
		"services": {{kind: "list", frames: []string{serviceList("10")}}, {kind: "watch", hold: true}},
		"endpointslices": {refused, refused, // as it is asked for, and as it always can be
			{kind: "list", frames: []string{sliceList("10", slice("a-1", "7"))}}, {kind: "watch", hold: true}},
	})
	sink, log := runAPI(t, server.binaryClient(), "")
	sink.await(t, "synced", "set slice default/a-1")
	if lines := log.Lines("cannot list resource"); len(lines) != 1 {
		t.Errorf("the refusal is told %d times:\n%s", len(lines), log.String())
	}
}

// TestListOptions: the first list is as new as can be, later ones as what is known.
func TestListOptions(t *testing.T) {
	stream := metav1.ListOptions{Watch: true, AllowWatchBookmarks: true, SendInitialEvents: new(true),
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, TimeoutSeconds: new(int64(300))}
	if diff := cmp.Diff(metav1.ListOptions{}, listOptions(stream)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	stream.ResourceVersion = "12"
	want := metav1.ListOptions{ResourceVersion: "12", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}
	if diff := cmp.Diff(want, listOptions(stream)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// BenchmarkList reads 1,000 EndpointSlices, of a list and of the watch that begins with one.
func BenchmarkList(b *testing.B) {
	const n = 1000
	one := *aSlice(10)
	frame := eventFrame(b, watch.Added, inProtobuf(b, discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), &one))
	b.Run("watch", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(n * len(frame)))
		d := watchOver(b, newCodecs(), &repeat{b: frame})
		for b.Loop() {
			for range n {
				if _, _, err := d.Decode(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("list", func(b *testing.B) {
		list := aList(b, "12", slices.Repeat([]discoveryv1.EndpointSlice{one}, n)...)
		b.ReportAllocs()
		b.SetBytes(int64(len(list)))
		for b.Loop() {
			if _, err := readList(bytes.NewReader(list), kindNamed("EndpointSlice"), func(runtime.Object) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
