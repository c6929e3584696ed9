// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Fault is what goes wrong.
type Fault struct {
	// Answer answers a request in place of the server, or returns false. recorded is
	// how the resource was listed first: what a server that has fallen back says.
	Answer func(w http.ResponseWriter, q Question, recorded *List) bool
	// List changes a list on its way, and reports whether it has.
	List func(q Question, l *List) bool
	// Frame is given each frame of a watch, and emits what is to come instead. It
	// reports whether it has changed anything. Its error breaks the watch off, but for
	// ErrHangs.
	Frame func(f Frame, emit func([]byte) error) (changed bool, err error)
	// WatchFor is how long the server is told to watch, in place of minutes.
	WatchFor time.Duration
	// Expired has new connections meet a certificate that has expired.
	Expired bool
}

// ErrHangs has a watch say nothing more, and not end before the server ends it.
var ErrHangs = errors.New("hangs")

// Question is a request of the client.
type Question struct {
	*http.Request
	Resource string
	Watch    bool
	List     bool
}

// Frame is one event of a watch.
type Frame struct {
	Question
	Data []byte
}

// Bookmark reports whether a frame is a bookmark: field 1 of a metav1.WatchEvent is its
// type.
func (f Frame) Bookmark() bool { return bytes.HasPrefix(f.Data, []byte("\x0a\x08BOOKMARK")) }

// Name is the name of the object in a frame, which is field 1 of its metadata, which is
// field 1 of the object, in an envelope of apimachinery.
func (f Frame) Name() string {
	var event metav1.WatchEvent
	var envelope runtime.Unknown
	if event.Unmarshal(f.Data) != nil || envelope.Unmarshal(bytes.TrimPrefix(event.Object.Raw, envelopePrefix)) != nil {
		return ""
	}
	return string(first(first(envelope.Raw)))
}

// first returns field 1 of a message, of type bytes, which generated code writes first.
func first(message []byte) []byte {
	if len(message) < 2 || message[0] != 0x0a {
		return nil
	}
	n, size := binary.Uvarint(message[1:])
	if size <= 0 || uint64(len(message)-1-size) < n {
		return nil
	}
	return message[1+size:][:n]
}

var envelopePrefix = []byte("k8s\x00")

// Gone is a frame that says that a watch is too old, as kube-apiserver does: 410.
func Gone() []byte {
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired,
		Message: "too old resource version: 1 (2)"}
	return Event("ERROR", must(status.Marshal()), "v1", "Status")
}

// Event is a frame with an object.
func Event(kind string, object []byte, apiVersion, objectKind string) []byte {
	envelope := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: objectKind}, Raw: object}
	event := metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: append(bytes.Clone(envelopePrefix), must(envelope.Marshal())...)}}
	return must(event.Marshal())
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err) // of a constant
	}
	return data
}

// WriteFrames answers a request to watch with frames.
func WriteFrames(w http.ResponseWriter, frames ...[]byte) {
	w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf;stream=watch")
	w.WriteHeader(http.StatusOK)
	for _, f := range frames {
		_, _ = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...))
	}
	_ = http.NewResponseController(w).Flush()
}

// WriteStatus refuses a request.
func WriteStatus(w http.ResponseWriter, code int, retryAfter string) {
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"injected","code":` + strconv.Itoa(code) + `}`))
}
