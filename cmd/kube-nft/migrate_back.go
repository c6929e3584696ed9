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

// lookFor is how often it is looked whether kube-proxy has programmed the node; a look
// at 100,000 rules takes time as well, and is not to be all that the node does.
const lookFor = 200 * time.Millisecond

// back removes kube-nft's tables.
func (o *migrateOptions) back(ctx context.Context, w io.Writer) error {
	served, err := kubeproxy.Served(ctx)
	if err != nil {
		return explainPermission(err)
	}
	stopped := check{"kube-nft has stopped", endedHere(ctx)}
	if stopped.err != nil && !o.force {
		return o.told(w, []check{stopped}) // which waiting would not mend
	}
	mode, missing, err := o.awaitProxy(ctx, w, served)
	if err != nil {
		return explainPermission(err)
	}
	carried := check{what: fmt.Sprintf("each of %d frontends in kube-nft's tables is in kube-proxy's rules (%s)", len(served), mode)}
	switch {
	case mode == "":
		carried = check{"kube-proxy has programmed this node", errors.New("there are no rules of its: start it, and see its log")}
	case len(missing) > 0:
		carried.err = fmt.Errorf("%d are not, after %v: %s. See kube-proxy's log; those of Services that were deleted since kube-nft stopped are rightly missing", len(missing), o.wait, fewFrontends(missing))
	}
	running := check{"kube-proxy runs here", runsHere(proxiesHere("/proc"))}
	if err := o.told(w, []check{stopped, running, carried}); err != nil {
		return err
	}
	if o.dryRun {
		fmt.Fprintf(w, "would remove kube-nft's tables, with %d frontends\n", len(served))
		return nil
	}
	return cleanup(ctx, w)
}

// endedHere returns an error if a kube-nft runs in this namespace: it would make its
// tables anew.
func endedHere(ctx context.Context) error {
	status, err := askStatus(ctx)
	switch {
	case errors.Is(err, errNotRunning):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("it runs, as process %d, and would make its tables anew: stop it first; its tables carry packets until they are removed", status.PID)
}

// awaitProxy waits until kube-proxy runs and its rules carry these frontends, for as long
// as it may. With --force nobody looks whether it runs.
func (o *migrateOptions) awaitProxy(ctx context.Context, w io.Writer, served []kubeproxy.Frontend) (mode string, missing []kubeproxy.Frontend, err error) {
	told := false
	for began := time.Now(); ; {
		looked := time.Now()
		found, err := kubeproxy.Find(ctx)
		if err != nil {
			return "", nil, err
		}
		mode, missing = found.Mode(), kubeproxy.Missing(served, found.Frontends())
		carried := mode != "" && len(missing) == 0 && (o.force || runsHere(proxiesHere("/proc")) == nil)
		if carried || o.dryRun || time.Since(began) >= o.wait {
			return mode, missing, nil
		}
		if !told {
			told = true
			fmt.Fprintf(w, "waiting up to %v for kube-proxy to run here and to carry %d frontends\n", o.wait, len(served))
		}
		select {
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		case <-time.After(max(lookFor, 2*time.Since(looked))):
		}
	}
}
