// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// AuditPolicy is a policy for kube-apiserver by which it logs the requests of these
// users, when it begins to answer and when it ends, and of nobody else.
func AuditPolicy(users ...string) []byte {
	return fmt.Appendf(nil, `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: [%s]
- level: None
`, strings.Join(users, ", "))
}

// Request is one that the server has begun to answer, as its audit log tells.
type Request struct {
	User, Verb, Group, Resource, Subresource string
	Query                                    url.Values
	Code                                     int // HTTP status
}

// Requests reads an audit log, which need not be there yet: each request once.
func Requests(log string) (all []Request, err error) {
	text, err := os.ReadFile(log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for line := range bytes.Lines(text) {
		var event struct {
			AuditID, Verb, RequestURI string
			User                      struct{ Username string }
			ObjectRef                 struct{ APIGroup, Resource, Subresource string }
			ResponseStatus            struct{ Code int }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			continue // the line is being written
		}
		if seen[event.AuditID] { // a watch is logged when it begins and when it ends
			continue
		}
		seen[event.AuditID] = true
		uri, err := url.Parse(event.RequestURI)
		if err != nil {
			return nil, err
		}
		all = append(all, Request{
			User: event.User.Username, Verb: event.Verb, Group: event.ObjectRef.APIGroup,
			Resource: event.ObjectRef.Resource, Subresource: event.ObjectRef.Subresource,
			Query: uri.Query(), Code: event.ResponseStatus.Code,
		})
	}
	return all, nil
}
