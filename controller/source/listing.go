// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// listing is a list in protobuf that is told object by object as it comes off the wire.
// A Reflector takes it for the watch that begins with a list (KEP-3157), which ends where
// the list does, and so watches from there on. For a real one the server makes an event of
// each object and sends it by itself; a list it writes as a stream of bytes (KEP-5116), in
// half the time. Neither of them, nor we, ever hold all of it.
type listing struct {
	kind   *streamed
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelFunc
	events chan watch.Event
}

// listingAhead is how many objects are decoded before they are asked for.
const listingAhead = 64

// startListing asks for a list, and tells it from another goroutine. The error is that
// of the request.
func startListing(ctx context.Context, kind *streamed, list func(context.Context) (io.ReadCloser, error)) (watch.Interface, error) {
	l := &listing{kind: kind, events: make(chan watch.Event, listingAhead)}
	l.ctx, l.cancel = context.WithCancel(ctx)
	var err error
	if l.body, err = list(l.ctx); err != nil {
		l.cancel()
		return nil, err
	}
	go l.run()
	return l, nil
}

// Stop implements watch.Interface.
func (l *listing) Stop() { l.cancel() }

// ResultChan implements watch.Interface.
func (l *listing) ResultChan() <-chan watch.Event { return l.events }

func (l *listing) run() {
	defer l.cancel()
	defer close(l.events)
	version, err := readList(l.body, l.kind, func(o runtime.Object) error {
		return l.tell(watch.Event{Type: watch.Added, Object: o})
	})
	if err = errors.Join(err, l.body.Close()); err == nil {
		err = l.end(version)
	}
	if err != nil {
		status := apierrors.NewInternalError(fmt.Errorf("list %ss: %w", l.kind.Kind, err)).Status()
		_ = l.tell(watch.Event{Type: watch.Error, Object: &status}) // if anybody wants to know
	}
}

// end tells that the list is complete. A second bookmark follows: what a Reflector goes on
// to read then has an event, and ends. Without one it would be an error to it, after which
// it lists again.
func (l *listing) end(version string) error {
	for _, annotations := range []map[string]string{{metav1.InitialEventsAnnotationKey: "true"}, nil} {
		mark, err := l.kind.decode(nil)
		if err != nil {
			return err
		}
		o := mark.(metav1.Object) // as all kinds are
		o.SetResourceVersion(version)
		o.SetAnnotations(annotations)
		if err := l.tell(watch.Event{Type: watch.Bookmark, Object: mark}); err != nil {
			return err
		}
	}
	return nil
}

func (l *listing) tell(e watch.Event) error {
	select {
	case l.events <- e:
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}

// listReader reads a list as runtime.Unknown, which is what is around everything in
// protobuf (k8s.io/apimachinery/pkg/runtime/generated.proto), and the list in it
// (ServiceList and others in generated.proto of their APIs) have it, field by field.
type listReader struct {
	*bufio.Reader
	kind    *streamed
	left    uint64 // bytes of the message that is read
	buffer  []byte
	version string
	tell    func(runtime.Object) error
}

// readList tells each object of a list, and returns the list's resourceVersion.
func readList(r io.Reader, kind *streamed, tell func(runtime.Object) error) (version string, err error) {
	l := &listReader{Reader: bufio.NewReaderSize(r, 64<<10), kind: kind, left: 1 << 62, tell: tell}
	prefix, err := l.bytes(uint64(len(protobufPrefix)))
	if err != nil {
		return "", err
	}
	if string(prefix) != protobufPrefix {
		return "", fmt.Errorf("no protobuf: it begins with %q", prefix)
	}
	if err := l.fields(l.envelope); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if l.version == "" {
		return "", errors.New("a list has no resourceVersion")
	}
	return l.version, nil
}

// maxObject is what we take for an object at most, in bytes. The store of a cluster has
// 1.5 MB for one, unless told otherwise.
const maxObject = 64 << 20

// fields reads a message, whose fields all have a length. The error is io.EOF where the
// answer ends between two of them.
func (l *listReader) fields(f func(number protowire.Number, size uint64) error) error {
	for l.left > 0 {
		tag, err := l.varint()
		if err != nil {
			return err
		}
		number, kind := protowire.DecodeTag(tag)
		if kind != protowire.BytesType {
			return fmt.Errorf("field %d of a list is of type %d", number, kind)
		}
		size, err := l.varint()
		if err != nil {
			return cut(err)
		}
		if size > l.left {
			return fmt.Errorf("field %d of a list is longer than what it is in", number)
		}
		if err := f(number, size); err != nil {
			return cut(err)
		}
	}
	return nil
}

// cut says of an end where there is to be more that it is none.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// envelope reads a field of runtime.Unknown.
func (l *listReader) envelope(number protowire.Number, size uint64) error {
	if number == 2 {
		outside := l.left - size
		l.left = size
		if err := l.fields(l.item); err != nil {
			return err
		}
		l.left = outside
		return nil
	}
	b, err := l.bytes(size)
	if err != nil {
		return err
	}
	if number != 1 {
		return nil // of the content's encoding and type, which say nothing here
	}
	var version, kind []byte
	if want := l.kind.Kind + "List"; !open(b, &version, &kind) || string(kind) != want || string(version) != l.kind.version {
		return fmt.Errorf("a %s of %s is no %s of %s", kind, version, want, l.kind.version)
	}
	return nil
}

// item reads a field of a list: 1 is its metadata, 2 an object.
func (l *listReader) item(number protowire.Number, size uint64) error {
	b, err := l.bytes(size)
	if err != nil {
		return err
	}
	switch number {
	case 1:
		var m metav1.ListMeta
		err = m.Unmarshal(b)
		l.version = m.ResourceVersion
	case 2:
		var o runtime.Object
		if o, err = l.kind.object(b); err == nil {
			err = l.tell(o)
		}
	}
	return err
}

// bytes returns what comes next; it lasts until the next call. Room is made as it comes,
// and not for what is only said to come.
func (l *listReader) bytes(size uint64) ([]byte, error) {
	if size > maxObject {
		return nil, fmt.Errorf("%d bytes for one object of a list", size)
	}
	l.left -= size
	b := l.buffer[:0]
	for uint64(len(b)) < size {
		n := int(min(size-uint64(len(b)), 1<<20))
		b = slices.Grow(b, n)[:len(b)+n]
		if _, err := io.ReadFull(l.Reader, b[len(b)-n:]); err != nil {
			return nil, err
		}
	}
	l.buffer = b
	return b, nil
}

// varint reads a number. The error is io.EOF only where there is nothing any more.
func (l *listReader) varint() (v uint64, err error) {
	for shift := 0; shift < 64; shift += 7 {
		if l.left == 0 {
			return 0, errors.New("a number in a list is longer than what it is in")
		}
		b, err := l.ReadByte()
		if err != nil && shift > 0 {
			err = cut(err)
		}
		if err != nil {
			return 0, err
		}
		l.left--
		if v |= uint64(b&0x7f) << shift; b < 0x80 {
			return v, nil
		}
	}
	return 0, errors.New("a number in a list is too large")
}
