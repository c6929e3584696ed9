// SPDX-License-Identifier: Apache-2.0

package model

import corev1 "k8s.io/api/core/v1"

// Unsupported says what a Service asks for that the tables do not do yet, in
// words for its owner; "" if they do everything.
func Unsupported(s *corev1.Service) string {
	switch {
	case len(s.Spec.LoadBalancerSourceRanges) > 0:
		return "spec.loadBalancerSourceRanges is not enforced: every source is let in"
	case s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP:
		return "spec.sessionAffinity is not kept: every connection goes to any endpoint"
	}
	return ""
}
