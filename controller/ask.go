// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// ErrEnded says that nobody answers any more.
var ErrEnded = errors.New("the controller has ended")

// Ask runs a question in the goroutine that owns the state, between two passes: what
// it sees is whole. It waits for its turn until ctx ends, and not longer; a question
// that has begun is always waited for. It is answered from the first moment of Run,
// also while the source has not told everything. Commits wait while it runs, so
// questions are short: about one Service, not about all. What Facts returns is not
// to be kept, unless it says so.
func (c *Controller) Ask(ctx context.Context, question func(Facts)) error {
	asked := asked{question, make(chan struct{})}
	select {
	case c.questions <- asked:
		<-asked.answered
		return nil
	case <-c.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// asked is a question that waits for its turn.
type asked struct {
	question func(Facts)
	answered chan struct{}
}

func (a asked) run(c *Controller) {
	defer close(a.answered)
	a.question(Facts{c})
}

// Facts are what a Controller knows, for the length of a question.
type Facts struct{ c *Controller }

// Status is how far a Controller has come. It may be kept.
type Status struct {
	Node, Zone string
	// Synced: the source has told everything. Nothing is programmed before.
	Synced bool
	// Programmed: all tables were brought to what they should be, and are not known to
	// be anything else.
	Programmed bool
	// Failing: the last transaction failed, and another one will be tried.
	Failing bool
	// Changed is when something was last committed; zero is never.
	Changed time.Time
	// Services that are known, of all kinds that this proxy serves.
	Services int
	Tables   []TableStatus
}

// TableStatus is the Status of one family's table.
type TableStatus struct {
	Family     nft.Family
	Programmed bool
	Options    nft.Options
	Features   nft.Features
	Elements   int
	Conflicts  int // frontends that a Service claims and does not get
}

// Status says how far the Controller has come.
func (f Facts) Status() Status {
	c := f.c
	s := Status{Node: c.config.NodeName, Zone: c.zone(), Synced: c.queue.isSynced(), Programmed: c.ready(),
		Failing: c.failing, Changed: c.changed, Services: c.state.Count()}
	for _, t := range c.tables {
		s.Tables = append(s.Tables, TableStatus{Family: t.schema.Family, Programmed: !t.resync && t.touched.none(), Options: t.schema.Options,
			Features: t.desired.Features(), Elements: total(t.desired.Counts()), Conflicts: t.desired.Conflicts()})
	}
	return s
}

// Service returns what is known under a name: the Service, its EndpointSlices, or
// both; nil is nothing.
func (f Facts) Service(name types.NamespacedName) *model.Entry { return f.c.state.Entry(name) }

// Zone is this node's zone, "" if it has none or it is not known.
func (f Facts) Zone() string { return f.c.zone() }

// Families lists those that have a table.
func (f Facts) Families() (all []nft.Family) {
	for _, t := range f.c.tables {
		all = append(all, t.schema.Family)
	}
	return all
}

// Desired returns what a family's table should hold; nil is none.
func (f Facts) Desired(family nft.Family) *compile.Table {
	for _, t := range f.c.tables {
		if t.schema.Family == family {
			return t.desired
		}
	}
	return nil
}
