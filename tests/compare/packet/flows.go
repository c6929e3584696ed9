// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// firstPort is the lowest source port of a flow.
const firstPort = 1024

// traffic is where flows come from and go to, each at random.
type traffic struct {
	sources netip.Prefix
	targets []netip.AddrPort
}

// fill makes up flows. The same seed makes the same.
func (t traffic) fill(flows []Flow, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range flows {
		flows[i] = Flow{Source: t.source(random), Target: t.targets[random.IntN(len(t.targets))]}
	}
}

// each returns a flow to each of the targets.
func (t traffic) each(seed uint64) []Flow {
	random := rand.New(rand.NewPCG(seed, 0))
	flows := make([]Flow, len(t.targets))
	for i, target := range t.targets {
		flows[i] = Flow{Source: t.source(random), Target: target}
	}
	return flows
}

func (t traffic) source(random *rand.Rand) netip.AddrPort {
	base := t.sources.Masked().Addr().As4()
	width := uint32(1) << (32 - t.sources.Bits())
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(base[:])+random.Uint32N(width))
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(firstPort+random.Uint32N(1<<16-firstPort)))
}
