// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bufio"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/cluster"
)

const eventsPath = "/apis/events.k8s.io/v1/namespaces/default/events"

// shared is an address that two Services want.
var shared = netip.MustParseAddr("203.0.113.80")

// TestConflict: who loses an address to another Service is told by one event, and
// the node's metrics show it for as long as it is so.
func TestConflict(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.serve()
	s.createNode(nodeAddrs...)
	agent := s.runAgent()
	agent.awaitProgrammed()
	s.createService("first", 1)
	s.createService("second", 2)
	s.setExternalIP("first")
	s.answers(s.client, "tcp", netip.AddrPortFrom(shared, 80), "pod-1")
	s.awaitConflicts(0)
	s.setExternalIP("second")
	event := s.awaitEvent("second", "FrontendConflict")
	const note = "203.0.113.80:80/tcp is served for Service default/first, as its external IP, and not for this Service"
	if event.Type != corev1.EventTypeWarning || !strings.HasPrefix(event.Note, note) ||
		event.ReportingController != "kube-nft" || event.ReportingInstance != nodeName {
		t.Errorf("event %+v", event)
	}
	s.awaitConflicts(2) // one for each protocol

	agent.end(syscall.SIGTERM)
	again := s.runAgent()
	again.awaitProgrammed()
	s.Eventually(soon, func() error {
		if s.count("events", func(r request) bool { return r.verb == "create" && r.code == http.StatusConflict }) == 0 {
			return fmt.Errorf("nothing was said after the restart")
		}
		return nil
	})
	if all := s.events("second"); len(all) != 1 || all[0].Series != nil {
		t.Errorf("a restart said it anew: %+v", all)
	}
	// What the same process says once more, as controller/event writes it.
	series := eventsv1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(time.Now())}
	s.Must(cluster.Do(t.Context(), s.api.Client(user.Name), http.MethodPatch, s.api.URL+eventsPath+"/"+event.Name,
		map[string]any{"series": series}, nil))

	s.deleteService("first")
	s.answers(s.client, "tcp", netip.AddrPortFrom(shared, 80), "pod-2")
	s.awaitConflicts(0)
	if all := s.events("first"); len(all) != 0 {
		t.Errorf("events of who has lost nothing: %+v", all)
	}
}

// TestOpenRanges: source ranges of one family are said to leave the other one open.
func TestOpenRanges(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.createNode(nodeAddrs...)
	s.runAgent().awaitProgrammed()
	web := newService("web")
	web.Spec.Type, web.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, []string{"198.51.100.0/24"}
	s.do(http.MethodPost, servicesPath, web, nil)
	ingress := []corev1.LoadBalancerIngress{{IP: shared.String()}, {IP: "2001:db8:113::80"}}
	s.do(http.MethodPatch, servicesPath+"/web/status",
		map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}}, nil)
	event := s.awaitEvent("web", "SourceRangesOpen")
	if want := "no IPv6 range"; !strings.Contains(event.Note, want) {
		t.Errorf("note %q, want %q", event.Note, want)
	}
}

// TestEventsForbidden has permissions that leave events out: all else works, and
// one line says what to do.
func TestEventsForbidden(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	s.allow("services", "endpointslices", "servicecidrs")
	s.serve()
	agent := s.runAgent()
	agent.awaitProgrammed()
	for i, name := range []string{"first", "second", "third"} {
		s.createService(name, 1+i%2)
		s.setExternalIP(name)
	}
	s.Eventually(soon, func() error {
		if s.count("events", func(r request) bool { return r.code == http.StatusForbidden }) < 2 {
			return fmt.Errorf("two events have not been refused")
		}
		return nil
	})
	s.answers(s.client, "tcp", netip.AddrPortFrom(shared, 80), "pod-1")
	lines := agent.logged("Kubernetes API takes no events")
	if len(lines) != 1 || lines[0]["mend"] != "allow this user to create and patch events.events.k8s.io" {
		t.Errorf("want one line with the mend: %v", lines)
	}
}

// setExternalIP gives a Service the address that others want too.
func (s *site) setExternalIP(service string) {
	s.t.Helper()
	s.do(http.MethodPatch, servicesPath+"/"+service,
		map[string]any{"spec": map[string]any{"externalIPs": []string{shared.String()}}}, nil)
}

// events are ours on Services that have, or had, the name. The API server has some to
// say, too, while it starts.
func (s *site) events(service string) []eventsv1.Event {
	s.t.Helper()
	var list eventsv1.EventList
	s.do(http.MethodGet, eventsPath, nil, &list)
	return slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool {
		return e.ReportingController != "kube-nft" || e.Regarding.Kind != "Service" || e.Regarding.Namespace != "default" || e.Regarding.Name != service
	})
}

// awaitEvent waits until a Service has an event, which must be the only one, and
// about the Service of this UID.
func (s *site) awaitEvent(service, reason string) eventsv1.Event {
	s.t.Helper()
	var about corev1.Service
	s.do(http.MethodGet, servicesPath+"/"+service, nil, &about)
	var all []eventsv1.Event
	s.Eventually(soon, func() error {
		if all = s.events(service); len(all) == 0 {
			return fmt.Errorf("no event on Service %s", service)
		}
		return nil
	})
	if e := all[0]; len(all) != 1 || e.Reason != reason || e.Regarding.UID != about.UID {
		s.t.Fatalf("want one %s on the Service with UID %s: %+v", reason, about.UID, all)
	}
	return all[0]
}

// awaitConflicts waits until the node's metrics tell of as many.
func (s *site) awaitConflicts(want float64) {
	s.t.Helper()
	s.Eventually(soon, func() error {
		if n := s.metric(`kube_nft_frontend_conflicts{ip_family="IPv4"}`); n != want {
			return fmt.Errorf("metrics tell of %v conflicts, want %v", n, want)
		}
		return nil
	})
}

// metric scrapes one series on the node, where alone it is to be had.
func (s *site) metric(series string) float64 {
	s.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: s.node.DialContext, DisableKeepAlives: true}}
	response, err := client.Get("http://127.0.0.1:10249/metrics")
	s.Must(err)
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			s.Must(err)
			return v
		}
	}
	s.t.Fatalf("no %s among the metrics", series)
	return 0
}
