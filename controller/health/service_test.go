// SPDX-License-Identifier: Apache-2.0

package health

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

var loopback = [model.Families]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}

func web(port uint16) *model.Service {
	return &model.Service{
		Name:                types.NamespacedName{Namespace: "default", Name: "web"},
		ClusterIPs:          [model.Families]netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00::1")},
		HealthCheckNodePort: port,
	}
}

// ask returns what a load balancer is told, "" if nobody listens.
func ask(t *testing.T, f model.Family, port uint16) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := client.Get(fmt.Sprintf("http://%s/any/path", netip.AddrPortFrom(loopback[f], port)))
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	var a answer
	if err != nil || json.Unmarshal(body, &a) != nil {
		t.Fatalf("%v: %q", err, body)
	}
	return fmt.Sprintf("%d %s/%s %d %t weight %s", r.StatusCode, a.Service.Namespace, a.Service.Name, a.LocalEndpoints, a.ServiceProxyHealthy,
		r.Header.Get("X-Load-Balancing-Endpoint-Weight"))
}

// TestServices: what load balancers are told (A1.13), while Services, endpoints,
// ports, addresses and health change.
func TestServices(t *testing.T) {
	var healthy atomic.Bool
	healthy.Store(true)
	s := New(slog.New(slog.DiscardHandler), healthy.Load, nil)
	defer s.Close()
	both := func(endpoints int, port uint16) {
		for f := range model.Family(model.Families) {
			s.Set(web(port), f, endpoints)
		}
	}
	addrs := func(all ...netip.Addr) {
		s.SetAddrs(model.IPv4, nil)
		s.SetAddrs(model.IPv6, nil)
		for _, a := range all {
			s.SetAddrs(model.FamilyOf(a), []netip.Addr{a})
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		want string // from port 31000, in both families
	}{
		{"no address yet", func() { both(2, 31000) }, ""},
		{"two endpoints", func() { addrs(loopback[:]...) }, "200 default/web 2 true weight 2"},
		{"none", func() { both(0, 31000) }, "503 default/web 0 true weight 0"},
		{"one", func() { both(1, 31000) }, "200 default/web 1 true weight 1"},
		{"the tables cannot be relied on", func() { healthy.Store(false) }, "503 default/web 1 false weight 1"},
		{"they can again", func() { healthy.Store(true) }, "200 default/web 1 true weight 1"},
		{"another port", func() { both(1, 31001) }, ""},
		{"back", func() { both(1, 31000) }, "200 default/web 1 true weight 1"},
		{"everywhere", func() { addrs(netip.IPv4Unspecified(), netip.IPv6Unspecified()) }, "200 default/web 1 true weight 1"},
		{"nowhere", func() { addrs() }, ""},
		{"somewhere", func() { addrs(loopback[:]...) }, "200 default/web 1 true weight 1"},
		{"no policy Local any more", func() { both(1, 0) }, ""},
		{"again", func() { both(3, 31000) }, "200 default/web 3 true weight 3"},
		{"gone", func() { s.Delete(web(0).Name) }, ""},
	} {
		step.do()
		for f := range model.Family(model.Families) {
			if got := ask(t, f, 31000); got != step.want {
				t.Errorf("%s: %v: told %q, want %q", step.name, f, got, step.want)
			}
		}
	}
}

// TestTaken: a port that somebody else has is told once, and listened at when it is
// free.
func TestTaken(t *testing.T) {
	other, err := net.Listen("tcp4", "127.0.0.1:31000")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var failed []string
	healthy := func() bool { return true }
	s := New(slog.New(slog.DiscardHandler), healthy, func(s *model.Service, at string, err error) {
		failed = append(failed, fmt.Sprint(s.Name, " ", at, " ", err))
	})
	s.again = 10 * time.Millisecond
	defer s.Close()
	s.SetAddrs(model.IPv4, loopback[:1])
	s.Set(web(31000), model.IPv4, 1)
	s.Set(web(31000), model.IPv4, 2)
	other.Close()
	err = netlab.Poll(5*time.Second, func() error {
		if got := ask(t, model.IPv4, 31000); got != "200 default/web 2 true weight 2" {
			return fmt.Errorf("told %q", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(failed) != 1 || !strings.Contains(failed[0], "default/web 127.0.0.1:31000") || !strings.Contains(failed[0], "in use") {
		t.Errorf("said %q", failed)
	}
}

// TestBackAtOnce: a Service that goes and comes back has its port again without a
// retry, also if nothing was served there in between.
func TestBackAtOnce(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler), func() bool { return true }, func(_ *model.Service, at string, err error) {
		t.Errorf("%s: %v", at, err)
	})
	defer s.Close()
	s.SetAddrs(model.IPv4, loopback[:1])
	for range 100 {
		s.Set(web(31000), model.IPv4, 1)
		s.Delete(web(0).Name)
	}
}
