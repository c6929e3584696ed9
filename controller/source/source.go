// SPDX-License-Identifier: Apache-2.0

// Package source delivers Kubernetes objects to the controller, from wherever
// they are kept: the Kubernetes API, manifests on disk, or a generator.
//
// A source decides nothing. It delivers every object that it holds, then says
// Synced, then delivers changes as they happen. Objects that it delivers belong
// to the receiver; what a source itself remembers is no more than it needs to
// tell which objects are gone.
package source

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Sink receives objects. Its methods may be called from several goroutines, do
// not block for long, and accept the same object any number of times: only the
// last word on an object counts.
type Sink interface {
	// SetService says that the Service exists and looks like this now.
	SetService(*corev1.Service)
	// DeleteService says that there is no such Service; it may never have been set.
	DeleteService(types.NamespacedName)
	// SetSlice says that the EndpointSlice exists and looks like this now.
	SetSlice(*discoveryv1.EndpointSlice)
	// DeleteSlice says that there is no such EndpointSlice; it may never have been set.
	DeleteSlice(types.NamespacedName)
	// SetNode describes the node that this process serves.
	SetNode(*corev1.Node)
	// DeleteNode says that there is no such node object any more; the machine may well
	// be there.
	DeleteNode()
	// SetServiceCIDR says that the ServiceCIDR exists and looks like this now.
	SetServiceCIDR(*networkingv1.ServiceCIDR)
	// DeleteServiceCIDR says that there is no such ServiceCIDR; it may never have
	// been set.
	DeleteServiceCIDR(name string)
	// Synced says that every Service and EndpointSlice which existed when the
	// source started has been delivered, and the Node unless the source is not
	// allowed to see it. Nothing is programmed before it. ServiceCIDRs may come
	// later.
	Synced()
}

// Source delivers objects to a Sink until ctx ends or it can no longer go on.
// Run returns nil when ctx ended, else the reason why it gave up.
type Source interface {
	Run(ctx context.Context, sink Sink) error
}
