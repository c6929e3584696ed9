// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// DirOptions configure manifests as a source.
type DirOptions struct {
	NodeName string       // the Node to deliver; empty = none
	Logger   *slog.Logger // nil = slog.Default()

	// Check is asked about every object, defaulted and not yet stripped; its
	// error makes the file as bad as broken syntax does. An error whose text
	// begins with a field path, as in "spec.ports[0].port: ...", is reported with
	// the line of that field; joined errors with a line each. nil = no check.
	Check func(runtime.Object) error
}

// Dir returns a Source that follows the manifests in a directory, or in a single
// file: Services, EndpointSlices, ServiceCIDRs and the own Node, as YAML or JSON.
//
//  1. A file counts as a whole. While anything in it is wrong, what it said
//     before stays in force, and the other files are not affected. The fault is
//     logged once, with file and line.
//  2. Of an object that is in two files, the one in the file that is first by
//     name counts. The other is logged, and takes over when the first one goes.
//  3. Only differences are delivered.
//  4. A path that cannot be read is an error of Run when it starts; later, what
//     was read before stays in force.
//
// Files are best replaced by renaming another one onto them, as editors and the
// kubelet do. One that is written in place may be read half way: it is given a
// moment to settle, and an emptied one a few seconds.
func Dir(path string, opts DirOptions) Source {
	return newDir(path, opts)
}

func newDir(path string, opts DirOptions) *dir {
	opts.Logger = cmp.Or(opts.Logger, slog.Default())
	return &dir{
		path:      filepath.Clean(path),
		opts:      opts,
		files:     map[string]*file{},
		delivered: map[objectKey]string{},
		shadowed:  map[shadow]string{},
		timing:    defaultTiming,
	}
}

// ReadDir reads the manifests at path once and returns their objects in order of
// file name and place. The errors of all files are joined; what is returned
// beside an error is what Dir would deliver at start.
func ReadDir(path string, opts DirOptions) ([]runtime.Object, error) {
	log := cmp.Or(opts.Logger, slog.Default())
	names, err := Manifests(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	var objects []runtime.Object
	var errs []error
	from := map[objectKey]*ManifestError{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m := parseManifest(name, data, opts.Check)
		errs = append(errs, m.errs...)
		if len(m.errs) > 0 {
			continue
		}
		tellIgnored(log, name, m)
		for _, o := range m.objects {
			here := &ManifestError{File: name, Line: o.line, Object: o.key.String()}
			if first, ok := from[o.key]; ok {
				here.Err = fmt.Errorf("said twice, first in %s:%d", first.File, first.Line)
				errs = append(errs, here)
				continue
			}
			from[o.key] = here
			if o.key.kind != kindNode || o.key.Name == opts.NodeName {
				objects = append(objects, o.object)
			}
		}
	}
	return objects, errors.Join(errs...)
}

// dir is the Dir source. Its state belongs to the goroutine of Run.
//
// Of each object it keeps the encoded form, a few hundred bytes: that tells
// whether the object changed, and serves when another file's object of that name
// goes away while this file can no longer be read.
type dir struct {
	path   string
	opts   DirOptions
	timing timing

	files     map[string]*file // by path
	changed   bool             // files differ from what was delivered
	delivered map[objectKey]string
	shadowed  map[shadow]string // object of a file → the file that takes precedence, as logged
	lost      string            // why path cannot be read, as logged
}

// file is what is known of one manifest.
type file struct {
	stamp   stamp
	sum     uint64 // of the content that was read last
	entries map[objectKey]entry
	trouble string // why the file is not in force as it stands, as logged
}

// entry is an object as a file says it.
type entry struct {
	line int
	data string // its protobuf form
}

// shadow is an object of a file that another file's object hides.
type shadow struct {
	key  objectKey
	file string
}

// Run implements Source.
func (d *dir) Run(ctx context.Context, sink Sink) error {
	w, err := newWatcher(d.path, d.timing, d.opts.Logger)
	if err != nil {
		return err
	}
	defer w.close()
	if err := d.scan(); err != nil {
		return err
	}
	d.deliver(sink)
	sink.Synced()
	for w.wait(ctx) {
		for name := range w.touched {
			if f := d.files[name]; f != nil {
				f.stamp = stamp{} // what an event named is read again, whatever its times say
			}
		}
		err := d.scan()
		d.noteLost(err)
		if err == nil {
			d.deliver(sink)
		}
	}
	return nil
}

// noteLost logs that path cannot be read, or can again, when that changes.
func (d *dir) noteLost(err error) {
	switch {
	case err == nil && d.lost != "":
		d.lost = ""
		d.opts.Logger.Info("manifests can be read again", "path", d.path)
	case err != nil && err.Error() != d.lost:
		d.lost = err.Error()
		d.opts.Logger.Warn("manifests cannot be read: what they said before stays in force", "err", err)
	}
}

// deliver hands on what changed since the last time.
func (d *dir) deliver(sink Sink) {
	if !d.changed {
		return
	}
	d.changed = false
	wanted := d.wanted()
	for _, key := range sortedKeys(d.delivered) {
		if _, ok := wanted[key]; !ok && key.kind == kindService {
			sink.DeleteService(key.NamespacedName)
		}
	}
	for _, key := range sortedKeys(wanted) {
		if old, ok := d.delivered[key]; !ok || old != wanted[key] {
			set(sink, key, wanted[key])
		}
	}
	// After the rest: an endpoint may have moved from one slice to another, a range
	// from one ServiceCIDR to another.
	for _, key := range sortedKeys(d.delivered) {
		if _, ok := wanted[key]; ok {
			continue
		}
		switch key.kind {
		case kindSlice:
			sink.DeleteSlice(key.NamespacedName)
		case kindServiceCIDR:
			sink.DeleteServiceCIDR(key.Name)
		}
	}
	d.delivered = wanted
}

// wanted returns the objects in force, of all files, and logs the hidden ones.
func (d *dir) wanted() map[objectKey]string {
	wanted := make(map[objectKey]string, len(d.delivered))
	from := make(map[objectKey]string, len(d.delivered))
	shadowed := map[shadow]string{}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		entries := d.files[name].entries
		for _, key := range sortedKeys(entries) {
			if key.kind == kindNode && key.Name != d.opts.NodeName {
				continue
			}
			first, ok := from[key]
			if !ok {
				from[key], wanted[key] = name, entries[key].data
				continue
			}
			s := shadow{key: key, file: name}
			shadowed[s] = first
			if d.shadowed[s] != first {
				err := &ManifestError{File: name, Line: entries[key].line, Object: key.String(),
					Err: fmt.Errorf("said already in %s:%d, which counts", first, d.files[first].entries[key].line)}
				d.opts.Logger.Warn("object is in two manifests: take it out of one", "err", err)
			}
		}
	}
	d.shadowed = shadowed
	return wanted
}

