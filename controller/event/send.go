// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
	"encoding/json"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What the API takes (pkg/apis/core/validation/events.go of Kubernetes).
const (
	noteLimit     = 1024
	instanceLimit = 128
)

// send makes the event, or continues it if this process has said so before.
func (r *Recorder) send(ctx context.Context, w saying) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	err := r.client.Post().Namespace(w.namespace).Resource("events").Body(r.event(w)).Do(ctx).Error()
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	if w.count < 2 || w.about != w.name {
		return nil // another node has said it, or this one before it started anew
	}
	err = r.client.Patch(types.MergePatchType).Namespace(w.namespace).Resource("events").Name(w.name).Body(series(w)).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return nil // it has expired just now; next time it is made anew
	}
	return err
}

// event is the event as it is said for the first time.
func (r *Recorder) event(w saying) *eventsv1.Event {
	return &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: w.namespace, Name: w.name},
		EventTime:           metav1.NewMicroTime(w.at),
		ReportingController: "kube-nft",
		ReportingInstance:   r.node[:min(len(r.node), instanceLimit)],
		Action:              w.action,
		Reason:              w.reason,
		Regarding:           w.of,
		Note:                w.note[:min(len(w.note), noteLimit)],
		Type:                w.kind,
	}
}

// series is a merge patch that says that the event was said again.
func series(w saying) []byte {
	patch := map[string]any{"series": eventsv1.EventSeries{Count: w.count, LastObservedTime: metav1.NewMicroTime(w.at)}}
	text, err := json.Marshal(patch)
	if err != nil {
		panic(err) // numbers and times
	}
	return text
}
