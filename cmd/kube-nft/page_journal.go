// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"time"

	"github.com/kube-nft/kube-nft/controller"
)

// journal remembers the last passes that did something, or failed to. Its methods may
// be called from several goroutines and do not wait.
type journal struct {
	mu   sync.Mutex
	last [journalLen]journalEntry
	n    int // entries that there have been
	now  func() time.Time
}

// journalLen is how many passes are remembered: as many as somebody looks at.
const journalLen = 50

// errorLen bounds what is remembered of an error, in bytes.
const errorLen = 500

type journalEntry struct {
	at     time.Time
	commit controller.Commit
	err    string // why it failed
	times  int    // in a row, for the same reason
}

func newJournal() *journal { return &journal{now: time.Now} }

// committed notes a pass that succeeded, unless there was nothing to do.
func (j *journal) committed(c controller.Commit) {
	if c.Batches > 0 || c.Resync {
		j.add(journalEntry{commit: c, times: 1})
	}
}

// failed notes one that did not.
func (j *journal) failed(err error) {
	text := err.Error()
	j.add(journalEntry{err: text[:min(len(text), errorLen)], times: 1})
}

func (j *journal) add(e journalEntry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.at = j.now()
	if j.n > 0 && e.err != "" {
		// Attempts that go on failing must not push out what was before.
		if before := &j.last[(j.n-1)%journalLen]; before.err == e.err {
			before.at, before.times = e.at, before.times+1
			return
		}
	}
	j.last[j.n%journalLen] = e
	j.n++
}

// list returns what is remembered, the latest first.
func (j *journal) list() []passObject {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]passObject, 0, journalLen)
	for i := j.n - 1; i >= max(0, j.n-journalLen); i-- {
		e := j.last[i%journalLen]
		all = append(all, passObject{
			At: e.at, TookSeconds: e.commit.Took.Seconds(), Services: e.commit.Services, Added: e.commit.Added, Deleted: e.commit.Deleted,
			Transactions: e.commit.Batches, Compared: e.commit.Resync, Error: e.err, Times: e.times,
		})
	}
	return all
}
