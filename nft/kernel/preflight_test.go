// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestKernelAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"5.13.0": true, "5.12.19-cloud": false, "4.19.0-27-amd64": false, "6.1.0": true, "10.0": true, "5.4": false,
		"some other": true, // asked feature by feature
	} {
		if got := kernelAtLeast(release, oldestKernel); got != want {
			t.Errorf("kernelAtLeast(%q) = %t, want %t", release, got, want)
		}
	}
}

// TestPreflightMissing: an expression that the kernel lacks is named, and nothing
// is left behind. The expression is one that kernels without CONFIG_NFT_QUEUE
// lack; where it is there, there is nothing to see.
func TestPreflightMissing(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	conn, err := Open(Options{NetNS: ns.Fd()})
	lab.Must(err)
	defer conn.Close()
	s := nft.NewSchema(nft.IPv4, nft.Options{})
	lab.Must(conn.Preflight(context.Background(), s))
	s.Chains = append(s.Chains, nft.RuleChain{Name: "QUEUE", Rules: []nft.Rule{{Text: "queue to 0", Exprs: []expr.Any{&expr.Queue{}}}}})
	err = conn.Preflight(context.Background(), s)
	if rules, _ := ns.Ruleset(); rules != "" {
		t.Errorf("left behind:\n%s", rules)
	}
	if err == nil {
		t.Skip("this kernel has CONFIG_NFT_QUEUE")
	}
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "expression queue (CONFIG_NFT_QUEUE)") {
		t.Errorf("Preflight: %v", err)
	}
}

// FuzzMessages feeds the reader of the kernel's answers.
func FuzzMessages(f *testing.F) {
	var b batch
	b.reset(nft.TableName)
	b.elements(0, nft.IPv4, []nft.Element{{Set: nft.ClusterIPs, Key: nft.Key{Addr: netip.IPv4Unspecified()}}}, nil)
	f.Add(b.buf)
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = messages(in, func(h header, body []byte) bool {
			decodeError(h, body)
			if len(body) > wire.FamilyLen {
				for _, v := range wire.Attrs(wire.First(body[wire.FamilyLen:], 3)) {
					for _, set := range nft.Sets {
						_, _, _ = decodeElement(nft.IPv4, set, v)
						_, _, _ = decodeElement(nft.IPv6, set, v)
					}
				}
				sameHook(&nft.Hook{}, body)
			}
			return true
		})
	})
}
