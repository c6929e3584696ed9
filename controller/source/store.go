// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// store passes on what a Reflector puts into it, and remembers nothing but
// names. One Reflector calls it, from one goroutine at a time.
type store[T metav1.Object] struct {
	strip  func(T)
	set    func(T)
	gone   func(types.NamespacedName)
	listed func() // called after every complete list

	// goneFirst is the order within a list. A Service that went frees its
	// addresses before another one claims them; an endpoint that moved from one
	// slice to another must be in the second before it leaves the first.
	goneFirst bool

	// known are the objects that were handed on and are not known to be gone.
	known map[types.NamespacedName]struct{}
	// complete is set after the first list: before it nothing is known to be gone.
	complete bool
}

var _ cache.TransformingStore = &store[metav1.Object]{}

// Add implements cache.ReflectorStore.
func (s *store[T]) Add(obj any) error { return s.put(obj) }

// Update implements cache.ReflectorStore.
func (s *store[T]) Update(obj any) error { return s.put(obj) }

func (s *store[T]) put(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("unexpected %T", obj)
	}
	s.handOn(o)
	return nil
}

func (s *store[T]) handOn(o T) {
	if s.known == nil {
		s.known = map[types.NamespacedName]struct{}{}
	}
	s.known[nameOf(o)] = struct{}{}
	s.strip(o)
	s.set(o)
}

// Delete implements cache.ReflectorStore.
func (s *store[T]) Delete(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("unexpected %T", obj)
	}
	delete(s.known, nameOf(o))
	s.gone(nameOf(o))
	return nil
}

// Replace implements cache.ReflectorStore: list is all there is.
func (s *store[T]) Replace(list []any, _ string) error {
	names := make(map[types.NamespacedName]struct{}, len(list))
	for _, obj := range list {
		switch o := obj.(type) {
		case T:
			names[nameOf(o)] = struct{}{}
		case handed:
			names[types.NamespacedName(o)] = struct{}{}
		default:
			return fmt.Errorf("unexpected %T", obj)
		}
	}
	if s.goneFirst {
		s.forget(names)
	}
	for i, obj := range list {
		list[i] = nil // the receiver may be done with it before the list is
		if o, ok := obj.(T); ok {
			s.handOn(o)
		}
	}
	if !s.goneFirst {
		s.forget(names)
	}
	s.complete = true
	s.listed()
	return nil
}

// forget reports as gone what is known and not among the names.
func (s *store[T]) forget(names map[types.NamespacedName]struct{}) {
	for name := range s.known {
		if _, ok := names[name]; !ok {
			delete(s.known, name)
			s.gone(name)
		}
	}
}

// Resync implements cache.ReflectorStore; nothing is kept that could be sent again.
func (s *store[T]) Resync() error { return nil }

// handed stands in a streamed list for an object that was handed on as it came.
type handed types.NamespacedName

// Transformer implements cache.TransformingStore. A Reflector collects a streamed list
// before it hands it over. All objects of a large cluster at once would be by far the
// most memory that we ever need, so each is handed on as it comes and the list gets
// its name, unless those that are gone have to go first.
func (s *store[T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		o, ok := obj.(T)
		switch {
		case !ok:
			return obj, nil
		case s.goneFirst && s.complete:
			s.strip(o)
			return o, nil
		}
		name := handed(nameOf(o))
		s.handOn(o)
		return name, nil
	}
}

func nameOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// latch calls done when it has been counted down. It is safe for concurrent use.
type latch struct {
	mu   sync.Mutex
	left int
	done func()
}

func (l *latch) count() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left--; l.left == 0 {
		l.done()
	}
}
