// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Event is one thing that a source says. Exactly one field is set.
type Event struct {
	Service       *corev1.Service
	Slice         *discoveryv1.EndpointSlice
	Node          *corev1.Node
	DeleteService types.NamespacedName
	DeleteSlice   types.NamespacedName

	ServiceCIDR       *networkingv1.ServiceCIDR
	DeleteServiceCIDR string
}

// Apply delivers the event. The receiver gets objects of its own, so an event
// can be applied any number of times.
func (e Event) Apply(sink Sink) {
	switch {
	case e.Service != nil:
		sink.SetService(e.Service.DeepCopy())
	case e.Slice != nil:
		sink.SetSlice(e.Slice.DeepCopy())
	case e.Node != nil:
		sink.SetNode(e.Node.DeepCopy())
	case e.DeleteService != types.NamespacedName{}:
		sink.DeleteService(e.DeleteService)
	case e.DeleteSlice != types.NamespacedName{}:
		sink.DeleteSlice(e.DeleteSlice)
	case e.ServiceCIDR != nil:
		sink.SetServiceCIDR(e.ServiceCIDR.DeepCopy())
	case e.DeleteServiceCIDR != "":
		sink.DeleteServiceCIDR(e.DeleteServiceCIDR)
	}
}

// String describes the event in one line, for the report of a failed test.
func (e Event) String() string {
	switch {
	case e.Service != nil:
		return describeService(e.Service)
	case e.Slice != nil:
		return describeSlice(e.Slice)
	case e.Node != nil:
		return fmt.Sprintf("node %s zone=%s", e.Node.Name, e.Node.Labels[corev1.LabelTopologyZone])
	case e.DeleteService != types.NamespacedName{}:
		return "delete service " + e.DeleteService.String()
	case e.ServiceCIDR != nil:
		return fmt.Sprintf("ServiceCIDR %s %v", e.ServiceCIDR.Name, e.ServiceCIDR.Spec.CIDRs)
	case e.DeleteServiceCIDR != "":
		return "delete ServiceCIDR " + e.DeleteServiceCIDR
	default:
		return "delete slice " + e.DeleteSlice.String()
	}
}

func describeService(s *corev1.Service) string {
	var ports []string
	for _, p := range s.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%s:%d/%s:%d", p.Name, p.Port, p.Protocol, p.NodePort))
	}
	var ingress []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		ingress = append(ingress, i.IP)
		if i.IPMode != nil {
			ingress[len(ingress)-1] += "/" + string(*i.IPMode)
		}
	}
	internal := ""
	if s.Spec.InternalTrafficPolicy != nil {
		internal = string(*s.Spec.InternalTrafficPolicy)
	}
	return fmt.Sprintf("service %s %s ips=%v ports=%v external=%v lb=%v ranges=%v internal=%s externalPolicy=%s affinity=%s",
		nameOf(s), s.Spec.Type, s.Spec.ClusterIPs, ports, s.Spec.ExternalIPs, ingress,
		s.Spec.LoadBalancerSourceRanges, internal, s.Spec.ExternalTrafficPolicy, s.Spec.SessionAffinity)
}

func describeSlice(s *discoveryv1.EndpointSlice) string {
	var ports, endpoints []string
	for _, p := range s.Ports {
		ports = append(ports, fmt.Sprintf("%s:%d/%s", *p.Name, *p.Port, *p.Protocol))
	}
	for _, e := range s.Endpoints {
		endpoints = append(endpoints, fmt.Sprintf("%s@%s%s", e.Addresses[0], *e.NodeName, describeEndpoint(e)))
	}
	return fmt.Sprintf("slice %s of %s %s ports=%v [%s]", nameOf(s), s.Labels[discoveryv1.LabelServiceName],
		s.AddressType, ports, strings.Join(endpoints, " "))
}

