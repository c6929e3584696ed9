// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// imageName is what the image is called on the node.
const imageName = "registry.test/kube-nft:test"

// contents is what a docker-archive holds: how the image runs, and the files of its
// layers.
type contents struct {
	config config
	files  map[string]int64 // permissions
}

type config struct {
	Entrypoint, Cmd []string
	User            string
}

// TestImage shows that the image is the program and nothing else.
func TestImage(t *testing.T) {
	image := read(t, build(t))
	if diff := cmp.Diff(map[string]int64{"kube-nft": 0o755}, image.files); diff != "" {
		t.Errorf("files, -want +got:\n%s", diff)
	}
	// Without the user 0 the process would lose its capability.
	want := config{Entrypoint: []string{"/kube-nft"}, Cmd: []string{"run"}, User: ""}
	if diff := cmp.Diff(want, image.config); diff != "" {
		t.Errorf("configuration, -want +got:\n%s", diff)
	}
}

// read returns what an archive of one image holds.
func read(t *testing.T, archive string) contents {
	t.Helper()
	var manifest []struct {
		Config string
		Layers []string
	}
	decode(t, archive, "manifest.json", &manifest)
	if len(manifest) != 1 {
		t.Fatalf("%d images, want 1", len(manifest))
	}
	var image struct{ Config config }
	decode(t, archive, manifest[0].Config, &image)
	c := contents{config: image.Config, files: make(map[string]int64)}
	for _, layer := range manifest[0].Layers {
		entry(t, archive, layer, func(r io.Reader) error {
			return walk(r, func(h *tar.Header, _ io.Reader) error {
				c.files[h.Name] = h.Mode & 0o777
				return nil
			})
		})
	}
	return c
}

func decode(t *testing.T, archive, name string, out any) {
	t.Helper()
	entry(t, archive, name, func(r io.Reader) error { return json.NewDecoder(r).Decode(out) })
}

// entry reads a file of an archive.
func entry(t *testing.T, archive, name string, read func(io.Reader) error) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := false
	err = walk(f, func(h *tar.Header, r io.Reader) error {
		if h.Name != name {
			return nil
		}
		found = true
		return read(r)
	})
	if err != nil || !found {
		t.Fatalf("read %s of %s: found %v, %v", name, archive, found, err)
	}
}

// walk calls do for each entry of a tar file.
func walk(from io.Reader, do func(*tar.Header, io.Reader) error) error {
	r := tar.NewReader(from)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(h, r); err != nil {
			return err
		}
	}
}
