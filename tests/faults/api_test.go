// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/faults/wire"
)

// errBroken breaks a watch off.
var errBroken = errors.New("broken off")

// apiFault is what goes wrong between kube-nft and the API server.
type apiFault struct {
	name string
	// fault is in force while a Service changes.
	fault wire.Fault
	// cut breaks all watches when the fault begins, so that kube-nft asks again.
	cut bool
	// through says that the change comes through in spite of the fault, and not only
	// when it is over.
	through bool
	// least is how often the fault must be met, watches that are cut not included; zero
	// is once, if there is nothing to cut.
	least int
}

// answer is what a fault's Answer is.
type answer = func(w http.ResponseWriter, q wire.Question, recorded *wire.List) bool

// firstOf has a fault met n times, and then no more.
func firstOf(n int, fault answer) answer {
	var mu sync.Mutex
	return func(w http.ResponseWriter, q wire.Question, recorded *wire.List) bool {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || !fault(w, q, recorded) {
			return false
		}
		n--
		return true
	}
}

// refuses has every request refused.
func refuses(code int, retryAfter string) wire.Fault {
	return wire.Fault{Answer: func(w http.ResponseWriter, _ wire.Question, _ *wire.List) bool {
		wire.WriteStatus(w, code, retryAfter)
		return true
	}}
}

// expired answers a watch with 410, of which the client must list.
func expired(w http.ResponseWriter, q wire.Question, _ *wire.List) bool {
	if q.Watch {
		wire.WriteFrames(w, wire.Gone())
	}
	return q.Watch
}

// expiredOf is expired for one resource.
func expiredOf(resource string) answer {
	return func(w http.ResponseWriter, q wire.Question, l *wire.List) bool {
		return q.Resource == resource && expired(w, q, l)
	}
}

// halfLists has watches expire, and the first lists after that break off.
func halfLists() wire.Fault {
	var left atomic.Int64
	left.Store(3)
	return wire.Fault{
		Answer: firstOf(6, expired),
		List: func(_ wire.Question, l *wire.List) bool {
			if len(l.Items) < 40 || left.Add(-1) < 0 {
				return false
			}
			l.Cut = l.Size() / 2
			return true
		},
	}
}

// endless has watches expire, and lists after that break off when they are all but
// complete.
func endless() wire.Fault {
	return wire.Fault{
		Answer: expired,
		List: func(_ wire.Question, l *wire.List) bool {
			l.Cut = 1
			return true
		},
	}
}

// garbled replaces some frames on each watch, and breaks it off.
func garbled(with func(data []byte) []byte) wire.Fault {
	var mu sync.Mutex
	left := 4
	return wire.Fault{Frame: func(f wire.Frame, emit func([]byte) error) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		if left == 0 || f.Bookmark() {
			return false, emit(f.Data)
		}
		left--
		return true, errors.Join(emit(with(f.Data)), errBroken)
	}}
}

// late holds every frame back.
func late(d time.Duration) wire.Fault {
	return wire.Fault{Frame: func(f wire.Frame, emit func([]byte) error) (bool, error) {
		time.Sleep(d)
		return true, emit(f.Data)
	}}
}

// twice repeats each frame, and after each all that were there before it: what a client
// sees whose watch begins anew from too early on.
func twice() wire.Fault {
	var mu sync.Mutex
	seen := make(map[string][][]byte)
	return wire.Fault{Frame: func(f wire.Frame, emit func([]byte) error) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		if f.Bookmark() {
			return false, emit(f.Data)
		}
		seen[f.Resource] = append(seen[f.Resource], f.Data)
		err := emit(f.Data)
		for _, old := range seen[f.Resource] {
			err = errors.Join(err, emit(old))
		}
		return true, err
	}}
}

