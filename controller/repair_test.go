// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// running runs a controller on a namespace until the test ends or stop is called, and
// returns when it listens to what others do.
func running(t *testing.T, ns *netlab.Namespace, config Config, src source.Source) (c *Controller, stop func()) {
	t.Helper()
	programmed := make(chan struct{})
	first := sync.OnceFunc(func() { close(programmed) })
	config.Committed = func(Commit) { first() }
	listening := &listening{Dataplane: openKernel(t, ns), told: make(chan struct{})}
	c = New(config, listening)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, src) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	for _, ready := range []chan struct{}{programmed, listening.told} {
		select {
		case <-ready:
		case <-time.After(20 * time.Second):
			t.Fatal("not programmed")
		}
	}
	return c, stop
}

// listening is the kernel, and tells when it listens for the first time.
type listening struct {
	Dataplane
	once sync.Once
	told chan struct{}
}

func (l *listening) Watch(ctx context.Context, begun func(), changed func(nft.Foreign)) error {
	return l.Dataplane.Watch(ctx, func() { begun(); l.once.Do(func() { close(l.told) }) }, changed)
}

// TestRepairKinds: what others do is put right, with no more than it needs, at once, and
// it is known who it was.
func TestRepairKinds(t *testing.T) {
	t.Parallel()
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	load := &source.Synthetic{Services: 20, Endpoints: 3, DualStack: true, NodePorts: 0.2}
	c, _ := running(t, ns, testConfig(), load)
	// A counter tells whether an element stayed; to set it is no harm to repair.
	counted := `10.64.0.2 . tcp . 80 counter packets 7 bytes 700 comment "default/web-2:http" : goto KUBE-SVC-3`
	rules, err := ns.Ruleset()
	lab.Must(err)
	for line := range strings.Lines(rules) {
		if before, after, ok := strings.Cut(strings.TrimSpace(line), " counter packets 0 bytes 0 "); ok && strings.Contains(line, "goto KUBE-SVC-3") && strings.Contains(line, ". tcp .") {
			before, after = strings.TrimPrefix(before, "elements = { "), strings.TrimRight(after, ", }")
			counted = before + " counter packets 7 bytes 700 " + after
			key := before
			lab.Must(ns.NFT("delete element ip kube-nft KUBE-SERVICES { " + key + " }\nadd element ip kube-nft KUBE-SERVICES { " + counted + " }"))
			break
		}
	}
	want, err := ns.Ruleset()
	lab.Must(err)
	if !strings.Contains(want, counted) {
		t.Fatalf("no element %s in\n%s", counted, want)
	}
	lab.Must(netlab.Poll(5*time.Second, func() error { return c.idle() }))
	if last := c.Repairs().Last; len(last) > 0 {
		t.Errorf("a counter was repaired: %+v", last)
	}
	for _, tc := range []struct {
		script  string
		kinds   string // of each family
		counter bool   // stays
		n       int
	}{
		{"delete element ip kube-nft KUBE-CLUSTER-IP { 10.64.0.1 }", "ip elements", true, 1},
		{"add element ip kube-nft KUBE-NODE-IP { 192.0.2.66 }", "ip elements", true, 1},
		{"add element ip kube-nft KUBE-SERVICES { 192.0.2.66 . tcp . 80 : goto KUBE-SVC-3, 192.0.2.66 . udp . 80 : drop }", "ip elements", true, 2},
		{"flush map ip kube-nft KUBE-SEP", "ip elements", true, -1},
		{"flush set ip6 kube-nft KUBE-CLUSTER-IP", "ip6 elements", true, 20},
		{"delete element ip kube-nft KUBE-CLUSTER-IP { 10.64.0.1 }\nadd element ip6 kube-nft KUBE-NODE-IP { 2001:db8::66 }", "ip elements, ip6 elements", true, 1},
		{"add element ip kube-nft KUBE-LOOP-BACK { 192.0.2.1 . 192.0.2.2 }", "ip rules", false, -1},
		{"flush chain ip kube-nft PREROUTING", "ip rules", false, -1},
		{"insert rule ip6 kube-nft OUTPUT drop", "ip6 rules", false, -1},
		{"delete table ip kube-nft", "ip table", false, -1},
		{"flush ruleset", "ip table, ip6 table", false, -1},
	} {
		lab.Must(netlab.Poll(2*lastWait, func() error { return c.calm() }))
		begin := time.Now()
		lab.Must(ns.NFT(tc.script))
		lab.Must(netlab.Poll(2*lastWait, func() error {
			rules, err := ns.Ruleset()
			if err == nil && !sameTables(uncounted(rules), uncounted(want)) {
				err = fmt.Errorf("not repaired after %s:\n%s", tc.script, cmp.Diff(sorted(uncounted(want)), sorted(uncounted(rules))))
			}
			// What was put right is told of afterwards.
			if told := c.Repairs().since(begin); len(told) < 1+strings.Count(tc.kinds, ",") {
				err = errors.Join(err, fmt.Errorf("after %s this is told: %+v", tc.script, told))
			}
			return errors.Join(err, c.idle())
		}))
		rules, err := ns.Ruleset()
		lab.Must(err)
		if tc.counter != strings.Contains(rules, counted) {
			t.Errorf("%s: counter stays: %t, want %t", tc.script, !tc.counter, tc.counter)
			continue
		}
		var kinds []string
		n := 0
		for _, r := range c.Repairs().since(begin) {
			n = r.Elements
			kinds = append(kinds, fmt.Sprint(r.Family, " ", r.Kind))
			if r.By.Name != "nft" || r.By.PID == 0 || r.Missed || r.What == "" || r.Took <= 0 {
				t.Errorf("%s: %+v", tc.script, r)
			}
		}
		slices.Sort(kinds)
		if got := strings.Join(kinds, ", "); got != tc.kinds || tc.n >= 0 && n != tc.n {
			t.Errorf("%s: repaired by %q with %d elements, want %q with %d", tc.script, got, n, tc.kinds, tc.n)
		}
		want = rules
	}
	if n := c.Repairs().Commits["nft"]; n != 12 {
		t.Errorf("%d transactions of nft", n)
	}
}

