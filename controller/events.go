// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
)

// Events tells those who own a Service what it does that they may not mean, in the
// place where they look; event.Recorder does it in the API. What is said depends on
// Services alone, never on the node, so that all nodes say the same.
type Events interface {
	// Warn says something of a Service. The reason is one of ours; about tells apart
	// what may be said for one reason of one Service, and note says it with the mend.
	// It does not wait, and what is said again and again costs little.
	Warn(s *model.Service, reason, about, note string)
}

// The reasons of events.
const (
	// ReasonFrontendConflict: another Service has an address or node port that this
	// one claims too.
	ReasonFrontendConflict = "FrontendConflict"
	// ReasonSourceRangesOpen: source ranges leave a family of addresses open.
	ReasonSourceRangesOpen = "SourceRangesOpen"
	// ReasonTableContested, of a node: somebody else goes on changing our tables.
	ReasonTableContested = "TableContested"
)

// sayAgain is how often what still holds is said again. An API server keeps an
// event for an hour after it was last said (kube-apiserver --event-ttl).
const sayAgain = 30 * time.Minute

// warnConflict tells the owner of the Service that has lost; one event for each
// address or node port and each winner, however many ports.
func (c *Controller) warnConflict(conflict compile.Conflict) {
	s := c.state.Service(conflict.Service)
	if c.config.Events == nil || s == nil {
		return
	}
	place, what := conflict.Frontend.String(), "node port"
	if !conflict.Frontend.NodePort() {
		place, what = conflict.Frontend.Addr.String(), "address"
	}
	winner, _, _ := strings.Cut(conflict.Winner, ":")
	c.config.Events.Warn(s, ReasonFrontendConflict, place+" "+winner, fmt.Sprintf(
		"%s is served for Service %s, as its %s, and not for this Service: give one of the two another %s",
		conflict.Frontend, winner, conflict.Kind, what))
}

// warnDoubt tells the owner of a doubtful Service.
func warnDoubt(events Events, s *model.Service) {
	if events == nil || s == nil {
		return
	}
	if doubt := s.Doubt(); doubt != "" {
		events.Warn(s, ReasonSourceRangesOpen, doubt, doubt)
	}
}

// warnAgain says what still holds.
func (c *Controller) warnAgain() {
	for _, t := range c.tables {
		for conflict := range t.desired.EachConflict() {
			c.warnConflict(conflict)
		}
	}
	for _, name := range c.queue.doubtful() {
		warnDoubt(c.config.Events, c.state.Service(name))
	}
}
