// SPDX-License-Identifier: Apache-2.0

// Package event tells the owners of Services what they should know, by events in
// the Kubernetes API (events.k8s.io/v1), which kubectl describe shows.
//
// It also says of the node, in kube-proxy's words, that the process has begun, and
// what it cannot do there.
//
// Every node of a cluster finds out the same about a Service. Therefore an event's
// name follows from what it says: the first node to say it makes the event, all
// others learn that it is there already and leave it so. What a process says once
// more, after a while, goes on in the same event as a series.
//
// What it does not do: keep anybody waiting, or try for ever. An event that cannot
// be delivered is dropped until it is said again.
package event

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/kube-nft/kube-nft/controller/model"
)

// What one node sends at most, whatever happens in the cluster: as many at once,
// then one each few seconds.
const (
	burst       = 10
	perSecond   = 0.2
	maxQueued   = 256  // more are dropped until they are said again
	maxTold     = 4096 // what is remembered of what was said
	requestTime = 10 * time.Second
)

// quiet is how long after something was said the same is not said again. Of what
// was said longer ago than an hour the API server has nothing left either.
const (
	quiet  = 10 * time.Minute
	forget = 2 * time.Hour
)

// Retries after an error wait this long, doubling, and then give up.
const (
	firstRetry = 2 * time.Second
	retries    = 5
)

// Recorder makes events. Its methods may be called from several goroutines; only
// that of Run talks to the API.
type Recorder struct {
	client rest.Interface
	node   string
	log    *slog.Logger
	limit  flowcontrol.RateLimiter
	queue  chan saying
	now    func() time.Time
	// pending are those in the queue and the one that is being sent.
	pending sync.WaitGroup

	mu      sync.Mutex
	told    map[string]telling // by the event's namespace and name
	refused bool               // that the API refuses events was logged
}

// telling is how often something was said, and when last.
type telling struct {
	count int32
	last  time.Time
}

// saying is an event to be sent.
type saying struct {
	about string // what is not said again for a while; the event's name, unless others may have made that

	of           corev1.ObjectReference
	namespace    string // the event's own
	name         string // the event's own
	kind         string // Normal or Warning
	action       string
	reason, note string
	at           time.Time
	count        int32 // how often this process has said it
}

func (w saying) key() string { return w.namespace + "/" + w.about }

// New returns a Recorder for a node; Run sends what it is told. The client is that of
// events.k8s.io/v1, and should have no other user: its rate limit is shared.
func New(client rest.Interface, node string, log *slog.Logger) *Recorder {
	return &Recorder{
		client: client,
		node:   node,
		log:    log,
		limit:  flowcontrol.NewTokenBucketRateLimiter(perSecond, burst),
		queue:  make(chan saying, maxQueued),
		now:    time.Now,
		told:   make(map[string]telling),
	}
}

// Warn implements controller.Events.
func (r *Recorder) Warn(s *model.Service, reason, about, note string) {
	sum := sha256.Sum256([]byte(string(s.UID) + "\n" + reason + "\n" + about))
	name := s.Name.Name + "." + hex.EncodeToString(sum[:8])
	r.say(saying{
		of: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Service", Namespace: s.Name.Namespace, Name: s.Name.Name, UID: s.UID,
		},
		namespace: s.Name.Namespace,
		name:      name,
		about:     name,
		kind:      corev1.EventTypeWarning,
		action:    "Programming",
		reason:    reason,
		note:      note,
	})
}

// Node says something of this node, each time in an event of its own: nobody else
// speaks of it. kind is Normal or Warning. As with the kubelet's own events of its node
// the node's name stands for its UID, by which kubectl describe node finds them.
func (r *Recorder) Node(kind, reason, note string) {
	sum := sha256.Sum256(fmt.Append(nil, reason, "\n", note, "\n", r.now().UnixNano()))
	name := r.node + "." + hex.EncodeToString(sum[:8])
	about := reason + " " + note
	if kind == corev1.EventTypeNormal {
		about = name
	}
	r.say(saying{
		of:        corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: r.node, UID: types.UID(r.node)},
		namespace: metav1.NamespaceDefault, // of what has none
		name:      name,
		about:     about,
		kind:      kind,
		action:    "StartKubeProxy",
		reason:    reason,
		note:      note,
	})
}

// say queues what was not said just now.
func (r *Recorder) say(w saying) {
	w.at = r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.told[w.key()]
	if before.count > 0 && w.at.Sub(before.last) < quiet {
		return
	}
	w.count = before.count + 1
	r.pending.Add(1)
	select {
	case r.queue <- w:
		r.remember(w)
	default:
		r.pending.Done()
	}
}

// remember notes that something was said.
func (r *Recorder) remember(w saying) {
	if len(r.told) >= maxTold {
		maps.DeleteFunc(r.told, func(_ string, t telling) bool { return w.at.Sub(t.last) > forget })
	}
	if len(r.told) >= maxTold {
		clear(r.told) // to say something twice does no harm
	}
	r.told[w.key()] = telling{w.count, w.at}
}

// Run sends events until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	// What client-go has to say of a request is said here.
	ctx = logr.NewContext(ctx, logr.Discard())
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-r.queue:
			r.deliver(ctx, w)
			r.pending.Done()
		}
	}
}

// Drain waits until all is sent that was said, but not for longer than limit.
func (r *Recorder) Drain(limit time.Duration) {
	done := make(chan struct{})
	go func() {
		r.pending.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// deliver sends one event, and again if the API does not answer.
func (r *Recorder) deliver(ctx context.Context, w saying) {
	delay := firstRetry
	for try := 0; ; try++ {
		if r.limit.Wait(ctx) != nil {
			return
		}
		err := r.send(ctx, w)
		if !temporary(err) || try == retries {
			r.settle(w, err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
			delay *= 2
		}
	}
}

// temporary reports whether it may help to ask again.
func temporary(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err != nil
	}
	code := status.Status().Code
	return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests
}

// settle notes how it went.
func (r *Recorder) settle(w saying, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		if r.refused {
			r.refused = false
			r.log.Info("Kubernetes API takes events now")
		}
		return
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		if !r.refused {
			r.refused = true
			r.log.Warn("Kubernetes API takes no events, all else goes on; what they would say is in this log", "err", err,
				"mend", "allow this user to create and patch events.events.k8s.io")
		}
	default:
		r.log.Debug("event dropped", "of", w.of.Kind+" "+w.of.Namespace+"/"+w.of.Name, "reason", w.reason, "err", err)
	}
	delete(r.told, w.key()) // so that it is tried when it is said again
}
