// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// fake is a Dataplane whose calls fail as told; what it holds is kept as the
// kernel would. It stands in for errors and order only.
type fake struct {
	mu    sync.Mutex
	table nft.Contents
	made  bool
	fail  []error // of the next calls, one each
	calls []string
	drift chan nft.Foreign
}

func newFake() *fake { return &fake{drift: make(chan nft.Foreign, 1)} }

func (f *fake) call(name string) error {
	f.calls = append(f.calls, name)
	if len(f.fail) == 0 {
		return nil
	}
	err := f.fail[0]
	f.fail = f.fail[1:]
	return err
}

func (f *fake) Read(context.Context, *nft.Schema) (nft.Contents, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("read"); err != nil {
		return nft.Contents{}, err
	}
	if !f.made {
		return nft.Contents{}, nft.ErrMissing
	}
	var c nft.Contents
	for _, e := range f.table.Sorted() {
		c.Put(e)
	}
	c.Sizes = nft.SizesFor(c.Counts())
	return c, nil
}

func (f *fake) Apply(_ context.Context, changes ...nft.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("apply"); err != nil {
		return err
	}
	for _, e := range changes[0].Delta.Delete {
		delete(f.table.Elements[e.Set], e.Key)
	}
	for _, e := range changes[0].Delta.Add {
		f.table.Put(e)
	}
	return nil
}

func (f *fake) Reset(_ context.Context, t nft.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("reset"); err != nil {
		return err
	}
	f.made, f.table = true, nft.Contents{}
	for e := range t.Elements {
		f.table.Put(e)
	}
	return nil
}

func (f *fake) Look(_ context.Context, _ *nft.Schema, keys []nft.Element, _ []nft.Set) (nft.Contents, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var c nft.Contents
	if err := f.call("look"); err != nil {
		return c, err
	}
	for _, e := range keys {
		if v, ok := f.table.Elements[e.Set][e.Key]; ok {
			e.Value = v
			c.Put(e)
		}
	}
	return c, nil
}

func (f *fake) Inspect(ctx context.Context, s *nft.Schema) (nft.Contents, nft.Counts, error) {
	c, err := f.Read(ctx, s)
	return c, c.Counts(), err
}

func (f *fake) Others(context.Context) (uint32, error) { return 0, nil }

func (f *fake) Watch(ctx context.Context, listening func(), changed func(nft.Foreign)) error {
	listening()
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-f.drift:
			changed(d)
		}
	}
}

// started runs a controller over a fake; send delivers what a source says.
func started(t *testing.T, f *fake) (c *Controller, log *netlab.Output, stop func() error) {
	t.Helper()
	log = &netlab.Output{}
	config := testConfig()
	delete(config.Options, nft.IPv6)
	config.Logger = slog.New(slog.NewTextHandler(log, nil))
	c = New(config, f)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, silent{}) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { stop() })
	return c, log, stop
}

// silent is a source that says nothing by itself.
type silent struct{}

func (silent) Run(ctx context.Context, _ source.Sink) error { <-ctx.Done(); return nil }

func (f *fake) facts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return facts(f.table)
}

func (f *fake) has(text string) error {
	for _, line := range f.facts() {
		if strings.Contains(line, text) {
			return nil
		}
	}
	return errors.New("the table lacks " + text)
}

var oneService = &source.Synthetic{Services: 3, Endpoints: 2}

func deliver(sink source.Sink, i int) {
	sink.SetService(oneService.Service(i))
	for _, s := range oneService.Slices(i) {
		sink.SetSlice(s)
	}
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	if err := netlab.Poll(5*time.Second, f); err != nil {
		t.Fatal(err)
	}
}

