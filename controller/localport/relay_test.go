// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/controller/model"
)

// TestLife: a node port comes, its endpoints change, go and come back, its number
// changes, its Service goes.
func TestLife(t *testing.T) {
	eachWay(t, func(t *testing.T, k key) {
		r, log := newRelay(t)
		web := svc("web", 0)
		a, b := endpoint(t, k, "a"), endpoint(t, k, "b")
		refused(t, k)
		r.Set(web, k.to(a))
		answered(t, k, "a")
		open := dial(t, k)
		open.answers(t, "a")

		r.Set(web, k.to(b))
		answered(t, k, "b")
		if k.protocol == model.TCP {
			open.answers(t, "a") // decided once
		} else {
			open.answers(t, "b") // its endpoint is gone
		}

		r.Set(web, k.to())
		refused(t, k)
		r.Set(web, k.to(a, b))
		if got := both(t, k); got != "ab" {
			t.Errorf("answered by %q, want by both", got)
		}

		next := k
		next.number++
		r.Set(web, next.to(a))
		refused(t, k)
		answered(t, next, "a")
		last := dial(t, next)
		last.answers(t, "a")
		r.Set(web, nil)
		refused(t, next)
		if k.protocol == model.TCP {
			open.answers(t, "a")
			last.answers(t, "a")
		}

		r.Delete(web.Name)
		r.Delete(web.Name)
		if k.protocol == model.TCP {
			open.broken(t)
			last.broken(t)
		}
		if n := log.Count("level=WARN"); n != 0 {
			t.Errorf("%d warnings:\n%s", n, log.String())
		}
		if n := len(r.services) + len(r.ports) + len(r.held); n != 0 {
			t.Errorf("%d things are remembered of nothing", n)
		}
	})
}

// both asks until it was answered by a and b, and returns who answered, sorted.
func both(t *testing.T, k key) string {
	t.Helper()
	var a, b string
	for range 100 {
		switch name, err := dial(t, k).ask(); {
		case err != nil:
			t.Fatal(err)
		case name == "a":
			a = name
		default:
			b = name
		}
		if a != "" && b != "" {
			break
		}
	}
	return a + b
}

// TestAffinity: connections follow the last one for as long as the affinity lasts,
// and while there is its endpoint.
func TestAffinity(t *testing.T) {
	eachWay(t, func(t *testing.T, k key) {
		r, _ := newRelay(t)
		a, b := endpoint(t, k, "a"), endpoint(t, k, "b")
		sticky := func(d time.Duration, endpoints ...netip.AddrPort) {
			ports := k.to(endpoints...)
			ports[0].Affinity = d
			r.Set(svc("web", 0), ports)
		}
		sticky(time.Hour, a, b)
		first, err := dial(t, k).ask()
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			answered(t, k, first)
		}
		other := map[string]netip.AddrPort{"a": b, "b": a}[first]
		sticky(time.Hour, other)
		second := map[string]string{"a": "b", "b": "a"}[first]
		answered(t, k, second)
		sticky(time.Hour, a, b)
		for range 10 {
			answered(t, k, second)
		}
		sticky(time.Nanosecond, a, b)
		if got := both(t, k); got != "ab" {
			t.Errorf("answered by %q, want by both", got)
		}
	})
}

// TestHeld: a port that somebody else listens on is one warning, and is served
// once it is free.
func TestHeld(t *testing.T) {
	eachWay(t, func(t *testing.T, k key) {
		r, log := newRelay(t)
		a := endpoint(t, k, "a")
		hold := func() (free func()) {
			if k.protocol == model.UDP {
				c, err := net.ListenUDP(k.network(), &net.UDPAddr{Port: int(k.number)})
				if err != nil {
					t.Fatal(err)
				}
				return func() { c.Close() }
			}
			l, err := net.Listen(k.network(), fmt.Sprint(":", k.number))
			if err != nil {
				t.Fatal(err)
			}
			return func() { l.Close() }
		}
		free := hold()
		for range 3 {
			r.Set(svc("web", 0), k.to(a))
		}
		if n := log.Count("level=WARN", "default/web", k.String(), "address already in use"); n != 1 {
			t.Errorf("%d warnings of the port, want one", n)
		}
		if r.retry == nil {
			t.Error("it will not be tried again")
		}
		free()
		r.retryHeld()
		answered(t, k, "a")
		if n := log.Count("level=INFO", "default/web", k.String()); n != 1 {
			t.Errorf("%d lines that it is served, want one", n)
		}
		r.Set(svc("web", 0), k.to()) // gone while it is held
		free = hold()
		r.Set(svc("web", 0), k.to(a))
		r.Delete(svc("web", 0).Name)
		free()
		r.retryHeld()
		refused(t, k)
	})
}

