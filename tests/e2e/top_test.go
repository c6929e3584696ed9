// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// topRound is what `kube-nft top -o json` prints of a round.
type topRound struct {
	Since     time.Time
	Time      time.Time
	PerSecond float64 `json:"newPerSecond"`
	Rows      []topRow
}

type topRow struct {
	Namespace, Service, Port, Protocol, State string

	PerSecond float64 `json:"newPerSecond"`
	Dropped   float64 `json:"droppedPerSecond"`
	New       int
	Open      *int
	Endpoints []struct {
		Address string
		New     int
		Share   float64
		Open    int
		Left    bool
	}
}

// topRounds are those that have been printed.
func topRounds(t *testing.T, p *process) (all []topRound) {
	t.Helper()
	text := p.log.String()
	for line := range strings.Lines(text[:strings.LastIndex(text, "\n")+1]) {
		var r topRound
		if strings.HasPrefix(line, "{") {
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			all = append(all, r)
		}
	}
	return all
}

func (r *topRound) row(service, protocol string) *topRow {
	for i := range r.Rows {
		if r.Rows[i].Service == service && r.Rows[i].Protocol == protocol {
			return &r.Rows[i]
		}
	}
	return nil
}

// TestTopCounts: what top tells of Service ports and endpoints is what was sent, over
// all frontends and families, and what servers say that they answered.
func TestTopCounts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web := everywhere("web", 1)
	c.write(t, "web.yaml", withSlices(web, c.a, c.b, c.r)...)
	c.write(t, "idle.yaml", withSlices(service("idle", 2, everyProtocol(80)[0]), c.a)...)
	c.write(t, "empty.yaml", withSlices(service("empty", 3, everyProtocol(80)[0]))...)
	local := externalLocal(withIngress(withNodePort(service("local", 4, everyProtocol(80)[0]), 30084), balancerIP(4)[ip4], balancerIP(4)[ip6]))
	c.write(t, "local.yaml", withSlices(local, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	p := startProcess(t, c.node.Command(t.Context(), program(t), "top", "-o", "json", "-d", "200ms", "-b", "--rows", "0"))
	p.logs(t, `"newPerSecond"`)
	sent, answered := make(map[string]int), make(map[string]int)
	dropped := 0
	for i := range 120 {
		f, network := family(i%2), networks[i/2%2]
		to := []netip.AddrPort{netip.AddrPortFrom(clusterIP(1)[f], 80)}
		for _, dst := range external(1, f) {
			to = append(to, dst)
		}
		dst := to[i/4%len(to)]
		a, err := c.client.ask(network, dst, patience)
		c.Must(err)
		sent[network]++
		answered[network+" "+c.hostNamed(t, a.Server).at(f, targetPort).String()]++
		if i%20 == 0 {
			c.silent(t, c.client, "tcp", netip.AddrPortFrom(balancerIP(4)[f], 80))
			dropped++
		}
	}
	var last topRound
	c.Eventually(10*time.Second, func() error {
		rounds := topRounds(t, p)
		last = rounds[len(rounds)-1]
		for _, network := range networks[:2] {
			if row := last.row("web", network); row == nil || row.New != sent[network] {
				return fmt.Errorf("%s: told of %+v, %d were sent", network, row, sent[network])
			}
		}
		return nil
	})
	for _, network := range networks[:2] {
		row := last.row("web", network)
		share := 0.0
		for _, e := range row.Endpoints {
			want := answered[network+" "+e.Address]
			if e.New != want || e.Left {
				t.Errorf("%s %s: told of %d connections, %d were answered", network, e.Address, e.New, want)
			}
			if d := e.Share - float64(want)/float64(sent[network]); d > 0.001 || d < -0.001 {
				t.Errorf("%s %s: share %.3f of %d", network, e.Address, e.Share, want)
			}
			share += e.Share
		}
		if len(row.Endpoints) != 6 || share < 0.999 || share > 1.001 {
			t.Errorf("%s: %d endpoints have %.3f together", network, len(row.Endpoints), share)
		}
	}
	// Rates add up to what came.
	came, vanished := 0.0, 0.0
	before := last.Since
	for _, r := range topRounds(t, p) {
		took := r.Time.Sub(before).Seconds()
		came, vanished, before = came+r.row("web", "tcp").PerSecond*took, vanished+r.row("local", "tcp").Dropped*took, r.Time
	}
	if d := came - float64(sent["tcp"]); d > 0.5 || d < -0.5 {
		t.Errorf("rates add up to %.2f connections, %d were sent", came, sent["tcp"])
	}
	if d := vanished - float64(dropped); d < -0.5 { // TCP sends its SYN again
		t.Errorf("rates add up to %.2f dropped packets, at least %d were sent", vanished, dropped)
	}
	for service, state := range map[string]string{"web": "served", "idle": "served", "empty": "refused", "local": "dropped"} {
		if row := last.row(service, "tcp"); row.State != state {
			t.Errorf("%s is %s, want %s", service, row.State, state)
		}
	}
	if row := last.row("idle", "tcp"); row.New != 0 || row.PerSecond != 0 || len(row.Endpoints) != 2 {
		t.Errorf("idle: %+v", row)
	}
}

// TestTopOpen: open connections are those that are.
func TestTopOpen(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)[0]), c.a, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	var conns []*netlab.Conn
	for i := range 12 {
		conn, err := c.client.Dial(t.Context(), "tcp", netip.AddrPortFrom(clusterIP(1)[family(i%2)], 80))
		c.Must(err)
		_, err = conn.Ask(t.Context())
		c.Must(err)
		conns = append(conns, conn)
	}
	p := startProcess(t, c.node.Command(t.Context(), program(t), "top", "-o", "json", "-d", "200ms", "-b"))
	opened := func(want int) {
		t.Helper()
		c.Eventually(10*time.Second, func() error {
			rounds := topRounds(t, p)
			if len(rounds) == 0 {
				return fmt.Errorf("no round")
			}
			if row := rounds[len(rounds)-1].row("web", "tcp"); row == nil || row.Open == nil || *row.Open != want {
				return fmt.Errorf("told of %+v, %d are open", row, want)
			}
			return nil
		})
	}
	opened(12)
	for _, conn := range conns[:5] {
		c.Must(conn.Close())
	}
	opened(7)
	for _, conn := range conns[5:] {
		c.Must(conn.Close())
	}
	opened(0)
}

