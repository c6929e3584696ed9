// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/faults/inject"
	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

const (
	year      = 365 * 24 * time.Hour
	idleFlows = 20
)

// TestClockJumps has the wall clock that kube-nft sees jump, far and back, while
// Services change, calls fail and are made again, and a flow goes through the relay of
// node ports on localhost. The machine's clock is not touched.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	s := newSite(t, moving(3).objects()...)
	s.startInjected(nil, "--localhost-nodeports")
	s.ready()
	tr := s.carry(steady, sticky)
	at := netip.MustParseAddrPort("127.0.0.1:30080")
	relayed := s.relay(at)
	o := outcome{fault: "clock jumps", before: s.vitals()}
	// Some flows have nothing more to say. They end after half a minute, whatever the
	// clock says by then. Each client is there still while the next one asks, so that no
	// two have the same port, and with it one flow.
	for range idleFlows {
		conn, err := s.node.Dial(t.Context(), "udp", at)
		s.Must(err)
		defer conn.Close()
		_, err = conn.Ask(t.Context())
		s.Must(err)
	}
	if v := s.vitals(); v.descriptors < o.before.descriptors+idleFlows {
		t.Errorf("%d descriptors, %d before %d flows", v.descriptors, o.before.descriptors, idleFlows)
	}
	for step, skew := range []time.Duration{time.Minute, -time.Minute, time.Hour, 10 * year, -10 * year, 0, -time.Hour} {
		s.injector.Skew(skew)
		s.objects.put(t, moving(step+1).objects()...)
		s.right(soon)
		s.Eventually(soon, func() error { return s.logged(skew) }) // it is written after the commit
		s.injector.Set(inject.Times(2, inject.Fail(unix.ENOBUFS), inject.Of(inject.Send, inject.Transaction)))
		began := time.Now()
		s.objects.put(t, moving(step).objects()...)
		s.right(soon)
		o.repair = max(o.repair, time.Since(began))
		if code, body, err := process.Get(s.node, "http://127.0.0.1:10256/healthz"); err != nil || code != http.StatusOK {
			t.Errorf("%v ahead: health is %d, %v: %s", skew, code, err, body)
		}
		o.injected++
	}
	s.must("flows that are idle", time.Minute, func() error {
		if v := s.vitals(); v.descriptors > o.before.descriptors+growth.descriptors {
			return fmt.Errorf("%d descriptors, %d before them", v.descriptors, o.before.descriptors)
		}
		return nil
	})
	if err := relayed(); err != nil {
		t.Errorf("a UDP flow through the relay on localhost: %v", err)
	}
	o.after = s.vitals()
	s.conclude(o, tr)
}

// logged returns an error unless the last line of kube-nft's log has a time that is so
// far ahead.
func (s *site) logged(skew time.Duration) error {
	lines := s.agent.Logged("")
	at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(lines[len(lines)-1]["time"]))
	if err == nil && (time.Until(at)-skew).Abs() > 20*time.Second {
		err = fmt.Errorf("the last line of the log is from %v, not %v ahead", at, skew)
	}
	return err
}

// relay asks over one UDP flow until what it returns is called, which returns an error
// if an answer did not come, or if the server saw another client than before: then the
// flow was given up.
func (s *site) relay(to netip.AddrPort) (stop func() error) {
	s.t.Helper()
	conn, err := s.node.Dial(s.t.Context(), "udp", to, netlab.Timeout(lost))
	s.Must(err)
	first, err := conn.Ask(s.t.Context())
	s.Must(err)
	ctx, cancel := context.WithCancel(s.t.Context())
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer conn.Close()
		for ctx.Err() == nil && failed == nil {
			a, err := conn.Ask(context.Background())
			if err == nil && (a.Source != first.Source || a.Server != first.Server) {
				err = fmt.Errorf("%s saw %v, and %s saw %v before", a.Server, a.Source, first.Server, first.Source)
			}
			failed = err
			time.Sleep(askEvery)
		}
	})
	return func() error {
		cancel()
		wg.Wait()
		return failed
	}
}

// TestTimesOfObjects has objects be from the future, from long ago, and from no time at
// all; the Service that was there first has an address that several claim.
func TestTimesOfObjects(t *testing.T) {
	s := newSite(t, moving(0).objects()...)
	s.start()
	s.ready()
	tr := s.carry(steady, sticky)
	o := outcome{fault: "objects of other times", before: s.vitals()}
	for step, when := range []string{
		time.Now().Add(10 * year).UTC().Format(time.RFC3339), time.Now().Add(-10 * year).UTC().Format(time.RFC3339),
		"9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
	} {
		one := moving(step + 1)
		objects := one.objects()
		at, _ := time.Parse(time.RFC3339, when) // or none
		objects[0].(*corev1.Service).CreationTimestamp = metav1.NewTime(at)
		for _, o := range objects[1:] {
			o.(*discoveryv1.EndpointSlice).Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: when}
		}
		rival := one
		rival.name = "rival"
		rival.nodePort = 0
		began := time.Now()
		s.objects.put(t, append(objects, rival.objects()...)...)
		s.right(soon)
		o.repair = max(o.repair, time.Since(began))
		o.injected++
	}
	if sum := s.metric("kubeproxy_network_programming_duration_seconds_sum"); sum < 0 {
		t.Errorf("programming took %v s in sum", sum)
	}
	o.after = s.vitals()
	s.conclude(o, tr)
}

// metric is the sum of a metric's values, over all labels.
func (s *site) metric(name string) (sum float64) {
	s.t.Helper()
	_, text, err := process.Get(s.node, "http://127.0.0.1:10249/metrics")
	s.Must(err)
	found := false
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name+" ") && !strings.HasPrefix(line, name+"{") {
			continue
		}
		f := strings.Fields(line)
		value, err := strconv.ParseFloat(f[len(f)-1], 64)
		s.Must(err)
		sum, found = sum+value, true
	}
	if !found {
		s.t.Fatalf("no metric %s", name)
	}
	return sum
}

// TestTimeNamespace starts kube-nft again and again in time namespaces in which the
// machine has been up for years, or hardly at all: what an earlier one has programmed
// is adopted as it is.
func TestTimeNamespace(t *testing.T) {
	s := newSite(t, moving(0).objects()...)
	s.start()
	s.ready()
	tr := s.carry(steady, sticky)
	o := outcome{fault: "up-times that jump", before: s.vitals()}
	var up unix.Timespec
	s.Must(unix.ClockGettime(unix.CLOCK_BOOTTIME, &up))
	for step, offset := range []int64{int64(10 * year / time.Second), 1 - up.Sec, int64(year / time.Second)} {
		s.agent.End(unix.SIGKILL)
		s.objects.put(t, moving(step).objects()...)
		began := time.Now()
		clocks := []string{"--time", "--monotonic", fmt.Sprint(max(offset, 1-up.Sec)), "--boottime", fmt.Sprint(offset), "--fork", "--kill-child", process.KubeNFT()}
		s.agent = process.Start(t, s.node, "unshare", append(clocks, s.arguments()...)...)
		s.ready()
		o.repair = max(o.repair, time.Since(began))
		o.injected++
	}
	s.agent.End(unix.SIGKILL)
	s.restart()
	o.after = s.vitals()
	s.conclude(o, tr)
}