// failing is the kernel, which refuses once what it is asked to look at, or to write.
type failing struct {
	Dataplane
	look, apply error
}

func (f *failing) Look(ctx context.Context, s *nft.Schema, keys []nft.Element, sets []nft.Set) (nft.Contents, error) {
	if err := f.look; err != nil {
		f.look = nil
		return nft.Contents{}, err
	}
	return f.Dataplane.Look(ctx, s, keys, sets)
}

func (f *failing) Apply(ctx context.Context, changes ...nft.Change) error {
	if err := f.apply; err != nil {
		f.apply = nil
		return err
	}
	return f.Dataplane.Apply(ctx, changes...)
}

// TestRepairFails: what a repair that fails leaves to the retry is told of all the same.
func TestRepairFails(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	f, ctx := &failing{Dataplane: openKernel(t, ns)}, context.Background()
	c := New(testConfig(), f)
	c.queue.SetService((&source.Synthetic{Services: 1}).Service(0))
	c.queue.Synced()
	c.mustPass(t)
	address := nft.Element{Set: nft.ClusterIPs, Key: nft.Key{Addr: netip.MustParseAddr("10.64.0.1")}}
	foreign := nft.Foreign{By: nft.Process{PID: 7, Name: "vandal"}, Touched: []nft.Touched{{Family: nft.IPv4, Elements: []nft.Element{address}}}}
	told := func() error {
		c.rumours.hear(foreign)
		c.heed(ctx)
		c.heal.mendAt = time.Now() // however long it should wait
		return c.pass(ctx)
	}
	missed := func() (err error) {
		c.heal.check.doubt(time.Now())
		for again := true; again && err == nil; again = c.heal.check.running {
			err = c.lookStep(ctx)
		}
		return err
	}
	for i, tc := range []struct {
		name   string
		fails  func(error)
		repair func() error
		want   Repair
	}{
		{"told, looking", func(err error) { f.look = err }, told, Repair{By: foreign.By}},
		{"told, writing", func(err error) { f.apply = err }, told, Repair{By: foreign.By}},
		{"missed, writing", func(err error) { f.apply = err }, missed, Repair{Missed: true}},
	} {
		lab.Must(ns.NFT("delete element ip kube-nft KUBE-CLUSTER-IP { 10.64.0.1 }"))
		fails := errors.New("no memory")
		tc.fails(fails)
		if err := tc.repair(); !errors.Is(err, fails) {
			t.Errorf("%s: %v", tc.name, err)
		}
		c.mustPass(t)
		last := c.Repairs().Last
		if len(last) != i+1 {
			t.Fatalf("%s: of %d repairs %d are told", tc.name, i+1, len(last))
		}
		if r := last[0]; r.Kind != RepairElements || r.Elements != 1 || r.By != tc.want.By || r.Missed != tc.want.Missed {
			t.Errorf("%s: %+v", tc.name, r)
		}
		check(t, c, f.Dataplane.(*kernel.Conn))
	}
}