// swapped lets each frame wait for the next one on its watch, if that comes soon and
// is about another object, and puts that before it.
func swapped() wire.Fault {
	var mu sync.Mutex
	held := make(map[string]wire.Frame)
	return wire.Fault{Frame: func(f wire.Frame, emit func([]byte) error) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		before, ok := held[f.Resource]
		switch {
		case !ok:
			held[f.Resource] = f
			time.AfterFunc(300*time.Millisecond, func() {
				mu.Lock()
				defer mu.Unlock()
				if h, ok := held[f.Resource]; ok && bytes.Equal(h.Data, f.Data) {
					delete(held, f.Resource)
					_ = emit(f.Data) // the client may have gone
				}
			})
			return false, nil
		case before.Name() == f.Name():
			delete(held, f.Resource)
			return false, errors.Join(emit(before.Data), emit(f.Data))
		default:
			delete(held, f.Resource)
			return true, errors.Join(emit(f.Data), emit(before.Data))
		}
	}}
}

// behind has one resource come later than the others.
func behind(resource string) wire.Fault {
	return wire.Fault{Frame: func(f wire.Frame, emit func([]byte) error) (bool, error) {
		if f.Resource != resource {
			return false, emit(f.Data)
		}
		time.Sleep(time.Second)
		return true, emit(f.Data)
	}}
}

// hangs has watches say nothing more, and not end either until the server ends them.
func hangs() wire.Fault {
	return wire.Fault{
		WatchFor: 3 * time.Second,
		Frame:    func(wire.Frame, func([]byte) error) (bool, error) { return true, wire.ErrHangs },
	}
}

// older has watches expire, and the lists after that be those of the very beginning, by
// a server that is behind. Their watches end, and go on at the right one.
func older() wire.Fault {
	var mu sync.Mutex
	told := make(map[string]bool)
	return wire.Fault{Answer: func(w http.ResponseWriter, q wire.Question, recorded *wire.List) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case q.Resource != "services" && q.Resource != "endpointslices":
			return false
		case told[q.Resource]:
			return false
		case q.List && recorded != nil:
			recorded.Write(w)
			told[q.Resource] = true
			return true
		default:
			return expired(w, q, nil)
		}
	}}
}

// apiFaults are all of them, in an order in which the harmless ones come first.
func apiFaults() []apiFault {
	return []apiFault{
		{name: "answers 1 s late", fault: late(time.Second), through: true},
		{name: "events twice, with all before them", fault: twice(), through: true},
		{name: "events in another order", fault: swapped(), through: true},
		{name: "EndpointSlices behind Services", fault: behind("endpointslices"), through: true},
		{name: "Services behind EndpointSlices", fault: behind("services"), through: true},
		{name: "watches break off", fault: wire.Fault{}, cut: true, through: true},
		{name: "410 in the watch", fault: wire.Fault{Answer: firstOf(6, expired)}, cut: true, through: true, least: 1},
		{name: "410 as the answer", fault: wire.Fault{Answer: firstOf(6, func(w http.ResponseWriter, q wire.Question, _ *wire.List) bool {
			if q.Watch {
				wire.WriteStatus(w, http.StatusGone, "")
			}
			return q.Watch
		})}, cut: true, through: true, least: 1},
		{name: "half a list, then a cut", fault: halfLists(), cut: true, through: true, least: 2},
		{name: "all of a list but its last byte", fault: endless(), cut: true, least: 2},
		{name: "garbage in a watch", fault: garbled(func([]byte) []byte { return []byte("\x0a\xff\x13garbage") }), through: true},
		{name: "half an event", fault: garbled(func(data []byte) []byte { return data[:len(data)/2] }), through: true},
		{name: "429, Retry-After", fault: refuses(http.StatusTooManyRequests, "1"), cut: true, least: 2},
		{name: "500", fault: refuses(http.StatusInternalServerError, ""), cut: true, least: 2},
		{name: "503, Retry-After", fault: refuses(http.StatusServiceUnavailable, "1"), cut: true, least: 2},
		{name: "a token that has expired: 401", fault: refuses(http.StatusUnauthorized, ""), cut: true, least: 2},
		{name: "a certificate that has expired", fault: wire.Fault{Expired: true}, cut: true, least: 2},
		{name: "watches that hang", fault: hangs(), cut: true, least: 2},
		{name: "an older server after failover", fault: older(), cut: true, through: true, least: 2},
	}
}

