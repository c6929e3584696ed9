// SPDX-License-Identifier: Apache-2.0

package shape

import (
	"testing"
)

// TestStored: every object has a place and an identity of its own, and each Service an
// address that is written before it.
func TestStored(t *testing.T) {
	s, err := Parse("4x150")
	if err != nil {
		t.Fatal(err)
	}
	keys, ids := make(map[string]bool), make(map[string]string)
	for o := range s.Objects() {
		for _, stored := range withAddress(o) {
			p, err := newPut(stored)
			if err != nil {
				t.Fatal(err)
			}
			key, id := string(p.RequestPut.Key), string(stored.GetUID())
			if keys[key] || len(p.RequestPut.Value) == 0 {
				t.Errorf("%s is written twice, or nothing is", key)
			}
			keys[key] = true
			kind := stored.GetObjectKind().GroupVersionKind().Kind
			if len(id) != 36 || ids[kind+id] != "" {
				t.Errorf("%s has the identity %q, and so has %s", key, id, ids[kind+id])
			}
			ids[kind+id] = key
		}
	}
	services := 4 + 1 + Watched
	if want := 2*services + 2*4 + 1 + Watched; len(keys) != want {
		t.Errorf("%d objects, want %d", len(keys), want)
	}
	for _, key := range []string{"/registry/ipaddresses/10.1.0.3", "/registry/services/specs/default/service-000003", "/registry/endpointslices/default/service-000003-00001"} {
		if !keys[key] {
			t.Errorf("no %s", key)
		}
	}
}