// TestFightNames: who is said to go on is the one who does, though nothing is wrong after
// him, and not the one who was put right last.
func TestFightNames(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	log, config, warned := &netlab.Output{}, testConfig(), []string(nil)
	config.Logger = slog.New(slog.NewTextHandler(log, nil))
	config.NodeWarn = func(reason, note string) { warned = append(warned, reason+" "+note) }
	c := New(config, openKernel(t, ns))
	c.queue.SetService((&source.Synthetic{Services: 1}).Service(0))
	c.queue.Synced()
	c.mustPass(t)
	address := nft.Element{Set: nft.ClusterIPs, Key: nft.Key{Addr: netip.MustParseAddr("10.64.0.1")}}
	heard := func(by string) {
		t.Helper()
		c.rumours.hear(nft.Foreign{By: nft.Process{PID: 7, Name: by}, Touched: []nft.Touched{{Family: nft.IPv4, Elements: []nft.Element{address}}}})
		c.heed(context.Background())
		c.heal.mendAt = time.Now() // however long it should wait
		c.mustPass(t)
	}
	lab.Must(ns.NFT("delete element ip kube-nft KUBE-CLUSTER-IP { 10.64.0.1 }"))
	heard("once")
	if last := c.Repairs().Last; len(last) != 1 || last[0].By.Name != "once" {
		t.Errorf("%+v", last)
	}
	c.heal.fight.began = time.Now().Add(-goesOnSince)
	for range goesOn {
		heard("harmless")
	}
	if len(c.Repairs().Last) != 1 || len(warned) != 1 || !strings.HasPrefix(warned[0], ReasonTableContested+" harmless (pid 7)") {
		t.Errorf("said of the node: %q\n%s", warned, log)
	}
	if n := log.Count(`process="harmless (pid 7)" repairs=6`); n != 1 {
		t.Errorf("said %d times:\n%s", n, log)
	}
}

// since returns the repairs from a time on, the last one first.
func (r Repairs) since(begin time.Time) []Repair {
	if i := slices.IndexFunc(r.Last, func(r Repair) bool { return r.At.Before(begin) }); i >= 0 {
		return r.Last[:i]
	}
	return r.Last
}

var counters = regexp.MustCompile("counter packets [0-9]+ bytes [0-9]+")

// uncounted is a listing without the numbers of counters.
func uncounted(rules string) string {
	return counters.ReplaceAllString(rules, "counter")
}

