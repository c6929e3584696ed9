// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestRules: other rules are those of a table that is made anew once; a family that
// they do not speak of keeps its own, and what a Node lacks for them is said.
func TestRules(t *testing.T) {
	f := newFake()
	config := testConfig()
	var log bytes.Buffer
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c := New(config, f)
	c.queue.SetNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-0"}})
	c.queue.Synced()
	pass := func() {
		t.Helper()
		if err := c.pass(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	before := make(map[nft.Family]nft.Options)
	for _, table := range c.tables {
		before[table.schema.Family] = table.schema.Options
	}
	four := before[nft.IPv4]
	four.MasqueradeBit = 3
	c.setRules(Rules{Options: map[nft.Family]nft.Options{nft.IPv4: four}, DetectLocal: DetectLocal{Mode: LocalByNodeCIDR}})
	for _, table := range c.tables {
		o, changed := table.schema.Options, table.schema.Family == nft.IPv4
		if (o != before[table.schema.Family]) != changed || table.resync != changed || changed && o.MasqueradeBit != 3 {
			t.Errorf("%s: %+v, to be compared %t", table.schema.Family, o, table.resync)
		}
	}
	if n := strings.Count(log.String(), "has no spec.podCIDRs"); n != 1 {
		t.Errorf("it was said %d times that the Node has no pod CIDRs, want once:\n%s", n, &log)
	}
}

// TestNamedProxyDropsNothing: who serves the Services that name it takes over no
// ServiceCIDRs from a table of a time when it served all: what nobody serves there is
// the other proxy's to refuse.
func TestNamedProxyDropsNothing(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	conn := openKernel(t, ns)
	ranges := func(config Config, cidrs bool) int {
		t.Helper()
		c := New(config, conn)
		if cidrs {
			c.queue.SetServiceCIDR(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}})
		}
		c.queue.Synced()
		if err := c.pass(context.Background()); err != nil {
			t.Fatal(err)
		}
		have, err := conn.Read(context.Background(), c.tables[0].schema)
		if err != nil {
			t.Fatal(err)
		}
		return len(have.Ranges(nft.ServiceCIDRs))
	}
	config := testConfig()
	if n := ranges(config, true); n != 1 {
		t.Fatalf("%d ServiceCIDRs", n)
	}
	if n := ranges(config, false); n != 1 {
		t.Errorf("%d ServiceCIDRs after a start without", n)
	}
	config.ProxyName = "kube-nft"
	if n := ranges(config, false); n != 0 {
		t.Errorf("%d ServiceCIDRs of a named proxy", n)
	}
}
