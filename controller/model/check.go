// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Check says what is invalid in a manifest's object. It asks for more than
// FromService and FromSlice do: where no API server allocates addresses, a Service
// without one is a mistake, and so is one of type NodePort without a node port.
func Check(o runtime.Object) error {
	switch o := o.(type) {
	case *corev1.Service:
		_, err := FromService(o, "")
		if o.Spec.ClusterIP == "" && o.Spec.Type != corev1.ServiceTypeExternalName {
			err = errors.Join(err, errors.New("spec.clusterIP: missing: nothing allocates addresses for manifests, write one, or None"))
		}
		for i, p := range o.Spec.Ports {
			if o.Spec.Type == corev1.ServiceTypeNodePort && p.NodePort == 0 {
				err = errors.Join(err, fmt.Errorf("spec.ports[%d].nodePort: missing: nothing allocates node ports for manifests, write one", i))
			}
		}
		return err
	case *discoveryv1.EndpointSlice:
		_, err := FromSlice(o, "")
		if o.Labels[discoveryv1.LabelServiceName] == "" {
			err = errors.Join(err, errors.New("metadata.labels: "+discoveryv1.LabelServiceName+" is missing, so it belongs to no Service"))
		}
		return err
	case *networkingv1.ServiceCIDR:
		_, err := FromServiceCIDR(o)
		if len(o.Spec.CIDRs) == 0 {
			err = errors.Join(err, errors.New("spec.cidrs: missing: name the addresses that cluster IPs are taken from"))
		}
		return err
	}
	return nil
}
