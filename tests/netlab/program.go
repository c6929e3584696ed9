// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// GoBuild builds the program of a Go package, static, in a temporary directory of
// its own that is the caller's to remove, and returns its path. Other users may
// execute it.
func GoBuild(ctx context.Context, pkg string) (path string, err error) {
	name := filepath.Base(pkg)
	dir, err := os.MkdirTemp("", name+"-")
	if err != nil {
		return "", err
	}
	if err = os.Chmod(dir, 0o755); err == nil {
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", dir, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("build %s: %w\n%s", name, err, bytes.TrimSpace(out))
		}
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// Output collects what a program or a logger writes, to be read meanwhile. The zero
// value is empty.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

// String returns all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Lines returns the lines that hold all of the words.
func (o *Output) Lines(words ...string) (found []string) {
	for line := range strings.Lines(o.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			found = append(found, line)
		}
	}
	return found
}

// Count is the number of lines that hold all of the words.
func (o *Output) Count(words ...string) int { return len(o.Lines(words...)) }
