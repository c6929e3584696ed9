// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// unreachable is the reason of every error that is not the API server's answer.
const unreachable = "Unreachable"

// reachability logs changes of whether the API server answers: one warning when
// it stops, however many requests fail after that, and one line when all is well
// again. An answer that refuses (no permission, say) is told once per resource
// and reason. It is safe for concurrent use.
type reachability struct {
	log *slog.Logger

	mu      sync.Mutex
	failing map[string]string // resource → reason
	since   time.Time         // when failing became non-empty
}

// note records the outcome of a request for resource.
func (r *reachability) note(ctx context.Context, resource string, err error) {
	if ctx.Err() != nil || routine(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.recover(resource)
		return
	}
	reason := string(apierrors.ReasonForError(err))
	if reason == string(metav1.StatusReasonUnknown) {
		reason = unreachable
	}
	told := r.failing[resource] == reason
	if reason == unreachable {
		for _, other := range r.failing {
			told = told || other == unreachable
		}
	}
	if len(r.failing) == 0 {
		r.since = time.Now()
	}
	r.failing[resource] = reason
	if told {
		return
	}
	if request, ok := errors.AsType[*url.Error](err); ok {
		err = request.Err // without the request's long address
	}
	if reason == unreachable {
		r.log.Warn("Kubernetes API does not answer: what is programmed stays as it is; trying on", "err", err)
		return
	}
	mend := "see the API server's log"
	switch {
	case apierrors.IsForbidden(err):
		mend = "allow this user to list and watch " + resource
	case apierrors.IsUnauthorized(err):
		mend = "give this user a token or certificate that is valid, in the kubeconfig or as the pod's service account"
	}
	r.log.Warn("Kubernetes API refuses a request: what is programmed stays as it is; trying on", "resource", resource, "mend", mend, "err", err)
}

// recover records that a request for resource succeeded.
func (r *reachability) recover(resource string) {
	if _, ok := r.failing[resource]; !ok {
		return
	}
	delete(r.failing, resource)
	if len(r.failing) == 0 {
		r.log.Info("Kubernetes API answers again", "after", time.Since(r.since).Round(time.Millisecond))
	}
}

// routine reports whether an error belongs to the normal life of a watch: its
// place in history is no longer, or not yet, known to the server.
func routine(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// quiet is a slog.Handler for what client-go logs on its own: all of it is
// debugging, since reachability tells what an operator wants to know.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, min(level, slog.LevelDebug))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = min(r.Level, slog.LevelDebug)
	if !q.Handler.Enabled(ctx, r.Level) { // logr does not ask before it hands on errors
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
