// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/nft"
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
	wrong   bool // the file is wrong as it is
	gone    int  // how often in a row it was not there
	every   time.Duration
	apply   func(old, next plan) // brings in what may change
	tell    func(wrong bool)     // of the file as it is now; nil is nobody
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
		r.noteMissing(err)
		// A file that is not there is about to be; one that has just changed may still
		// be in the writing.
		settled := err == nil && bytes.Equal(text, last)
		last = text
		if !settled || bytes.Equal(text, r.options.text) {
			continue
		}
		if err := r.reload(text); err != nil {
			return err
		}
	}
}

func (r *reloader) setWrong(wrong bool) {
	r.wrong = wrong
	if r.tell != nil {
		r.tell(wrong)
	}
}

// goneFor is how often in a row a file may not be there until it is said.
const goneFor = 3

func (r *reloader) noteMissing(err error) {
	if err == nil {
		if r.gone >= goneFor && r.tell != nil {
			r.tell(r.wrong)
		}
		r.gone = 0
		return
	}
	if r.gone++; r.gone == goneFor {
		if r.tell != nil {
			r.tell(true)
		}
		r.log.Warn("the configuration file cannot be read any more: what was in force stays so; a process that starts now would end", "err", err)
	}
}

// reload takes the file's new text. One that is wrong is reported, and changes nothing.
func (r *reloader) reload(text []byte) error {
	next, unknown, err := r.options.conclude(r.options.decode(text))
	if err != nil {
		r.setWrong(true)
		r.log.Error("the configuration file has changed and is wrong now: what was in force stays so", "err", err)
		return nil
	}
	tellUnknown(r.log.Logger, unknown)
	changed := config.Changed(r.now.of, next.of)
	if len(changed) == 0 {
		if r.wrong {
			r.log.Info("the configuration file is good again, and what was in force")
		}
		r.setWrong(false)
		return nil
	}
	r.setWrong(false)
	if start := r.now.restarts(next); len(start) > 0 {
		return fmt.Errorf("%w: %s; what is programmed stays, start kube-nft again", errRestart, strings.Join(start, ", "))
	}
	r.options.tellNotes(r.log.Logger, next.of)
	r.options.tellDoubts(r.log.Logger, next)
	r.apply(r.now, next)
	r.now = next
	r.log.Info("the configuration file has changed, it is in force now", "fields", strings.Join(changed, ", "))
	return nil
}

// restarts lists in what a plan differs from the one in force that a process takes up
// at its start alone. It is what follows from the configuration that matters: another
// mode may well mean the same.
func (p plan) restarts(next plan) (what []string) {
	a, b := p.of, next.of
	for _, is := range []struct {
		what string
		same bool
	}{
		{"hostnameOverride", p.nodeName == next.nodeName},
		{"clientConnection", a.ClientConnection == b.ClientConnection},
		{"healthzBindAddress", a.HealthzBindAddress == b.HealthzBindAddress},
		{"metricsBindAddress", a.MetricsBindAddress == b.MetricsBindAddress},
		{"bindAddressHardFail", a.BindAddressHardFail == b.BindAddressHardFail},
		{"logging.format", a.Logging.Format == b.Logging.Format},
		{"node ports on localhost (mode, nodePortAddresses, iptables.localhostNodePorts)", p.localNodePorts == next.localNodePorts},
		{"featureGates.AllowServiceExternalIPs", p.ExternalIPs == next.ExternalIPs},
		{"the IP families of this host", sameFamilies(p.rules.Options, next.rules.Options)},
	} {
		if !is.same {
			what = append(what, is.what)
		}
	}
	return what
}

func sameFamilies(a, b map[nft.Family]nft.Options) bool {
	return slices.Equal(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b)))
}
