// SPDX-License-Identifier: Apache-2.0

package shape

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is what a Loader writes: a Service, an EndpointSlice or a Node.
type Object interface {
	metav1.Object
	Marshal() ([]byte, error) // as protobuf, which the API server reads fastest
	GetObjectKind() schema.ObjectKind
}

// Loader writes objects to an API server, many at a time.
type Loader struct {
	url     string
	clients []*http.Client // each has a connection of its own
}

// parallel is how many requests a Loader has under way on each connection.
const parallel = 32

// NewLoader returns a Loader for the API server at the URL. Each of the clients is to
// have a connection of its own, by HTTP/2.
func NewLoader(url string, clients ...*http.Client) *Loader { return &Loader{url, clients} }

// Create creates objects, and returns how many there were. It stops at the first that
// fails.
func (l *Loader) Create(ctx context.Context, objects iter.Seq[Object]) (n int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan Object, parallel)
	var writers sync.WaitGroup
	for i := range parallel * len(l.clients) {
		writers.Go(func() {
			for o := range queue {
				if err := l.send(ctx, l.clients[i%len(l.clients)], http.MethodPost, o); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
feed:
	for o := range objects {
		select {
		case queue <- o:
			n++
		case <-ctx.Done():
			break feed
		}
	}
	close(queue)
	writers.Wait()
	return n, context.Cause(ctx)
}

// Put writes an object over what is there.
func (l *Loader) Put(ctx context.Context, o Object) error {
	return l.send(ctx, l.clients[0], http.MethodPut, o)
}

// Request is one that is ready to be sent, more than once if need be.
type Request struct {
	method, url string
	body        []byte
}

// PutRequest prepares what Put does: whoever measures it does not measure how it is encoded.
func (l *Loader) PutRequest(o Object) (Request, error) { return l.request(http.MethodPut, o) }

// Send sends a request over one of the connections, any number.
func (l *Loader) Send(ctx context.Context, connection int, r Request) error {
	return r.send(ctx, l.clients[connection%len(l.clients)])
}

func (l *Loader) send(ctx context.Context, client *http.Client, method string, o Object) error {
	r, err := l.request(method, o)
	if err != nil {
		return err
	}
	return r.send(ctx, client)
}

func (l *Loader) request(method string, o Object) (Request, error) {
	path, err := collection(o)
	if err != nil {
		return Request{}, err
	}
	if method == http.MethodPut {
		path += "/" + o.GetName()
	}
	body, err := encode(o)
	return Request{method, l.url + path, body}, err
}

func (r Request) send(ctx context.Context, client *http.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(r.body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", protobuf)
	request.Header.Set("Accept", protobuf)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", r.method, r.url, response.Status, printable(answer))
	}
	return nil
}

const protobuf = "application/vnd.kubernetes.protobuf"

// encode is the reverse of what the API server does first: the object's own encoding,
// in an envelope that says what it is.
func encode(o Object) ([]byte, error) {
	raw, err := o.Marshal()
	if err != nil {
		return nil, err
	}
	version, kind := o.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	envelope := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: version, Kind: kind}, Raw: raw}
	text, err := envelope.Marshal()
	return append([]byte("k8s\x00"), text...), err
}

// collection is the path of all objects of this kind in its namespace.
func collection(o Object) (string, error) {
	switch o.(type) {
	case *corev1.Service:
		return "/api/v1/namespaces/" + o.GetNamespace() + "/services", nil
	case *discoveryv1.EndpointSlice:
		return "/apis/discovery.k8s.io/v1/namespaces/" + o.GetNamespace() + "/endpointslices", nil
	case *corev1.Node:
		return "/api/v1/nodes", nil
	}
	return "", fmt.Errorf("write %T: neither a Service nor an EndpointSlice nor a Node", o)
}

// printable leaves out what in an answer is not text.
func printable(answer []byte) string {
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, answer))
}