// describeEndpoint shows conditions as letters, capital for true and - for unset.
func describeEndpoint(e discoveryv1.Endpoint) string {
	letter := func(b *bool, yes, no string) string {
		switch {
		case b == nil:
			return "-"
		case *b:
			return yes
		default:
			return no
		}
	}
	c := e.Conditions
	text := "," + letter(c.Ready, "R", "r") + letter(c.Serving, "S", "s") + letter(c.Terminating, "T", "t")
	if e.Hints != nil {
		for _, z := range e.Hints.ForZones {
			text += "," + z.Name
		}
		for _, n := range e.Hints.ForNodes {
			text += "," + n.Name
		}
	}
	return text
}

// The universe of Events is small, so that everything collides with everything:
// Services share addresses and ports, slices share endpoints.
const (
	eventServices  = 12
	eventEndpoints = 40
	eventSlices    = 3 // of a Service and family
	eventNodes     = 3 // node-0 is the one that Node events are about
)

// Events returns a random sequence of that many events, the same for the same
// seed: Services come, change in every way that matters to a proxy, and go, and
// so do their slices and ServiceCIDRs, in both families and in any order. Objects
// contradict each other, and now and then change in ways that an API server would
// refuse.
func Events(seed uint64, steps int) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		g := newWorld(seed)
		for range steps {
			if !yield(g.next()) {
				return
			}
		}
	}
}

// world is the state that Events moves about in.
type world struct {
	*rand.Rand
	services map[int]*corev1.Service
	slices   map[types.NamespacedName]*discoveryv1.EndpointSlice
	born     int
}

func newWorld(seed uint64) *world {
	return &world{
		Rand:     rand.New(rand.NewPCG(seed, 2)),
		services: map[int]*corev1.Service{},
		slices:   map[types.NamespacedName]*discoveryv1.EndpointSlice{},
	}
}

// next makes one event. Its objects are not touched afterwards.
func (w *world) next() Event {
	switch n := w.IntN(100); {
	case n < 3:
		return Event{Node: w.node()}
	case n < 6:
		return w.serviceCIDR()
	case n < 10:
		if name, ok := w.dropService(); ok {
			return Event{DeleteService: name}
		}
	case n < 18:
		if name, ok := w.dropSlice(); ok {
			return Event{DeleteSlice: name}
		}
	case n < 50:
		return Event{Service: w.service()}
	}
	return Event{Slice: w.slice()}
}

func (w *world) node() *corev1.Node {
	node := (&Synthetic{DualStack: true}).Node(0)
	node.Labels[corev1.LabelTopologyZone] = oneOf(w, "zone-0", "zone-1")
	if w.chance(4) {
		node.Labels = nil
	}
	return node
}

func (w *world) dropService() (types.NamespacedName, bool) {
	keys := slices.Sorted(maps.Keys(w.services))
	if len(keys) == 0 {
		return types.NamespacedName{}, false
	}
	i := oneOf(w, keys...)
	delete(w.services, i)
	return eventService(i), true
}

func (w *world) dropSlice() (types.NamespacedName, bool) {
	if len(w.slices) == 0 {
		return types.NamespacedName{}, false
	}
	names := slices.SortedFunc(maps.Keys(w.slices), func(a, b types.NamespacedName) int {
		return strings.Compare(a.String(), b.String())
	})
	name := oneOf(w, names...)
	delete(w.slices, name)
	return name, true
}

// chance is true once in n times.
func (w *world) chance(n int) bool { return w.IntN(n) == 0 }

func oneOf[T any](w *world, choices ...T) T { return choices[w.IntN(len(choices))] }

// birth is the metadata of a new object. Now and then two are of the same age.
func (w *world) birth(name types.NamespacedName) metav1.ObjectMeta {
	if !w.chance(4) {
		w.born++
	}
	return metav1.ObjectMeta{
		Namespace:         name.Namespace,
		Name:              name.Name,
		UID:               types.UID(fmt.Sprintf("%s/%d", name, w.Uint32())),
		CreationTimestamp: metav1.NewTime(syntheticEpoch.Add(time.Duration(w.born) * time.Second)),
	}
}

// eventService is the name of Service i: the same names in three namespaces.
func eventService(i int) types.NamespacedName {
	return types.NamespacedName{
		Namespace: "ns-" + string(rune('a'+i%3)),
		Name:      "svc-" + string(rune('a'+i/3)),
	}
}
