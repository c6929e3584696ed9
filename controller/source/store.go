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

	known map[types.NamespacedName]struct{} // nil until the first list
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
	if s.known == nil {
		s.known = map[types.NamespacedName]struct{}{}
	}
	s.known[nameOf(o)] = struct{}{}
	s.strip(o)
	s.set(o)
	return nil
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
		o, ok := obj.(T)
		if !ok {
			return fmt.Errorf("unexpected %T", obj)
		}
		names[nameOf(o)] = struct{}{}
	}
	before := s.known
	s.known = names
	if s.goneFirst {
		s.forget(before)
	}
	for i, obj := range list {
		o := obj.(T)
		list[i] = nil // the receiver may be done with it before the list is
		s.strip(o)
		s.set(o)
	}
	if !s.goneFirst {
		s.forget(before)
	}
	s.listed()
	return nil
}

// forget reports as gone what was known before and is not known now.
func (s *store[T]) forget(before map[types.NamespacedName]struct{}) {
	for name := range before {
		if _, ok := s.known[name]; !ok {
			s.gone(name)
		}
	}
}

// Resync implements cache.ReflectorStore; nothing is kept that could be sent again.
func (s *store[T]) Resync() error { return nil }

// Transformer implements cache.TransformingStore: a streamed list collects
// objects before it hands them over, and collects them stripped.
func (s *store[T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, ok := obj.(T); ok {
			s.strip(o)
		}
		return obj, nil
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
