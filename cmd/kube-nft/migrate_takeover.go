// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kube-nft/kube-nft/nft/kubeproxy"
)

// takeOver removes what kube-proxy has left. In this order no packet of a connection is
// lost: kube-nft's chains are there before, so that new connections are translated and
// the kernel goes on to translate those that are tracked; rules go in transactions; IPVS
// goes when no connection needs it any more.
func (o *migrateOptions) takeOver(ctx context.Context, w io.Writer) error {
	found, served, err := findLeftovers(ctx)
	if err != nil {
		return err
	}
	if found.Empty() {
		fmt.Fprintln(w, "kube-proxy has left nothing here")
		printLines(w, "stays: ", found.KeptLines())
		return nil
	}
	if err := o.told(w, []check{
		{"kube-nft runs here, and has programmed everything", programmedHere(ctx)},
		{"no kube-proxy runs here that could be seen", stoppedHere(proxiesHere("/proc"))},
		{fmt.Sprintf("each of %d frontends in kube-proxy's rules is in kube-nft's tables", len(found.Frontends())), missingHere(&found, served)},
		{"no packet depends on kube-proxy's chain KUBE-FORWARD", acceptedHere(&found)},
	}); err != nil {
		return err
	}
	lines, kept := found.Lines(), found.KeptLines() // before it gets less
	if o.dryRun {
		printLines(w, "would remove ", lines)
		printLines(w, "stays: ", kept)
		return nil
	}
	if err := found.RemoveRules(ctx); err != nil {
		return explainPermission(err)
	}
	if err := o.drainIPVS(ctx, w, &found); err != nil {
		return err
	}
	printLines(w, "removed ", lines)
	printLines(w, "stays: ", kept)
	return isBack(ctx)
}

func printLines(w io.Writer, before string, lines []string) {
	for _, line := range lines {
		fmt.Fprintf(w, "%s%s\n", before, line)
	}
}

// programmedHere returns an error unless kube-nft runs in this namespace and its tables
// are complete.
func programmedHere(ctx context.Context) error {
	status, err := askStatus(ctx)
	switch {
	case errors.Is(err, errNotRunning):
		return fmt.Errorf("%w: start it first, beside kube-proxy or after it (docs/migrate.md); what kube-proxy has left carries packets meanwhile", err)
	case err != nil:
		return err
	case !status.Synced:
		return errors.New("it has not heard of all Services yet: wait, or see its log")
	case !status.Programmed || status.Failing:
		return errors.New("it has not programmed everything: see its log")
	}
	return nil
}

// missingHere returns an error if kube-proxy's rules carry what kube-nft's do not.
func missingHere(found *kubeproxy.Found, served []kubeproxy.Frontend) error {
	missing := kubeproxy.Missing(found.Frontends(), served)
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%d are not: %s. Those of Services that were deleted since kube-proxy stopped are rightly missing; for all others see kube-nft explain ADDRESS:PORT, and its --config, --nodeport-addresses and --service-proxy-name",
		len(missing), fewFrontends(missing))
}

// acceptedHere returns an error if packets may be dropped without kube-proxy's chain.
func acceptedHere(found *kubeproxy.Found) error {
	for _, r := range found.Rules {
		if r.Accepts {
			return fmt.Errorf("the policy of the chain FORWARD of %s is DROP (%s), and KUBE-FORWARD accepts what goes to Services: first add a rule that does, such as -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT, then use --force; if the network plugin accepts all traffic of pods, --force is enough",
				r.Family, r.Backend)
		}
	}
	return nil
}

// drainEvery is how often it is looked whether connections through IPVS have ended, at
// most: a look at many takes time, and is not to be all that the node does. tellEvery is
// how often that is said.
const (
	drainEvery = time.Second
	tellEvery  = 10 * time.Second
)

// drainIPVS removes what is of the mode ipvs alone, as connections end.
func (o *migrateOptions) drainIPVS(ctx context.Context, w io.Writer, found *kubeproxy.Found) error {
	if o.drain == 0 {
		return explainPermission(found.RemoveIPVS(ctx))
	}
	var told time.Time
	for began := time.Now(); ; {
		looked := time.Now()
		busy, err := found.RemoveIdle(ctx)
		if err != nil {
			return explainPermission(err)
		}
		if busy.Idle() {
			return nil
		}
		if time.Since(began) >= o.drain {
			return fmt.Errorf("kube-proxy's rules are removed, and new connections go through kube-nft; still open are %v, which goes on until they end: run take-over again later, or with --drain 0 to end them", busy)
		}
		if time.Since(told) >= tellEvery {
			told = time.Now()
			fmt.Fprintf(w, "waiting for %v\n", busy)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(max(drainEvery, 4*time.Since(looked))):
		}
	}
}

// isBack returns an error if what was removed is there again, or still.
func isBack(ctx context.Context) error {
	again, err := kubeproxy.Find(ctx)
	if err != nil {
		return err
	}
	if !again.Empty() {
		return fmt.Errorf("kube-proxy's rules are there again: %s; it must run, maybe inside another program (k3s has it in its own process: --disable-kube-proxy)", again.Lines()[0])
	}
	return nil
}
