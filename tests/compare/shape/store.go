// SPDX-License-Identifier: Apache-2.0

package shape

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Store writes objects to etcd, as the API server would, which then serves them as if
// it had. It is for very many: for each new Service the API server of Kubernetes 1.37
// counts all ClusterIPs twice (ipallocator.Allocator.Used), so that 44,125 Services
// take it ten minutes of processor time, and 100,000 an hour.
//
// It speaks to etcd's HTTP gateway, in transactions of many objects.
type Store struct{ client *http.Client }

// NewStore returns a Store for the etcd at a socket.
func NewStore(socket string) *Store {
	return &Store{&http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: storeWriters,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

const (
	storeWriters = 4
	// Limits of a transaction; etcd has 128 operations and 1.5 MB, of which JSON takes
	// a part.
	txnObjects = 100
	txnBytes   = 512 << 10
)

// put is what a transaction does for each object; []byte becomes base64 in JSON.
type put struct {
	RequestPut struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value"`
	} `json:"requestPut"`
}

// Write writes objects, and the IPAddress of each Service, and returns how many objects
// there were. They come in no order.
func (s *Store) Write(ctx context.Context, objects iter.Seq[Object]) (n int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan []put)
	var writers sync.WaitGroup
	for range storeWriters {
		writers.Go(func() {
			for puts := range queue {
				if err := s.commit(ctx, puts); err != nil {
					cancel(err)
				}
			}
		})
	}
	var puts []put
	size := 0
	for o := range objects {
		for _, stored := range withAddress(o) {
			p, err := newPut(stored)
			if err != nil {
				cancel(err)
				break
			}
			puts, size = append(puts, p), size+len(p.RequestPut.Value)
		}
		n++
		if len(puts) >= txnObjects-1 || size > txnBytes {
			queue <- puts
			puts, size = nil, 0
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(puts) > 0 {
		queue <- puts
	}
	close(queue)
	writers.Wait()
	return n, context.Cause(ctx)
}

// commit writes some objects in one transaction.
func (s *Store) commit(ctx context.Context, puts []put) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	body, err := json.Marshal(map[string]any{"success": puts})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://etcd/v3/kv/txn", bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("write to etcd: %s: %s", response.Status, text)
	}
	return nil
}

func newPut(o Object) (p put, err error) {
	complete(o)
	key, err := storageKey(o)
	if err != nil {
		return p, err
	}
	p.RequestPut.Key = []byte(key)
	p.RequestPut.Value, err = encode(o)
	return p, err
}

// withAddress returns a Service with the object that holds its ClusterIP, which has to
// be there first, and any other object alone.
func withAddress(o Object) []Object {
	s, ok := o.(*corev1.Service)
	if !ok {
		return []Object{o}
	}
	return []Object{&networkingv1.IPAddress{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IPAddress"},
		ObjectMeta: metav1.ObjectMeta{Name: s.Spec.ClusterIP, Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(corev1.IPv4Protocol), networkingv1.LabelManagedBy: "ipallocator.k8s.io",
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}},
	}, s}
}

// complete adds what the API server would: who the object is, since when, and who has
// written which of its fields.
func complete(o Object) {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	o.SetCreationTimestamp(now)
	fields := metav1.ManagedFieldsEntry{
		Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, Time: &now, FieldsType: "FieldsV1",
		APIVersion: o.GetObjectKind().GroupVersionKind().GroupVersion().String(),
	}
	switch o := o.(type) {
	case *corev1.Service:
		o.UID = uid(o.Spec.ClusterIP)
		fields.Manager = "kubectl-client-side-apply"
		fields.FieldsV1 = metav1.NewFieldsV1(serviceFields)
	case *discoveryv1.EndpointSlice:
		o.UID, o.Generation = sliceUID(o), 1
		fields.FieldsV1 = metav1.NewFieldsV1(sliceFields)
	default:
		o.SetUID(uid(o.GetName()))
		return
	}
	o.SetManagedFields([]metav1.ManagedFieldsEntry{fields})
}

// sliceUID is that of no other: the first endpoint's with another variant.
func sliceUID(o *discoveryv1.EndpointSlice) types.UID {
	if len(o.Endpoints) == 0 {
		return types.UID(o.OwnerReferences[0].UID[:24] + "ffffffffffff")
	}
	id := uid(o.Endpoints[0].Addresses[0])
	return id[:9] + "ffff" + id[13:]
}

const (
	serviceFields = `{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:clusterIP":{},"f:internalTrafficPolicy":{},"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},"f:protocol":{},"f:targetPort":{}}},"f:selector":{},"f:sessionAffinity":{},"f:type":{}}}`
	sliceFields   = `{"f:addressType":{},"f:endpoints":{},"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:endpointslice.kubernetes.io/managed-by":{},"f:kubernetes.io/service-name":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"00000000-0000-4000-8000-000000000000\"}":{}}},"f:ports":{}}`
)

// storageKey is where the API server looks for an object.
func storageKey(o Object) (string, error) {
	switch o.(type) {
	case *corev1.Service:
		return "/registry/services/specs/" + o.GetNamespace() + "/" + o.GetName(), nil
	case *discoveryv1.EndpointSlice:
		return "/registry/endpointslices/" + o.GetNamespace() + "/" + o.GetName(), nil
	case *networkingv1.IPAddress:
		return "/registry/ipaddresses/" + o.GetName(), nil
	}
	return "", fmt.Errorf("store %T: not one of those that there are many of", o)
}
