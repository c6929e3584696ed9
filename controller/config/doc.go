// SPDX-License-Identifier: Apache-2.0

// Package config reads kube-proxy's configuration file, KubeProxyConfiguration of
// kubeproxy.config.k8s.io/v1alpha1, so that a cluster's own file starts kube-nft as
// it is.
//
// Decoding is strict about what is wrong and lenient about what is unknown: a field
// that this version does not know is reported and left out, as in kube-proxy.
// Defaults are kube-proxy's. Every problem is reported at once, each by the path of
// its field. What a field means here, or why it means nothing, is in one table
// (fields.go), from which docs/configuration.md is made; no field can be missing in
// it.
//
// Out of scope: our own few settings, which are flags, and anything but reading.
package config

import "k8s.io/kube-proxy/config/v1alpha1"

// Configuration is kube-proxy's, in the only version that there is.
type Configuration = v1alpha1.KubeProxyConfiguration

// What a file must say of itself.
const (
	apiVersion = "kubeproxy.config.k8s.io/v1alpha1"
	kind       = "KubeProxyConfiguration"
)