// TestTopLines: without a terminal top prints lines once, and says what is wrong.
func TestTopLines(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if text, code := command(t, c.node.Namespace, 0, "top", "--once"); code != 1 || !strings.Contains(text, "is kube-nft run at work here?") {
		t.Errorf("without tables: code %d: %s", code, text)
	}
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a, c.r)...)
	c.write(t, "empty.yaml", withSlices(service("empty", 2, servicePort("http", corev1.ProtocolTCP, 80)))...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	text, code := command(t, c.node.Namespace, 0, "top", "-d", "100ms", "--sort", "name", "--filter", "default")
	if lines := strings.Split(text, "\n"); code != 0 || len(lines) != 7 || !holds(lines[2], []string{"default/empty:http", "tcp", "refused"}) {
		t.Errorf("code %d:\n%s", code, text)
	}
	text, code = command(t, c.node.Namespace, 0, "top", "--batch", "-n", "3", "-d", "100ms", "--rows", "1", "--filter", "web", "--conntrack=false")
	if n := strings.Count(text, "SERVICE"); code != 0 || n != 3 || strings.Count(text, "served") != 3 {
		t.Errorf("code %d, %d rounds:\n%s", code, n, text)
	}
	if text, code := command(t, c.node.Namespace, 1, "top", "--once"); code != 1 || !strings.Contains(text, "CAP_NET_ADMIN") {
		t.Errorf("without privileges: code %d: %s", code, text)
	}
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"web"}, `unknown argument "web"`},
		{[]string{"--sort", "size"}, `"size" is not rate`},
		{[]string{"-d", "1ms"}, "at least 100ms"},
		{[]string{"-o", "yaml"}, "text or json"},
	} {
		if text, code := command(t, c.node.Namespace, 0, append([]string{"top"}, tt.args...)...); code != 2 || !strings.Contains(text, tt.says) {
			t.Errorf("top %q: code %d: %s", tt.args, code, text)
		}
	}
}

