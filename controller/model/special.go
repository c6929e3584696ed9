// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"net/netip"
)

// The API server keeps out most of what follows, but it does not write manifests, and
// its checks have had holes. An object must not be able to do more than serve.

// nobodys says why an address cannot be a Service's; "" if it can. A loopback address is
// each host's own: to translate it would take what its processes say to each other.
func nobodys(a netip.Addr) string {
	switch {
	case a.IsLoopback():
		return "a loopback address, which is each host's own"
	case a.IsMulticast():
		return "a multicast address"
	}
	return ""
}

// noHost says why an address cannot be an endpoint's, or an external IP; "" if it can:
// the API server's rules (ValidateNonSpecialIP in pkg/apis/core/validation of Kubernetes).
// Behind loopback and link-local addresses are services of the node that trust whoever
// gets there, such as a cloud's metadata at 169.254.169.254, which the node would fetch
// for any client. To loopback the kernel lets only its own processes be translated, unless
// route_localnet is set.
func noHost(a netip.Addr) string {
	if a.IsLinkLocalUnicast() {
		return "a link-local address, which means something else on each link"
	}
	return nobodys(a)
}

// checkName says what is wrong with a name that is to become one in the kernel, and a
// word in logs: those of chains have a length.
func checkName(name string) error {
	if !isName(name) {
		return fmt.Errorf("%.70q is no name: small letters, digits and dashes, 63 at most", name)
	}
	return nil
}

// isName reports whether a name is a label of DNS (RFC 1123), as the API server wants
// those of namespaces, Services and their ports.
func isName(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
