// SPDX-License-Identifier: Apache-2.0

package source

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDirServiceCIDR: an object that moves from one file to another, under another
// name, is set before it is deleted.
func TestDirServiceCIDR(t *testing.T) {
	t.Parallel()
	text := func(name string) string {
		return "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: " + name + "}\nspec: {cidrs: [10.96.0.0/16]}\n"
	}
	m := start(t, map[string]string{"cidr.yaml": text("old")}, nil)
	if d := cmp.Diff([]string{"set ServiceCIDR old", "synced"}, m.sink.take()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	m.write("cidr.yaml", text("new"))
	m.sink.await(t, "delete ServiceCIDR old")
	if d := cmp.Diff([]string{"set ServiceCIDR new", "delete ServiceCIDR old"}, m.sink.take()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	m.write("cidr.yaml", "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDRList\nitems: [{metadata: {name: listed}, spec: {cidrs: ['fd00:96::/112']}}]\n")
	m.sink.await(t, "set ServiceCIDR listed", "delete ServiceCIDR new")
	if lines := m.log.Lines("level=WARN"); len(lines) > 0 {
		t.Errorf("warned:\n%s", strings.Join(lines, "\n"))
	}
}

// withCIDRs is a server with one Service and this life of the ServiceCIDRs.
func withCIDRs(t *testing.T, life ...exchange) *apiServer {
	return newAPIServer(t, map[string][]exchange{
		"services":       {{kind: "list", frames: []string{serviceList("10", service("web", "5"))}}, {kind: "watch", hold: true}},
		"endpointslices": {{kind: "list", frames: []string{sliceList("10")}}, {kind: "watch", hold: true}},
		"servicecidrs":   life,
	})
}

func TestAPIServiceCIDRs(t *testing.T) {
	t.Parallel()
	server := withCIDRs(t,
		exchange{kind: "list", frames: []string{cidrList("10", cidr("kubernetes", "5", "10.96.0.0/16", "fd00:96::/112"), cidr("old", "6", "10.64.0.0/16"))}},
		exchange{kind: "watch", hold: true},
		exchange{kind: "list", frames: []string{cidrList("900", cidr("kubernetes", "5", "10.96.0.0/16"), cidr("later", "800", "10.65.0.0/16"))}},
		exchange{kind: "watch", hold: true})
	sink, log := runAPI(t, server.client(), "")
	sink.await(t, "synced", "set ServiceCIDR kubernetes", "set ServiceCIDR old")
	sink.mu.Lock()
	got := sink.cidrs["kubernetes"]
	sink.mu.Unlock()
	want := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16", "fd00:96::/112"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	server.push("servicecidrs", event("ADDED", cidr("new", "11", "10.66.0.0/16")))
	server.push("servicecidrs", event("DELETED", cidr("old", "12", "10.64.0.0/16")))
	sink.await(t, "set ServiceCIDR new", "delete ServiceCIDR old")
	server.push("servicecidrs", gone)
	sink.await(t, "set ServiceCIDR later", "delete ServiceCIDR new")
	if d := cmp.Diff([]string{"ServiceCIDR kubernetes", "ServiceCIDR later", "service default/web"}, sink.names()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if lines := log.Lines(); len(lines) > 0 {
		t.Errorf("logged:\n%s", strings.Join(lines, "\n"))
	}
}

// TestAPIServiceCIDRsRefused: everything else goes on without them, one line says
// what to do, and they come when the server gives them.
func TestAPIServiceCIDRsRefused(t *testing.T) {
	t.Parallel()
	const notFound = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","code":404}`
	for _, tt := range []struct {
		name, body string
		status     int
		mend       string
	}{
		{"not allowed", forbidden, http.StatusForbidden, "allow this user to list and watch servicecidrs.networking.k8s.io"},
		{"an older server", notFound, http.StatusNotFound, "from 1.33 on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			refusal := func(kind string) exchange {
				return exchange{kind: kind, status: tt.status, frames: []string{tt.body}}
			}
			var life []exchange
			for range 5 {
				life = append(life, refusal("stream"), refusal("list"))
			}
			life = append(life, exchange{kind: "list", frames: []string{cidrList("10", cidr("kubernetes", "5", "10.96.0.0/16"))}},
				exchange{kind: "watch", hold: true})
			server := withCIDRs(t, life...)
			sink, log := runAPI(t, server.client(), "")
			sink.await(t, "synced", "set service default/web", "set ServiceCIDR kubernetes")
			log.await(t, "lists ServiceCIDRs now")
			if warned := log.Lines("level=WARN"); len(warned) != 1 || !strings.Contains(warned[0], tt.mend) {
				t.Errorf("want one warning with %q:\n%s", tt.mend, strings.Join(warned, "\n"))
			}
			if lines := log.Lines("answers again"); len(lines) > 0 {
				t.Errorf("an answer was taken for an outage: %s", lines[0])
			}
		})
	}
}

// TestAPIServiceCIDRsLate: a server that keeps them to itself for long does not
// delay the rest.
func TestAPIServiceCIDRsLate(t *testing.T) {
	t.Parallel()
	server := withCIDRs(t, exchange{kind: "stream", hold: true})
	sink, _ := runAPI(t, server.client(), "")
	sink.await(t, "synced", "set service default/web")
	server.push("servicecidrs", event("ADDED", cidr("kubernetes", "5", "10.96.0.0/16")))
	server.push("servicecidrs", bookmark("ServiceCIDR", "networking.k8s.io/v1", "10", true))
	sink.await(t, "set ServiceCIDR kubernetes")
	if told := sink.take(); slices.Index(told, "synced") > slices.Index(told, "set ServiceCIDR kubernetes") {
		t.Errorf("order: %v", told)
	}
}