// TestNothingBeforeSynced: what is known so far is not written (A2.11).
func TestNothingBeforeSynced(t *testing.T) {
	f := newFake()
	c, _, stop := started(t, f)
	deliver(c.queue, 0)
	deliver(c.queue, 1)
	eventually(t, func() error {
		c.queue.mu.Lock()
		defer c.queue.mu.Unlock()
		if len(c.queue.pending.services) > 0 {
			return errors.New("the loop has not looked yet")
		}
		return nil
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(f.calls) != 0 {
		t.Errorf("the kernel was called: %v", f.calls)
	}
}

// TestFailedCommit: state advances only with the kernel. What failed is found
// again by comparing, and nothing that was programmed is lost meanwhile.
func TestFailedCommit(t *testing.T) {
	f := newFake()
	c, log, stop := started(t, f)
	deliver(c.queue, 0)
	c.queue.Synced()
	eventually(t, func() error { return f.has("default/kubernetes") })
	f.mu.Lock()
	f.fail = []error{errors.New("no buffer space"), errors.New("still none"), nil}
	f.mu.Unlock()
	deliver(c.queue, 1)
	eventually(t, func() error { return f.has("kube-system/kube-dns") })
	if err := f.has("default/kubernetes"); err != nil {
		t.Error(err)
	}
	c.queue.DeleteService(oneService.ServiceName(1))
	eventually(t, func() error {
		if f.has("kube-dns") == nil {
			return errors.New("kube-dns is still there")
		}
		return nil
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "no buffer space"); n != 1 {
		t.Errorf("the error was logged %d times:\n%s", n, log)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c.metrics.failed)
	if n := values(t, registry)["kube_nft_commits_total error"]; n != 2 {
		t.Errorf("%v errors counted, want 2", n)
	}
}

// TestBackoff: a kernel that goes on failing is not asked more often because the
// cluster is busy.
func TestBackoff(t *testing.T) {
	f := newFake()
	c, _, stop := started(t, f)
	f.mu.Lock()
	for range 1000 {
		f.fail = append(f.fail, errors.New("not now"))
	}
	f.mu.Unlock()
	begin := time.Now() // before the loop may be the first to go on
	c.queue.Synced()
	eventually(t, func() error {
		deliver(c.queue, 0)
		if f.asked() < 3 {
			return errors.New("no second retry")
		}
		return nil
	})
	n := f.asked()
	took := time.Since(begin)
	if err := stop(); err != nil {
		t.Error(err)
	}
	// At once, and 50, 100, 200… ms after one another.
	most := 1
	for wait := firstRetry; took >= wait; wait *= 2 {
		took -= wait
		most++
	}
	if n > most {
		t.Errorf("the kernel was asked %d times where %d would do: %v", n, most, f.calls[:min(n, 20)])
	}
}

// asked is how often anything was asked of the kernel.
func (f *fake) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// TestDrift: what others change is put right, and said.
func TestDrift(t *testing.T) {
	f := newFake()
	c, log, stop := started(t, f)
	deliver(c.queue, 0)
	c.queue.Synced()
	eventually(t, func() error { return f.has("KUBE-CLUSTER-IP") }) // which come last
	want := f.facts()
	f.mu.Lock()
	f.table.Elements[nft.Services] = nil
	f.table.Put(nft.Element{Set: nft.NodeIPs, Key: nft.Key{Addr: netip.MustParseAddr("192.0.2.66")}})
	f.mu.Unlock()
	f.drift <- nft.Foreign{Touched: []nft.Touched{{Family: nft.IPv4, Constant: "set KUBE-SERVICES"}}}
	eventually(t, func() error {
		if !slices.Equal(want, f.facts()) {
			return errors.New("not repaired")
		}
		return nil
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "changed by somebody else") {
		t.Errorf("nothing was said:\n%s", log)
	}
}

// TestForeignTable: a table that is not ours ends the process, untouched.
func TestForeignTable(t *testing.T) {
	f := newFake()
	f.fail = []error{nft.ErrForeign}
	config := testConfig()
	delete(config.Options, nft.IPv6)
	c := New(config, f)
	c.queue.Synced()
	if err := c.Run(context.Background(), silent{}); !errors.Is(err, nft.ErrForeign) {
		t.Errorf("Run: %v", err)
	}
	if !slices.Equal(f.calls, []string{"read"}) {
		t.Errorf("calls: %v", f.calls)
	}
}

// TestColdOrder: what a cluster waits for comes first, refusals last (F8).
func TestColdOrder(t *testing.T) {
	f := newFake()
	var seen []nft.Element
	config := testConfig()
	delete(config.Options, nft.IPv6)
	c := New(config, &spy{fake: f, seen: &seen})
	load := &source.Synthetic{Services: 3000, Endpoints: 10}
	for i := range load.Services {
		c.queue.SetService(load.Service(i))
		if i != 5 {
			for _, s := range load.Slices(i) {
				c.queue.SetSlice(s)
			}
		}
	}
	c.queue.Synced()
	if err := c.pass(context.Background()); err != nil {
		t.Fatal(err)
	}
	first := map[nft.Set]int{}
	for i, e := range seen {
		if _, ok := first[e.Set]; !ok {
			first[e.Set] = i
		}
		urgent := e.Value.Comment == "" || strings.HasPrefix(e.Value.Comment, "default/kubernetes") || strings.HasPrefix(e.Value.Comment, "kube-system/kube-dns")
		if i < 40 && !urgent {
			t.Errorf("element %d is %v", i, e)
		}
	}
	if refusals := len(seen) - load.Services - 1; first[nft.ClusterIPs] < refusals || first[nft.NoEndpoints] < refusals {
		t.Errorf("refusals are at %d and %d of %d", first[nft.NoEndpoints], first[nft.ClusterIPs], len(seen))
	}
}

type spy struct {
	*fake
	seen *[]nft.Element
}

func (s *spy) Apply(ctx context.Context, changes ...nft.Change) error {
	for _, c := range changes {
		*s.seen = append(*s.seen, c.Delta.Add...)
	}
	return s.fake.Apply(ctx, changes...)
}

// TestColdCrowd: a Service that is too much for one transaction comes in several, what
// leads to it in the last one.
func TestColdCrowd(t *testing.T) {
	bounds := &bounds{fake: newFake()}
	config := testConfig()
	delete(config.Options, nft.IPv6)
	c := New(config, bounds)
	load := &source.Synthetic{Services: 3, Endpoints: 3*maxBatch + 7}
	for i := range load.Services {
		c.queue.SetService(load.Service(i))
		for _, s := range load.Slices(i) {
			c.queue.SetSlice(s)
		}
	}
	c.queue.Synced()
	if err := c.pass(context.Background()); err != nil {
		t.Fatal(err)
	}
	if bounds.most > 2*maxBatch || len(bounds.early) > 0 {
		t.Errorf("up to %d changes in one transaction; led to too early: %v", bounds.most, bounds.early)
	}
	if want := 4 * (3*maxBatch + 7); bounds.slots != want { // kube-dns has two ports
		t.Errorf("%d endpoints, want %d", bounds.slots, want)
	}
}

// bounds watches the size of transactions, and frontends that lead to endpoints which
// are not there.
type bounds struct {
	*fake
	most, slots int
	early       []nft.Element
}

func (b *bounds) Apply(ctx context.Context, changes ...nft.Change) error {
	err := b.fake.Apply(ctx, changes...)
	for _, c := range changes {
		b.most = max(b.most, c.Delta.Size())
		for _, e := range c.Delta.Add {
			switch e.Set {
			case nft.Endpoints:
				b.slots++
			case nft.Services:
				last := e.Key
				last.Slot = 3*maxBatch + 6
				if _, ok := b.fake.table.Elements[nft.Endpoints][last]; !ok {
					b.early = append(b.early, e)
				}
			}
		}
	}
	return err
}
