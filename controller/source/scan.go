// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
	"time"
)

// stamp tells whether a file may have changed, without reading it. The zero
// value differs from that of every file.
type stamp struct {
	device, inode uint64
	size          int64
	modified      time.Time
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), modified: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = uint64(sys.Dev), sys.Ino
	}
	return s
}

var hashSeed = maphash.MakeSeed()

// scan reads what changed since the last scan. Its error is that of path as a
// whole; those of single files are logged.
func (d *dir) scan() error {
	names, err := Manifests(d.path)
	if err != nil {
		return err
	}
	present := make(map[string]bool, len(names))
	for _, name := range names {
		f := d.files[name]
		if f == nil {
			f = &file{}
			d.files[name] = f
		}
		err := d.refresh(name, f)
		if _, here := os.Lstat(name); err != nil && errors.Is(here, fs.ErrNotExist) && name != d.path {
			continue // it went away after we listed it
		}
		present[name] = true
		if err != nil {
			if name == d.path {
				return fmt.Errorf("read manifests: %w", err)
			}
			d.fault(f, "manifest cannot be read: what it said before stays in force", err)
		}
	}
	if _, err := os.Stat(d.path); err != nil {
		return fmt.Errorf("read manifests: %w", err) // it went away while we read: its files say nothing by that
	}
	for name := range d.files {
		if !present[name] {
			delete(d.files, name)
			d.changed = true
		}
	}
	return nil
}

// refresh reads a file if it may have changed. Its error says that the file
// could not be read.
func (d *dir) refresh(name string, f *file) error {
	info, err := os.Stat(name) // follows links: what counts is what they lead to
	if err != nil {
		return err
	}
	now := stampOf(info)
	if now == f.stamp {
		return nil
	}
	if now.size == 0 && len(f.entries) > 0 && time.Since(now.modified) < d.timing.emptied {
		return nil // truncated, and perhaps about to be written; the next poll will tell
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	f.stamp = now
	sum := maphash.Bytes(hashSeed, data)
	if sum == f.sum && f.trouble == "" {
		return nil
	}
	f.sum = sum
	d.accept(name, f, data)
	return nil
}

// accept makes data what the file says, unless something is wrong with it.
func (d *dir) accept(name string, f *file, data []byte) {
	m := parseManifest(name, data, d.opts.Check)
	if len(m.errs) > 0 {
		d.fault(f, "manifest is wrong: what the file said before stays in force; mend it and save", m.errs...)
		return
	}
	if f.trouble != "" {
		f.trouble = ""
		d.opts.Logger.Info("manifest is in force", "file", name)
	}
	tellIgnored(d.opts.Logger, name, m)
	d.changed = true
	f.entries = make(map[objectKey]entry, len(m.objects))
	for _, o := range m.objects {
		f.entries[o.key] = entry{line: o.line, data: encode(o.object)}
	}
}

// fault logs what is wrong with a file, once for as long as it stays the same.
func (d *dir) fault(f *file, message string, errs ...error) {
	trouble := fmt.Sprint(errs)
	if f.trouble == trouble {
		return
	}
	f.trouble = trouble
	for _, err := range errs {
		d.opts.Logger.Error(message, "err", err)
	}
}

// deprecated are kinds that look as if they would work, and what to use instead.
var deprecated = map[string]string{
	"v1 Endpoints":                           "discovery.k8s.io/v1 EndpointSlice",
	"v1 EndpointsList":                       "discovery.k8s.io/v1 EndpointSlice",
	"discovery.k8s.io/v1beta1 EndpointSlice": "discovery.k8s.io/v1 EndpointSlice",
}

// tellIgnored logs the kinds of objects in a file that are not used.
func tellIgnored(log *slog.Logger, name string, m manifest) {
	others := m.others()
	for _, other := range others {
		if instead := deprecated[other]; instead != "" {
			log.Warn("manifest holds objects of a kind that is not used: write another one",
				"file", fmt.Sprintf("%s:%d", name, m.ignored[other]), "kind", other, "instead", instead)
		}
	}
	if len(others) > 0 {
		log.Info("manifest holds objects that a Service proxy has no use for", "file", name, "kinds", others)
	}
}