// idle reports what is still to be repaired, as far as that can be told from outside.
func (c *Controller) idle() error {
	c.rumours.mu.Lock()
	defer c.rumours.mu.Unlock()
	if len(c.rumours.of.tables) > 0 {
		return errors.New("not all is heard that was told")
	}
	return nil
}

// calm reports whether a repair would be made at once.
func (c *Controller) calm() error {
	c.repairs.mu.Lock()
	defer c.repairs.mu.Unlock()
	if f := c.repairs.fight; f.count > 0 && time.Since(f.ended) < max(calm, 2*f.delay, restful*f.took)+10*time.Millisecond {
		return errors.New("a repair was just made")
	}
	return nil
}

// vandal changes tables at random, by nft and by netlink.
type vandal struct {
	ns     *netlab.Namespace
	conn   *kernel.Conn
	rnd    *rand.Rand
	schema [2]*nft.Schema
	done   map[string]int
}

// act does something that is not ours to like. What cannot be done now, because we have
// just written something else, is left.
func (v *vandal) act() {
	ctx := context.Background()
	family := v.rnd.IntN(2)
	f := nft.Families[family]
	have, err := v.conn.Read(ctx, v.schema[family])
	s := v.schema[family].With(have.Features)
	all := have.Sorted()
	kind := v.rnd.IntN(20)
	if err != nil || len(all) == 0 {
		return
	}
	apply := func(d nft.Delta) error { return v.conn.Apply(ctx, nft.Change{Schema: s, Delta: d}) }
	some := func() (some []nft.Element) {
		for range 1 + v.rnd.IntN(5) {
			if e := all[v.rnd.IntN(len(all))]; !slices.Contains(some, e) {
				some = append(some, e)
			}
		}
		return some
	}
	what := ""
	switch {
	case kind < 6:
		what, err = "delete elements", apply(nft.Delta{Delete: some()})
	case kind < 9:
		what, err = "add elements", apply(nft.Delta{Add: v.foreign(f, some())})
	case kind < 13:
		what = "change elements"
		was := some()
		is := slices.Clone(was)
		for i := range is {
			if is[i].Set.HoldsEndpoints() {
				is[i].Value.To = netip.AddrPortFrom(is[i].Value.To.Addr().Next(), 1)
			} else {
				is[i].Value.Comment = "vandal"
			}
		}
		err = apply(nft.Delta{Delete: was, Add: is})
	case kind < 14:
		set := all[v.rnd.IntN(len(all))].Set
		word := "set"
		if set.Map() {
			word = "map"
		}
		what, err = "flush set", v.ns.NFT(fmt.Sprintf("flush %s %s kube-nft %s", word, f, set))
	case kind < 15:
		what, err = "flush chain", v.ns.NFT(fmt.Sprintf("flush chain %s kube-nft PREROUTING", f))
	case kind < 16:
		what, err = "insert rule", v.ns.NFT(fmt.Sprintf("insert rule %s kube-nft %s drop", f, []string{"OUTPUT", "KUBE-MARK-MASQ", "KUBE-SVC-1"}[v.rnd.IntN(3)]))
	case kind < 17:
		what, err = "add chain", v.ns.NFT(fmt.Sprintf("add chain %s kube-nft VANDAL\nadd rule %s kube-nft VANDAL drop\nadd rule %s kube-nft PREROUTING jump VANDAL", f, f, f))
	case kind < 18:
		what, err = "add set", v.ns.NFT(fmt.Sprintf("add set %s kube-nft vandal { type ipv4_addr; }\nadd element %s kube-nft vandal { 192.0.2.1 }", f, f))
	case kind < 19:
		what, err = "delete table", v.ns.NFT(fmt.Sprintf("delete table %s kube-nft", f))
	default:
		what, err = "flush ruleset", v.ns.NFT("flush ruleset")
	}
	if err == nil {
		v.done[what]++
	}
}

