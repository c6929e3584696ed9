// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"
	"testing"

	"github.com/kube-nft/kube-nft/controller/source"
)

// TestQueueIsNotShared: what the loop has taken, the source never touches again,
// not even when there was nothing to take. The race detector judges.
func TestQueueIsNotShared(t *testing.T) {
	c := New(testConfig(), newFake())
	load := &source.Synthetic{Services: 200, Endpoints: 1}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range load.Services {
			c.queue.SetService(load.Service(i))
			for _, s := range load.Slices(i) {
				c.queue.SetSlice(s)
			}
		}
		c.queue.Synced()
	})
	for synced := false; !synced; {
		var pending changes
		pending, synced = c.queue.take()
		c.merge(pending)
	}
	wg.Wait()
	pending, _ := c.queue.take()
	c.merge(pending)
	if n := len(c.state.Services()); n != load.Services {
		t.Errorf("%d Services came through, want %d", n, load.Services)
	}
}
