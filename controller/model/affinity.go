// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// maxAffinitySeconds is the longest that the API takes
// (MaxClientIPServiceAffinitySeconds in pkg/apis/core of Kubernetes).
const maxAffinitySeconds = 86400

// affinityTimeout reads how long a client stays with its endpoint; 0 is not at
// all. The default is the API's; an API server sees to it that it is there
// (spec.sessionAffinityConfig.clientIP.timeoutSeconds).
func affinityTimeout(s *corev1.Service, p *problems) time.Duration {
	switch s.Spec.SessionAffinity {
	case corev1.ServiceAffinityClientIP:
	case corev1.ServiceAffinityNone, "":
		return 0
	default:
		p.add("spec.sessionAffinity", fmt.Sprintf("%q is neither None nor ClientIP", s.Spec.SessionAffinity))
		return 0
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if t := *c.ClientIP.TimeoutSeconds; t >= 1 && t <= maxAffinitySeconds {
			seconds = t
		} else {
			p.add("spec.sessionAffinityConfig.clientIP.timeoutSeconds", fmt.Sprintf("%d is not in 1-%d, %d counts instead",
				t, maxAffinitySeconds, seconds))
		}
	}
	return time.Duration(seconds) * time.Second
}