// foreign are elements like some that nobody wants.
func (v *vandal) foreign(f nft.Family, like []nft.Element) []nft.Element {
	for i := range like {
		e := &like[i]
		e.Value.Comment = ""
		e.Key.Slot += 1000
		e.Key.Port += 7
		if e.Key.Addr.IsValid() && e.Key.Port == 7 {
			e.Key.Port, e.Key.Slot = 0, 0
			e.Key.Addr = netip.MustParseAddr(map[nft.Family]string{nft.IPv4: "192.0.2.1", nft.IPv6: "2001:db8::bad"}[f])
		}
	}
	return like
}

// TestVandals: whatever others do to the tables while Services change, in the end the
// kernel holds what compiling from nothing gives.
func TestVandals(t *testing.T) {
	t.Parallel()
	steps := 600
	if testing.Short() {
		steps = 100
	}
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			lab := netlab.NewT(t)
			ns := lab.Namespace("node")
			config := testConfig()
			log := &netlab.Output{}
			config.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			src := feeding{sink: make(chan source.Sink, 1)}
			c, stop := running(t, ns, config, src)
			sink := <-src.sink
			mirror := New(testConfig(), Discard{}) // what the cluster is
			mirror.queue.Synced()
			v := &vandal{ns: ns, conn: openKernel(t, ns), rnd: rand.New(rand.NewPCG(seed, 7)), done: make(map[string]int)}
			for i, table := range c.tables {
				v.schema[i] = nft.NewSchema(table.schema.Family, testConfig().Options[table.schema.Family])
			}
			// Where repairs take long there may be no table to change meanwhile: he goes
			// on until he has done enough, also after the last Service has changed.
			const enough = 5
			begin, stopped := time.Now(), make(chan struct{})
			var vandals sync.WaitGroup
			vandals.Go(func() {
				for until := stopped; ; {
					select {
					case <-until:
						if len(v.done) >= enough || time.Since(begin) > time.Minute {
							return
						}
						until = nil
					case <-time.After(time.Duration(v.rnd.IntN(20)) * time.Millisecond):
						v.act()
						until = stopped
					}
				}
			})
			pauses := rand.New(rand.NewPCG(seed, 11))
			for event := range source.Events(seed, steps) {
				event.Apply(sink)
				event.Apply(mirror.queue)
				time.Sleep(time.Duration(pauses.IntN(10)) * time.Millisecond)
			}
			close(stopped)
			vandals.Wait()
			if err := mirror.pass(context.Background()); err != nil {
				t.Fatal(err)
			}
			err := netlab.Poll(2*lastWait, func() error { return errors.Join(c.idle(), c.like(mirror, v.conn)) })
			repairs := c.Repairs()
			stop()
			if err != nil {
				t.Errorf("%v\n%s", err, tail(log.String()))
			}
			t.Logf("%d vandalised %v; last repairs %d, waits %v, commits %v", seed, v.done, len(repairs.Last), repairs.Delay, repairs.Commits)
			if len(v.done) < enough {
				t.Errorf("nearly nothing could be done: %v", v.done)
			}
		})
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// like compares the kernel with what compiling from nothing gives.
func (c *Controller) like(mirror *Controller, conn *kernel.Conn) error {
	for _, table := range mirror.tables {
		have, err := conn.Read(context.Background(), table.schema)
		if err != nil {
			return err
		}
		want := collect(fromNothing(mirror, table.schema.Family))
		if d := cmp.Diff(facts(want), facts(have)) + cmp.Diff(owned(want), owned(have)); d != "" {
			return fmt.Errorf("%s table (-from nothing +kernel):\n%s", table.schema.Family, d)
		}
	}
	return nil
}

// feeding is a source that a test drives: it hands out its sink, which has synced.
type feeding struct{ sink chan source.Sink }

func (f feeding) Run(ctx context.Context, sink source.Sink) error {
	sink.Synced()
	f.sink <- sink
	<-ctx.Done()
	return nil
}
