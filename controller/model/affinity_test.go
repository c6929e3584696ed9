// SPDX-License-Identifier: Apache-2.0

package model

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestAffinityTimeout(t *testing.T) {
	const field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
	seconds := func(n int32) *corev1.SessionAffinityConfig {
		return &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &n}}
	}
	cases := []struct {
		name     string
		affinity corev1.ServiceAffinity
		config   *corev1.SessionAffinityConfig
		want     time.Duration
		problems []string
	}{
		{"unset", "", nil, 0, nil},
		{"none", corev1.ServiceAffinityNone, nil, 0, nil},
		{"stale config", corev1.ServiceAffinityNone, seconds(0), 0, nil},
		{"no config", corev1.ServiceAffinityClientIP, nil, 3 * time.Hour, nil},
		{"no client IP", corev1.ServiceAffinityClientIP, &corev1.SessionAffinityConfig{}, 3 * time.Hour, nil},
		{"no timeout", corev1.ServiceAffinityClientIP, &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{}}, 3 * time.Hour, nil},
		{"shortest", corev1.ServiceAffinityClientIP, seconds(1), time.Second, nil},
		{"longest", corev1.ServiceAffinityClientIP, seconds(86400), 24 * time.Hour, nil},
		{"zero", corev1.ServiceAffinityClientIP, seconds(0), 3 * time.Hour, []string{field + ": 0 is not in 1-86400"}},
		{"negative", corev1.ServiceAffinityClientIP, seconds(-5), 3 * time.Hour, []string{field + ": -5"}},
		{"too long", corev1.ServiceAffinityClientIP, seconds(86401), 3 * time.Hour, []string{field + ": 86401"}},
		{"unknown", "Cookie", seconds(60), 0, []string{`spec.sessionAffinity: "Cookie"`}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := FromService(web(func(s *corev1.Service) {
				s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = tc.affinity, tc.config
			}), "")
			if got.AffinityTimeout != tc.want {
				t.Errorf("timeout %v, want %v", got.AffinityTimeout, tc.want)
			}
			checkProblems(t, err, tc.problems)
		})
	}
}
