// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime"
)

// List is all there is of a resource, as a server answers in protobuf.
type List struct {
	Items [][]byte // an object each
	Cut   int      // bytes that are missing at the end of the answer, which breaks off there

	kind     runtime.TypeMeta
	metadata []byte
}

// parseList reads an answer.
func parseList(data []byte) (*List, error) {
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(bytes.TrimPrefix(data, envelopePrefix)); err != nil {
		return nil, err
	}
	l := &List{kind: envelope.TypeMeta}
	for rest := envelope.Raw; len(rest) > 0; {
		number, kind, tag := protowire.ConsumeTag(rest)
		if tag < 0 || kind != protowire.BytesType {
			return nil, errors.New("no list of objects")
		}
		value, size := protowire.ConsumeBytes(rest[tag:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		switch number {
		case 1:
			l.metadata = value
		case 2:
			l.Items = append(l.Items, value)
		}
		rest = rest[tag+size:]
	}
	return l, nil
}

func (l *List) encode() []byte {
	raw := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), l.metadata)
	for _, item := range l.Items {
		raw = protowire.AppendBytes(protowire.AppendTag(raw, 2, protowire.BytesType), item)
	}
	envelope := runtime.Unknown{TypeMeta: l.kind, Raw: raw}
	return append(bytes.Clone(envelopePrefix), must(envelope.Marshal())...)
}

// Size is how many bytes a list has.
func (l *List) Size() int { return len(l.encode()) }

// Write answers a request with the list.
func (l *List) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	data := l.encode()
	_, _ = w.Write(data[:len(data)-l.Cut]) // whoever has gone will not complain
	if l.Cut > 0 {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // not an end, but a break
	}
}

// list passes a list on, or what a fault makes of it.
func (p *Proxy) list(w http.ResponseWriter, q Question, from io.Reader) {
	data, err := io.ReadAll(from)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	l, err := parseList(data)
	if err != nil { // it is something else
		_, _ = w.Write(data)
		return
	}
	p.record(q.Resource, *l)
	if f := p.now(); f.List != nil && f.List(q, l) {
		p.hits.Add(1)
	}
	l.Write(w)
}

// record keeps the first list of a resource.
func (p *Proxy) record(resource string, l List) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recorded[resource] == nil {
		p.recorded[resource] = &l
	}
}

func (p *Proxy) recordedOf(resource string) *List {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.recorded[resource]
}
