// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/kube-nft/kube-nft/tests/cluster"
)

// request is one of kube-nft's, as the server's audit log tells.
type request struct {
	verb, resource, subresource string
	query                       url.Values
	code                        int
}

// lists reports whether the request was for all there is of its resource, and
// successful.
func (r request) lists() bool { return r.code == http.StatusOK && r.verb == "list" }

// writeAuditPolicy returns the path of a policy by which the server logs the
// requests of kube-nft when it begins to answer them.
func (s *site) writeAuditPolicy() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "policy.yaml")
	s.Must(os.WriteFile(path, cluster.AuditPolicy(user.Name), 0o644))
	return path
}

// requests returns kube-nft's requests so far, each once.
func (s *site) requests() (all []request) {
	s.t.Helper()
	logged, err := cluster.Requests(s.auditLog)
	s.Must(err)
	for _, r := range logged {
		all = append(all, request{r.Verb, r.Resource, r.Subresource, r.Query, r.Code})
	}
	return all
}

// count returns how many of kube-nft's requests for a resource so far are so.
func (s *site) count(resource string, is func(request) bool) (n int) {
	s.t.Helper()
	for _, r := range s.requests() {
		if r.resource == resource && is(r) {
			n++
		}
	}
	return n
}
