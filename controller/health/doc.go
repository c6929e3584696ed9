// SPDX-License-Identifier: Apache-2.0

// Package health answers those who ask how things are:
//
//   - probes and load balancers that ask the node as a whole (Proxy): is what has come
//     in programmed, and should the node get new connections?
//   - load balancers that ask for one Service (Services), at its healthCheckNodePort:
//     has this node endpoints of it, so that nothing is sent where it would be dropped?
//
// Answers and words are kube-proxy's (pkg/proxy/healthcheck of Kubernetes).
package health
