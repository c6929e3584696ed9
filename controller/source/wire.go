// SPDX-License-Identifier: Apache-2.0

package source

import (
	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What StripService and the like drop from an object, this file drops from its
// encoding, so that it is not decoded to begin with. Most of a real object is of that
// kind: a reference to a Pod for each endpoint, who manages which field.

// message says which fields of a message are kept, by their number on the wire.
type message []keptField

// keptField is a field that is kept. Its name is what generated.proto has, where the number
// is from.
type keptField struct {
	name string
	// of says what is kept of a message; nil = all of the field.
	of message
	// keys says which entries are kept of a map; nil = all of the field.
	keys []string
}

var (
	serviceMessage = message{
		1: {name: "metadata", of: metaMessage(serviceLabels)},
		2: {name: "spec", of: message{
			1: {name: "ports", of: message{
				1: {name: "name"},
				2: {name: "protocol"},
				3: {name: "port"},
				5: {name: "nodePort"},
			}},
			3:  {name: "clusterIP"},
			4:  {name: "type"},
			5:  {name: "externalIPs"},
			7:  {name: "sessionAffinity"},
			9:  {name: "loadBalancerSourceRanges"},
			11: {name: "externalTrafficPolicy"},
			12: {name: "healthCheckNodePort"},
			14: {name: "sessionAffinityConfig"},
			18: {name: "clusterIPs"},
			19: {name: "ipFamilies"},
			22: {name: "internalTrafficPolicy"},
		}},
		3: {name: "status", of: message{
			1: {name: "loadBalancer", of: message{
				1: {name: "ingress", of: message{
					1: {name: "ip"},
					3: {name: "ipMode"},
				}},
			}},
		}},
	}

	sliceMessage = message{
		1: {name: "metadata", of: metaMessage(sliceLabels)},
		endpointsField: {name: "endpoints", of: message{
			1: {name: "addresses"},
			2: {name: "conditions"},
			6: {name: "nodeName"},
			8: {name: "hints"},
		}},
		3: {name: "ports", of: message{
			1: {name: "name"},
			2: {name: "protocol"},
			3: {name: "port"},
		}},
		4: {name: "addressType"},
	}

	nodeMessage = message{
		1: {name: "metadata", of: metaMessage(nodeLabels)},
		2: {name: "spec", of: message{
			1: {name: "podCIDR"},
			5: {name: "taints"},
			7: {name: "podCIDRs"},
		}},
		3: {name: "status", of: message{
			5: {name: "addresses"},
		}},
	}
)

// endpointsField is the number of an EndpointSlice's endpoints.
const endpointsField = 2

// metaMessage is what stripMeta and StripNode keep of an ObjectMeta, and what a
// Reflector reads in it: the version, and what marks the end of a streamed list.
func metaMessage(labels []string) message {
	return message{
		1:  {name: "name"},
		3:  {name: "namespace"},
		5:  {name: "uid"},
		6:  {name: "resourceVersion"},
		8:  {name: "creationTimestamp"},
		9:  {name: "deletionTimestamp"},
		11: {name: "labels", keys: labels},
		12: {name: "annotations", keys: append([]string{metav1.InitialEventsAnnotationKey}, annotations...)},
	}
}

// strip appends to out what is kept of an encoded message, in its order. It reports
// false when the encoding is malformed, as far as it had to be looked at.
func (m message) strip(out, b []byte) ([]byte, bool) {
	for len(b) > 0 {
		p := nextPart(b)
		if p.size < 0 {
			return out, false
		}
		whole := b[:p.size]
		b = b[p.size:]
		if int64(p.number) >= int64(len(m)) || m[p.number].name == "" {
			continue
		}
		f, ok := &m[p.number], true
		switch {
		case p.kind != protowire.BytesType: // a number, or an error that the generated code tells
			out = append(out, whole...)
		case f.of != nil:
			out, ok = f.of.nest(append(out, whole[:p.tag]...), p.value)
		case f.keys != nil:
			out, ok = appendEntry(out, whole, p.value, f.keys)
		default:
			out = append(out, whole...)
		}
		if !ok {
			return out, false
		}
	}
	return out, true
}

// nest appends a message within another, behind its tag. What is left of it cannot be
// longer than it was: its length gets as many bytes beforehand as the old one needs, for
// a number may have leading zeros on the wire.
func (m message) nest(out, b []byte) ([]byte, bool) {
	at, width := len(out), protowire.SizeVarint(uint64(len(b)))
	var room [10]byte // of the longest number
	out, ok := m.strip(append(out, room[:width]...), b)
	left := len(out) - at - width
	for i := range width - 1 {
		out[at+i] = byte(left) | 0x80
		left >>= 7
	}
	out[at+width-1] = byte(left)
	return out, ok
}

// appendEntry appends an entry of a map if its key is among keys.
func appendEntry(out, whole, entry []byte, keys []string) ([]byte, bool) {
	var key []byte
	for len(entry) > 0 {
		p := nextPart(entry)
		if p.size < 0 {
			return out, false
		}
		if p.number == 1 {
			key = p.value
		}
		entry = entry[p.size:]
	}
	for _, k := range keys {
		if string(key) == k {
			return append(out, whole...), true
		}
	}
	return out, true
}

// part is a field as it is on the wire.
type part struct {
	number    protowire.Number
	kind      protowire.Type
	value     []byte // what it holds if it has a length; else nil
	tag, size int    // in bytes, of its tag and of all of it; the latter is below 0 if it is malformed
}

// nextPart returns the first field of a message that is not empty.
func nextPart(b []byte) part {
	p := part{}
	if p.number, p.kind, p.tag = protowire.ConsumeTag(b); p.tag < 0 {
		p.size = p.tag
		return p
	}
	n := 0
	if p.kind == protowire.BytesType {
		p.value, n = protowire.ConsumeBytes(b[p.tag:])
	} else {
		n = protowire.ConsumeFieldValue(p.number, p.kind, b[p.tag:])
	}
	if p.size = p.tag + n; n < 0 {
		p.size = n
	}
	return p
}