// TestAPIServer makes what the API server says worse. Services that do not change are
// carried all the while, and when it is over the tables are right.
func TestAPIServer(t *testing.T) {
	t.Parallel()
	s := newAPISite(t)
	s.objects.put(t, append(steady.objects(), sticky.objects()...)...)
	s.objects.put(t, moving(0).objects()...)
	s.objects.put(t, crowd(60)...)
	s.start()
	s.ready()
	for step, f := range apiFaults() {
		// A Reflector lists again after a watch of less than a second, and would not meet
		// what is done to watches.
		s.must("everything is watched", soon, func() error {
			if !s.proxy.Watched(time.Second, "services", "endpointslices", "nodes") {
				return errors.New("not yet")
			}
			return nil
		})
		tr := s.carry(steady, sticky)
		o := outcome{fault: f.name, before: s.vitals()}
		met := s.proxy.Hits()
		s.proxy.Set(f.fault)
		if f.cut {
			o.injected = s.proxy.Cut()
		}
		began := time.Now()
		s.churn(step)
		more, changed := step+1, began
		s.must(f.name, soon, func() error {
			if n := s.proxy.Hits() - met; n < f.least || n+o.injected == 0 {
				// Who has listed after the change has nothing to meet until the next one.
				if time.Since(changed) > 3*time.Second {
					more, changed = more+1, time.Now()
					s.objects.put(t, moving(more).objects()...)
				}
				return fmt.Errorf("met %d times", n)
			}
			if !f.through {
				return nil
			}
			return s.compare(t.Context())
		})
		if !f.through {
			began = time.Now()
		}
		s.proxy.Set(wire.Fault{})
		s.right(soon)
		o.repair = time.Since(began)
		o.injected += s.proxy.Hits() - met
		o.after = s.vitals()
		s.conclude(o, tr)
	}
	s.emptyList()
}

// churn changes one Service, makes another one, and deletes the one of the step before.
func (s *site) churn(step int) {
	s.t.Helper()
	comes := spec{name: fmt.Sprint("comes-", step), n: 900 + step%8, v6: step%2 > 0, pods: []int{realPod(step % 3)}}
	s.objects.put(s.t, comes.objects()...)
	s.objects.put(s.t, moving(step+1).objects()...)
	if gone := fmt.Sprint("comes-", step-1); step > 0 {
		s.Must(s.objects.(*apiObjects).deleteOf(s.t.Context(), gone, (step-1)%2 > 0))
	}
}

// emptyList has lists answered as if there were nothing. A proxy must believe that, as
// kube-proxy does: a cluster may be empty, and nobody else tells. So Services go, and
// come back with the next list.
func (s *site) emptyList() {
	s.t.Helper()
	o := outcome{fault: "a list that is empty (believed)", before: s.vitals()}
	met := s.proxy.Hits()
	began := time.Now()
	s.proxy.Set(wire.Fault{Answer: firstOf(6, expired), List: func(q wire.Question, l *wire.List) bool {
		if q.Resource == "services" || q.Resource == "endpointslices" {
			l.Items = nil
		}
		return l.Items == nil
	}})
	s.proxy.Cut()
	s.must("an empty list is believed", soon, func() error {
		lines, err := s.inKernel(s.t.Context())
		for _, line := range lines {
			if strings.Contains(line, "KUBE-SERVICES") {
				return fmt.Errorf("Services are there still: %s", line)
			}
		}
		return err
	})
	s.t.Logf("an empty list was believed after %v", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	// A watch would go on after what it was told, as if that had been true.
	services, slices := firstOf(1, expiredOf("services")), firstOf(1, expiredOf("endpointslices"))
	s.proxy.Set(wire.Fault{Answer: func(w http.ResponseWriter, q wire.Question, l *wire.List) bool {
		return services(w, q, l) || slices(w, q, l)
	}})
	s.proxy.Cut()
	s.right(soon)
	o.repair, o.injected = time.Since(began), s.proxy.Hits()-met
	s.proxy.Set(wire.Fault{})
	o.after = s.vitals()
	s.conclude(o, nil)
}
