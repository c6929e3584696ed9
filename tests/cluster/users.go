// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
)

// Admin is the user that may do everything. Every Cluster has it.
const Admin = "admin"

// User is somebody whom the server knows by a token. A user other than Admin may
// do what RBAC objects, written by the test, allow.
type User struct {
	Name   string
	Groups []string // without system:authenticated, which the server adds
}

// ServiceAccount returns the user as which a pod with that service account acts.
func ServiceAccount(namespace, name string) User {
	return User{
		Name:   "system:serviceaccount:" + namespace + ":" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace},
	}
}

// May asks the server whether a user may do something to a resource, in all namespaces.
func (c *Cluster) May(ctx context.Context, user User, verb, group, resource string) (bool, error) {
	review := authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Name, Groups: user.Groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: group, Resource: resource, Verb: verb},
	}}
	err := c.Do(ctx, http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review, &review)
	return review.Status.Allowed, err
}

// writeUsers gives each user a token and a kubeconfig, and Admin a client.
func (c *Cluster) writeUsers() error {
	var err error
	if c.roots, err = os.ReadFile(c.CAFile); err != nil {
		return err
	}
	var tokens bytes.Buffer
	w := csv.NewWriter(&tokens)
	for _, u := range append([]User{{Name: Admin, Groups: []string{"system:masters"}}}, c.config.Users...) {
		if c.tokens[u.Name] != "" {
			return fmt.Errorf("two users named %q", u.Name)
		}
		token := rand.Text()
		c.tokens[u.Name] = token
		if err := w.Write([]string{token, u.Name, u.Name, strings.Join(u.Groups, ",")}); err != nil {
			return err
		}
		if err := writeFile(c.Kubeconfig(u.Name), c.kubeconfig(token)); err != nil {
			return err
		}
	}
	w.Flush()
	c.client = c.Client(Admin)
	return os.WriteFile(filepath.Join(c.dir, "tokens.csv"), tokens.Bytes(), 0o600)
}

// Kubeconfig returns the path of the kubeconfig file of a user in Config.Users,
// or of Admin.
func (c *Cluster) Kubeconfig(user string) string {
	return filepath.Join(c.dir, url.PathEscape(user)+".kubeconfig")
}

// writeFile writes what is nobody else's to read.
func writeFile(path string, text []byte) error { return os.WriteFile(path, text, 0o600) }

func (c *Cluster) kubeconfig(token string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: %q
    certificate-authority: %q
users:
- name: test
  user:
    token: %q
contexts:
- name: test
  context:
    cluster: test
    user: test
current-context: test
`, c.URL, c.CAFile, token)
}

// Token returns a token of a service account, as a kubelet asks for it on behalf of
// a pod.
func (c *Cluster) Token(ctx context.Context, namespace, name string) (string, error) {
	var request struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Spec       map[string]any `json:"spec"`
		Status     struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	request.APIVersion, request.Kind = "authentication.k8s.io/v1", "TokenRequest"
	request.Spec = map[string]any{"expirationSeconds": int(time.Hour / time.Second)}
	path := "/api/v1/namespaces/" + namespace + "/serviceaccounts/" + name + "/token"
	if err := c.Do(ctx, http.MethodPost, path, &request, &request); err != nil {
		return "", err
	}
	return request.Status.Token, nil
}

// AccountKubeconfig writes a kubeconfig with a token of a service account, and
// returns its path.
func (c *Cluster) AccountKubeconfig(ctx context.Context, namespace, name string) (string, error) {
	token, err := c.Token(ctx, namespace, name)
	if err != nil {
		return "", err
	}
	path := c.Kubeconfig(ServiceAccount(namespace, name).Name)
	return path, writeFile(path, c.kubeconfig(token))
}