// set decodes an object, so that the receiver owns it, and hands it on.
func set(sink Sink, key objectKey, data string) {
	o := newObject(key.kind)
	if err := o.(interface{ Unmarshal([]byte) error }).Unmarshal([]byte(data)); err != nil {
		panic(fmt.Sprintf("decode %s as we encoded it: %v", key, err))
	}
	switch o := o.(type) {
	case *corev1.Service:
		sink.SetService(o)
	case *discoveryv1.EndpointSlice:
		sink.SetSlice(o)
	case *corev1.Node:
		sink.SetNode(o)
	case *networkingv1.ServiceCIDR:
		sink.SetServiceCIDR(o)
	}
}

func encode(o runtime.Object) string {
	data, err := o.(interface{ Marshal() ([]byte, error) }).Marshal()
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", keyOf(o), err))
	}
	return string(data)
}

// sortedKeys returns keys in an order that puts Services before their endpoints.
func sortedKeys[V any](m map[objectKey]V) []objectKey {
	rank := map[kind]int{kindNode: 0, kindService: 1, kindSlice: 2, kindServiceCIDR: 3}
	return slices.SortedFunc(maps.Keys(m), func(a, b objectKey) int {
		if a.kind != b.kind {
			return rank[a.kind] - rank[b.kind]
		}
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
}

// Manifests returns the paths of the manifests at path, sorted: path itself
// unless that is a directory.
func Manifests(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !isManifest(e.Name()) {
			continue
		}
		name := filepath.Join(path, e.Name())
		// Follow links; leave out directories, and pipes on which reading would wait.
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
			continue
		}
		names = append(names, name)
	}
	return names, nil
}

// isManifest reports whether a directory entry of that name is one of ours; it
// leaves out what is hidden and what editors put beside a file.
func isManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#") && !strings.HasPrefix(name, "~")
	default:
		return false
	}
}
