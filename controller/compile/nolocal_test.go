// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"testing"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// TestNoLocal follows one Service, and one beside it that never counts.
func TestNoLocal(t *testing.T) {
	both := NoLocal{Internal: 1, External: 1}
	steps := []struct {
		name               string
		internal, external bool
		all, local         []int
		want               NoLocal
	}{
		{"policies Cluster", false, false, []int{1}, nil, NoLocal{}},
		{"internal Local", true, false, []int{1}, nil, NoLocal{Internal: 1}},
		{"external Local", false, true, []int{1}, nil, NoLocal{External: 1}},
		{"both", true, true, []int{1}, nil, both},
		{"the same again", true, true, []int{1}, nil, both},
		{"one is here", true, true, []int{1, 2}, []int{2}, NoLocal{}},
		{"it only terminates here", true, true, []int{1}, []int{2}, NoLocal{}},
		{"none at all is refused", true, true, nil, nil, NoLocal{}},
		{"elsewhere again", true, true, []int{1}, nil, both},
	}
	table := NewTable(nft.IPv4)
	table.Set(newService("cluster", 1, ""), selecting(1))
	s := newService("local", 1, "192.0.2.1")
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			s.InternalLocal, s.ExternalLocal = step.internal, step.external
			table.Set(s, func(*model.ServicePort) model.Selection {
				return model.Selection{Cluster: endpoints(step.all...), Local: endpoints(step.local...)}
			})
			if got := table.NoLocal(); got != step.want {
				t.Errorf("%+v, want %+v", got, step.want)
			}
		})
	}
	table.Delete(s.Name)
	if got := table.NoLocal(); got != (NoLocal{}) {
		t.Errorf("of a deleted Service remains %+v", got)
	}
}
