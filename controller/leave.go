// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"time"
)

// leaveWithin is how long the last repair may take: less than a pod has to end.
const leaveWithin = 5 * time.Second

// leave makes the repair that still waits before nobody is left to make it: the tables
// are to serve on. Nothing is done if there is none.
func (c *Controller) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	c.heed(ctx)
	if c.heal.mendAt.IsZero() {
		return
	}
	c.heal.fight, c.heal.mendAt = fight{}, time.Now()
	if err := c.pass(ctx); err != nil {
		c.log.Error("what others did to the tables could not be put right before the end: start kube-nft again", "err", err)
	}
}
