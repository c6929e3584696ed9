// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// timing says when a watched directory is looked at.
type timing struct {
	settle  time.Duration // after an event, until no other one came for as long
	longest time.Duration // after an event, however many others come
	poll    time.Duration // without any event
	emptied time.Duration // that a file may be empty before it is taken at its word
}

// defaultTiming: an editor's dance around a file is over in some milliseconds;
// polling is for file systems that send no events, and costs a stat per file.
var defaultTiming = timing{
	settle:  50 * time.Millisecond,
	longest: time.Second,
	poll:    2 * time.Second,
	emptied: 2 * time.Second,
}

// watcher tells when the manifests at a path may have changed. It watches
// directories, never files: those are replaced by others of the same name.
type watcher struct {
	timing  timing
	log     *slog.Logger
	dir     string
	inode   stamp             // the directory that is watched
	notify  *fsnotify.Watcher // nil where there is none; polling remains
	touched map[string]bool   // paths that the last events named
}

// newWatcher watches path, or the directory that it is in. Its error says that
// path is not there; all else that fails only means that changes are seen later.
func newWatcher(path string, t timing, log *slog.Logger) (*watcher, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	w := &watcher{timing: t, log: log, dir: path}
	if !info.IsDir() {
		w.dir = filepath.Dir(path)
	}
	w.notify, err = fsnotify.NewWatcher()
	if err != nil {
		log.Warn("manifests are polled: no file notifications", "interval", t.poll, "err", err)
		return w, nil
	}
	w.follow()
	return w, nil
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close() // nothing is lost with it
	}
}

// follow watches the directory that is at the path now, which need not be the
// one that was there before.
func (w *watcher) follow() {
	if w.notify == nil {
		return
	}
	info, err := os.Stat(w.dir)
	if err != nil {
		w.inode = stamp{}
		return
	}
	now := stampOf(info)
	now.size, now.modified = 0, time.Time{}
	if now == w.inode {
		return
	}
	_ = w.notify.Remove(w.dir) // it may not be watched any more
	if err := w.notify.Add(w.dir); err != nil {
		w.log.Warn("manifests are polled: cannot watch the directory", "path", w.dir, "interval", w.timing.poll, "err", err)
	}
	w.inode = now
}

// wait blocks until something may have changed, and reports false when ctx has
// ended. Events that come in a bunch are one.
func (w *watcher) wait(ctx context.Context) bool {
	var events chan fsnotify.Event
	var errs chan error
	if w.notify != nil {
		events, errs = w.notify.Events, w.notify.Errors
	}
	w.touched = map[string]bool{}
	var latest time.Time
	timer := time.NewTimer(w.timing.poll)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			w.follow()
			return true
		case event := <-events:
			if event.Op == fsnotify.Chmod {
				continue // times and modes say nothing about content; polling sees the rest
			}
			w.touched[filepath.Join(w.dir, filepath.Base(event.Name))] = true
		case err := <-errs:
			w.log.Debug("file notifications were lost", "path", w.dir, "err", err)
		}
		if latest.IsZero() {
			latest = time.Now().Add(w.timing.longest)
		}
		timer.Reset(min(w.timing.settle, time.Until(latest)))
	}
}
