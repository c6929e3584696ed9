// SPDX-License-Identifier: Apache-2.0

package conformance

func explained(d divergence) bool { return false }

func cmpType(p *plan) string { return string(p.service().Spec.Type) }
