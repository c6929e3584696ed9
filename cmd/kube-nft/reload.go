// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/controller/config"
)

// lookAgain is how often a configuration file is looked at. Polling sees what
// notifications do not: a ConfigMap's file is behind two links, of which one is
// replaced, and the kubelet takes up to a minute for that anyway.
const lookAgain = 2 * time.Second

// errRestart says that a changed configuration needs a new process.
var errRestart = errors.New("the configuration file has changed in what needs a restart")

// reloader brings changes of the configuration file into a running process.
type reloader struct {
	options *options
	log     *logger
	now     plan // in force
	every   time.Duration
	apply   func(old, next plan) // brings in what may change
}

// run returns when the configuration needs a restart, or ctx ends.
func (r *reloader) run(ctx context.Context) error {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	last := r.options.text
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		text, err := os.ReadFile(r.options.file)
		// A file that is not there is about to be; one that has just changed may still
		// be in the writing.
		settled := err == nil && bytes.Equal(text, last)
		last = text
		if !settled || bytes.Equal(text, r.options.text) {
			continue
		}
		if err := r.reload(); err != nil {
			return err
		}
	}
}

// reload reads the file anew. One that is wrong is reported, and changes nothing.
func (r *reloader) reload() error {
	next, unknown, err := r.options.load()
	if err != nil {
		r.log.Error("the configuration file has changed and is wrong now: what was in force stays so", "file", r.options.file, "err", err)
		return nil
	}
	for _, name := range unknown {
		r.log.Warn("configuration has something that this version does not know, it is left out", "what", name)
	}
	changed := config.Changed(r.now.of, next.of)
	if len(changed) == 0 {
		return nil
	}
	if r.restarts(next) {
		return fmt.Errorf("%w: %s; what is programmed stays, start kube-nft again", errRestart, strings.Join(changed, ", "))
	}
	r.options.tellNotes(r.log.Logger, next.of)
	r.apply(r.now, next)
	r.now = next
	r.log.Info("the configuration file has changed, it is in force now", "fields", strings.Join(changed, ", "))
	return nil
}

// restarts reports whether a plan differs from the one in force in what a process
// takes up at its start alone. It is what follows from the configuration that
// matters: another mode may well mean the same.
func (r *reloader) restarts(next plan) bool {
	start := func(p plan) any {
		c := p.of
		return []any{p.nodeName, c.ClientConnection, c.HealthzBindAddress, c.MetricsBindAddress, c.BindAddressHardFail,
			c.Logging.Format, p.localNodePorts, p.ExternalIPs}
	}
	return !reflect.DeepEqual(start(r.now), start(next))
}