// TestSCTP is said once, and the rest is served.
func TestSCTP(t *testing.T) {
	r, log := newRelay(t)
	k, sctp := ways[0], ways[0]
	sctp.protocol = model.SCTP
	a := endpoint(t, k, "a")
	for range 3 {
		r.Set(svc("web", 0), append(sctp.to(a), k.to(a)...))
	}
	answered(t, k, "a")
	if n := log.Count("SCTP", "default/web", "127.0.0.1:30080/sctp"); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
}

// TestClose: everything ends, and soon.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	r, _ := newRelay(t)
	var ports []model.NodePort
	for _, k := range ways {
		ports = append(ports, k.to(endpoint(t, k, "a"))...)
	}
	// One connection is for an endpoint that nobody can reach.
	slow := key{model.IPv4, model.TCP, 30090}
	ports = append(ports, slow.to(netip.MustParseAddrPort("192.0.2.1:80"))...)
	r.Set(svc("web", 0), ports)
	servers := runtime.NumGoroutine()
	var clients []*client
	for _, k := range ways {
		c := dial(t, k)
		c.answers(t, "a")
		clients = append(clients, c)
	}
	if c, err := net.Dial("tcp4", "127.0.0.1:30090"); err == nil { // it may be reset already
		defer c.Close()
	}
	begin := time.Now()
	r.Close()
	if took := time.Since(begin); took > dialTimeout/2 {
		t.Errorf("closing took %v", took)
	}
	for i, k := range ways {
		if k.protocol == model.TCP {
			clients[i].broken(t)
		}
		refused(t, k)
	}
	r.Set(svc("late", 0), ways[0].to(netip.MustParseAddrPort("192.0.2.1:80")))
	refused(t, ways[0])
	eventually(t, func() error {
		if n := runtime.NumGoroutine(); n > servers-len(ports) {
			return fmt.Errorf("%d goroutines, %d before Close, %d before New", n, servers, before)
		}
		return nil
	})
}

// TestClaims: of several Services with a node port the oldest has it, whatever the
// order of events; listeners are those of ports with endpoints.
func TestClaims(t *testing.T) {
	r, _ := newRelay(t)
	type offer struct {
		service *model.Service
		ports   map[uint16]int // endpoints
	}
	services := []*model.Service{svc("d", 1), svc("c", 1), svc("b", 2), svc("a", 3)}
	have := make(map[string]offer)
	nowhere := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.2:80")}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		s := services[random.IntN(len(services))]
		if random.IntN(4) == 0 {
			delete(have, s.Name.Name)
			r.Delete(s.Name)
		} else {
			o := offer{s, make(map[uint16]int)}
			var ports []model.NodePort
			for number := uint16(30000); number < 30004; number++ {
				if random.IntN(2) == 0 {
					o.ports[number] = random.IntN(3)
					ports = append(ports, key{model.IPv4, model.Protocol([]uint8{6, 17}[number%2]), number}.to(nowhere[:o.ports[number]]...)...)
				}
			}
			have[s.Name.Name] = o
			r.Set(s, ports)
		}
		want, got := make(map[uint16]string), make(map[uint16]string)
		for _, name := range []string{"a", "b", "d", "c"} { // the last one wins
			for number, n := range have[name].ports {
				want[number] = fmt.Sprint(name, n, n > 0)
			}
		}
		for k, p := range r.ports {
			got[k.number] = fmt.Sprint(p.claims[0].name.Name, len(p.endpoints()), p.listener != nil)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("owner, endpoints, listener (-want +got):\n%s", diff)
		}
	}
}
