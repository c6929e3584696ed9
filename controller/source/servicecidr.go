// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"log/slog"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

// optionalBackoff is apiBackoff for what we can do without, and what a server may
// never give us: it stops at half a minute, spread by up to as much again. All
// nodes of a cluster ask.
var optionalBackoff = wait.Backoff{Duration: 400 * time.Millisecond, Cap: 30 * time.Second, Steps: 8, Factor: 2, Jitter: 1}

// serviceCIDRs makes the reflector of ServiceCIDRs. Nothing waits for them: a
// server before Kubernetes 1.33 has none, and permissions written for an older
// proxy leave them out.
func (a *api) serviceCIDRs(sink Sink) *cache.Reflector {
	told := &optional{log: a.opts.Logger}
	s := &store[*networkingv1.ServiceCIDR]{
		strip:  StripServiceCIDR,
		set:    sink.SetServiceCIDR,
		gone:   func(n types.NamespacedName) { sink.DeleteServiceCIDR(n.Name) },
		listed: func() { told.note(nil) },
	}
	lw := listWatch[networkingv1.ServiceCIDRList](a.client.serviceCIDRs(), metav1.ListOptions{})
	return a.reflect("servicecidrs", &networkingv1.ServiceCIDR{}, lw, s,
		a.optionalBackoff, func(_ context.Context, err error) { told.note(err) })
}

// optional logs what the API server says to requests for ServiceCIDRs, and what to
// do about it: once until the reason changes or they come. That it does not answer
// at all is told by the resources that we need. One reflector calls it, from one
// goroutine at a time.
type optional struct {
	log  *slog.Logger
	told metav1.StatusReason
}

// note records the outcome of a request.
func (o *optional) note(err error) {
	if err == nil {
		if o.told != "" {
			o.told = ""
			o.log.Info("Kubernetes API lists ServiceCIDRs now")
		}
		return
	}
	reason := apierrors.ReasonForError(err)
	if reason == metav1.StatusReasonUnknown || reason == o.told || routine(err) {
		return
	}
	o.told = reason
	mend := "see the API server's log"
	switch {
	case apierrors.IsForbidden(err):
		mend = "allow this user to list and watch servicecidrs.networking.k8s.io"
	case apierrors.IsNotFound(err):
		mend = "none but an upgrade: Kubernetes has them from 1.33 on"
	}
	o.log.Warn("Kubernetes API lists no ServiceCIDRs: which addresses are cluster IPs of no Service is not known; all else goes on", "mend", mend, "err", err)
}