// TestTopScreen: top at a terminal: what it shows, keys, sizes, and nothing left
// behind.
func TestTopScreen(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for n, name := range []string{"apple", "berry", "cherry"} {
		c.write(t, name+".yaml", withSlices(service(name, n+1, everyProtocol(80)[0]), c.a, c.r)...)
	}
	c.write(t, "empty.yaml", withSlices(service("empty", 9, everyProtocol(80)[0]))...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	s := openScreen(t, c.node.Command(t.Context(), program(t), "top", "-d", "200ms", "--sort", "name"), 132, 24)
	s.shows(t, "kube-nft top", "5 Service ports, 1 refused")
	s.shows(t, "SERVICE", "NEW/S", "OPEN", "STATE", "TREND", "EP", "SHARE", "BUSIEST")
	s.shows(t, "default/empty:tcp/tcp", "refused")
	s.shows(t, "default/berry:tcp/tcp", "served", "   4") // endpoints of both families

	// Connections move numbers and trend, and sorting by rate moves the row.
	answers := make(map[string]int)
	for range 40 {
		a, err := c.client.ask("tcp", netip.AddrPortFrom(clusterIP(3)[ip4], 80), patience)
		c.Must(err)
		answers[c.hostNamed(t, a.Server).at(ip4, targetPort).String()]++
	}
	s.shows(t, "default/cherry:tcp/tcp", "█")
	busiest, most := "", 0
	for addr, n := range answers {
		if n > most {
			busiest, most = addr, n
		}
	}
	if most != 20 {
		s.shows(t, "default/cherry:tcp/tcp", busiest, shareOf(most, 40))
	}
	s.press(t, keyRight)
	s.shows(t, "sorted by rate")
	s.press(t, keyLeft)
	s.shows(t, "sorted by name")

	// Typing filters; a detail shows the endpoints.
	s.press(t, "cher")
	s.shows(t, "filter: cher_", "1 of 5")
	s.hides(t, "default/apple")
	s.press(t, keyEnter)
	s.shows(t, "40 since", "4 endpoints")
	for addr, n := range answers {
		s.shows(t, addr, fmt.Sprint(n), shareOf(n, 40))
	}
	s.press(t, keyEsc)
	s.hides(t, "ENDPOINT") // before the next letter, which would make one key of the two
	s.press(t, "zzz")
	s.shows(t, "no Service port has these words")
	s.press(t, keyEsc)
	s.shows(t, "default/apple")

	// Sizes: what has no room goes, what is left is whole.
	for _, size := range [][2]int{{60, 10}, {30, 6}, {12, 3}, {3, 1}, {200, 50}, {80, 24}} {
		s.size(t, size[0], size[1])
		if size[0] >= 30 {
			s.shows(t, "kube-nft top")
			s.shows(t, "default/appl")
		}
	}
	s.shows(t, "q quit")

	// A quiet screen costs the terminal next to nothing. The second that has begun may
	// be over at once, before the last size is drawn: it does not count, nor does the next.
	s.second(t)
	s.second(t)
	for len(s.sent) > 0 {
		<-s.sent
	}
	s.second(t)
	s.second(t)
	total := 0
	for len(s.sent) > 0 {
		total += <-s.sent
	}
	if total > 4000 {
		t.Errorf("ten readings in which nothing happened made the program write %d bytes", total)
	}
	s.press(t, "q")
	if code := s.ends(t); code != 0 {
		t.Errorf("code %d", code)
	}
}

// shareOf writes a share as top does: 23 of 40 are 57 %, though 2300 / 40 rounds to 58.
func shareOf(n, all int) string { return fmt.Sprintf("%.0f%%", 100*(float64(n)/float64(all))) }

// TestTopPlain: without colours, and where letters are ASCII, everything is still said.
func TestTopPlain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)[0]), c.a)...)
	c.write(t, "empty.yaml", withSlices(service("empty", 9, everyProtocol(80)[0]))...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	cmd := c.node.Command(t.Context(), "/usr/bin/env", "NO_COLOR=1", "LANG=C", program(t), "top", "-d", "200ms")
	s := openScreen(t, cmd, 100, 20)
	s.shows(t, "kube-nft top", "1 refused")
	for range 5 {
		_, err := c.client.ask("tcp", netip.AddrPortFrom(clusterIP(1)[ip4], 80), patience)
		c.Must(err)
	}
	s.shows(t, "default/web:tcp/tcp", "served", "#")
	s.shows(t, "default/empty:tcp/tcp", "refused")
	s.press(t, "\x03")
	if code := s.ends(t); code != 0 {
		t.Errorf("code %d", code)
	}
}
