// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Lane is a way through a node, from a client's interface to that of the pods:
//
//	client  ClientIf ── ToClient  node  ToPods ── PodsIf  pods
type Lane struct {
	Client, Node, Pods                 *netlab.Namespace
	ClientIf, ToClient, ToPods, PodsIf string
	Untracked                          bool // the node knows nothing of conntrack
}

// deaf is nobody's hardware address. A frame that is sent to it arrives, is counted, and
// ends there as one for somebody else: it costs next to nothing, and is never answered.
var deaf = net.HardwareAddr{0x02, 0, 0, 0, 0xde, 0xaf}

// meter sends flows through one lane.
type meter struct {
	lane   Lane
	sender *Sender
	idle   *Sender    // whose frames the node does not hear
	back   *Sender    // of the pods
	next   netip.Addr // of the pods, whom the node sends all packets for endpoints
}

// newMeter prepares a lane: until close, pods hear nothing.
func newMeter(l Lane) (_ *meter, err error) {
	gateway, _, err := nicOf(l.Node, l.ToClient)
	if err != nil {
		return nil, err
	}
	m := &meter{lane: l}
	if _, m.next, err = nicOf(l.Pods, l.PodsIf); err != nil {
		return nil, err
	}
	away, _, err := nicOf(l.Node, l.ToPods)
	if err != nil {
		return nil, err
	}
	for _, s := range []struct {
		at     **Sender
		n      *netlab.Namespace
		ifname string
		to     net.HardwareAddr
	}{
		{&m.sender, l.Client, l.ClientIf, gateway}, {&m.idle, l.Client, l.ClientIf, deaf}, {&m.back, l.Pods, l.PodsIf, away},
	} {
		if *s.at, err = NewSender(s.n, s.ifname, s.to); err != nil {
			return nil, errors.Join(err, m.closeSenders())
		}
	}
	if err := l.Node.IP(fmt.Sprintf("neigh replace %s lladdr %s dev %s nud permanent", m.next, deaf, l.ToPods)); err != nil {
		return nil, errors.Join(err, m.closeSenders())
	}
	return m, nil
}

// close lets the pods hear again.
func (m *meter) close() error {
	return errors.Join(m.closeSenders(),
		m.lane.Node.IP(fmt.Sprintf("neigh del %s dev %s", m.next, m.lane.ToPods)))
}

func (m *meter) closeSenders() error {
	var errs []error
	for _, s := range []*Sender{m.sender, m.idle, m.back} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// nicOf returns the addresses of an interface.
func nicOf(n *netlab.Namespace, ifname string) (hardware net.HardwareAddr, first netip.Addr, err error) {
	err = n.Do(func() error {
		nic, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		hardware = nic.HardwareAddr
		all, err := nic.Addrs()
		for _, a := range all {
			if p, failed := netip.ParsePrefix(a.String()); failed == nil && p.Addr().Is4() && !first.IsValid() {
				first = p.Addr()
			}
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("interface %s of %s: %w", ifname, n.Name(), err)
	}
	return hardware, first, err
}

// cost is what packets cost, in ns each: that of the burst in the middle, which no
// interruption moves.
type cost struct {
	first float64 // of each connection
	next  float64 // of each connection, once it is established
}

// enough flows are established of a batch, which takes longer than to measure them.
const enough = 8 * burst

// send sends a batch of flows, none of which the node knows yet, and then another packet
// of enough of them. It makes sure that each was tracked and that all packets arrived.
func (m *meter) send(flows []Flow) (c cost, err error) {
	if err := m.forget(); err != nil {
		return c, err
	}
	first, next := make([]segment, len(flows)), make([]segment, min(len(flows), enough))
	for i, f := range flows {
		first[i] = f.syn()
	}
	for i := range next {
		next[i] = flows[i].confirm()
	}
	if c.first, err = m.pass(first); err != nil {
		return c, err
	}
	known := len(flows)
	if !m.lane.Untracked {
		known, err = tracked(m.lane.Node)
	}
	if err != nil {
		return c, err
	}
	// Two flows at random may be the same one.
	if known < len(flows)-len(flows)/500-1 {
		return c, fmt.Errorf("%s: of %d new flows %d are tracked", m.lane.Node.Path(), len(flows), known)
	}
	if err := m.establish(first[:len(next)]); err != nil {
		return c, err
	}
	c.next, err = m.pass(next)
	return c, err
}

// pass sends segments, and makes sure that they arrived.
func (m *meter) pass(segments []segment) (float64, error) {
	before, err := received(m.lane.Pods, m.lane.PodsIf)
	if err != nil {
		return 0, err
	}
	took, err := timed(m.sender, segments)
	if err != nil {
		return 0, err
	}
	got, err := m.arrived(before)
	if err == nil && got < len(segments) {
		err = fmt.Errorf("%s: of %d packets %d arrived", m.lane.Node.Path(), len(segments), got)
	}
	return took, err
}

// timed sends segments, and returns the time for each packet.
func timed(s *Sender, segments []segment) (float64, error) {
	var bursts []float64
	for part := range slices.Chunk(segments, burst) {
		took, err := s.Send(part)
		if err != nil {
			return 0, err
		}
		if len(part) == burst || len(bursts) == 0 {
			bursts = append(bursts, float64(took)/float64(len(part)))
		}
	}
	return median(bursts), nil
}

// median returns the value in the middle; it sorts the values.
func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// forget empties the connection tracking of the node, and waits until what was freed
// by it is free: that is work of the kernel's for a while, on any CPU.
func (m *meter) forget() error {
	if err := m.lane.Node.FlushConntrack(); err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond)
	return nil
}

// arrived returns how many packets have come to the pods since there were so many.
func (m *meter) arrived(before int) (int, error) {
	after, err := received(m.lane.Pods, m.lane.PodsIf)
	return after - before, err
}

// reaches reports whether a packet of every flow arrives at the pods, and is tracked:
// kube-proxy's IPVS carries packets before the rules are there that track them.
func (m *meter) reaches(flows []Flow) (bool, error) {
	before, err := received(m.lane.Pods, m.lane.PodsIf)
	if err != nil {
		return false, err
	}
	segments := make([]segment, len(flows))
	for i, f := range flows {
		segments[i] = f.syn()
	}
	if _, err := timed(m.sender, segments); err != nil {
		return false, err
	}
	got, err := m.arrived(before)
	if err != nil {
		return false, err
	}
	known, err := tracked(m.lane.Node)
	if err != nil {
		return false, err
	}
	return got >= len(flows) && known >= len(flows), m.lane.Node.FlushConntrack()
}
