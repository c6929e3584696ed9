// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// traceArgs have strace tell of what a program and its children write to the kernel's
// tables: by netlink, or by the option of a socket that is iptables-legacy's way.
func traceArgs(output string) []string {
	return []string{"strace", "-f", "-qq", "-yy", "-s", "32", "--seccomp-bpf", "-e", "trace=sendmsg,sendto,setsockopt", "-o", output}
}

// written is what a trace tells.
type written struct {
	bytes int64 // by netlink and by options
	dumps int64 // requests for whole lists
}

func (w written) minus(o written) written { return written{w.bytes - o.bytes, w.dumps - o.dumps} }

// readTrace reads a trace, of which the last line may be incomplete.
func readTrace(r io.Reader) (w written, err error) {
	lines := bufio.NewReaderSize(r, 1<<20)
	unfinished := make(map[string]string) // by process, what its call began with
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return w, nil
		}
		if err != nil {
			return w, err
		}
		pid, call, _ := strings.Cut(strings.TrimSpace(line), " ")
		call = strings.TrimSpace(call)
		if begin, ok := strings.CutSuffix(call, "<unfinished ...>"); ok {
			unfinished[pid] = begin
			continue
		}
		if strings.HasPrefix(call, "<... ") {
			_, end, _ := strings.Cut(call, "resumed>")
			call = unfinished[pid] + end
			delete(unfinished, pid)
		}
		w.count(call)
	}
}

// count adds one system call.
func (w *written) count(call string) {
	at := strings.LastIndex(call, " = ")
	if at < 0 {
		return
	}
	result, _, _ := strings.Cut(call[at+3:], " ")
	n, err := strconv.ParseInt(result, 10, 64)
	if err != nil || n < 0 {
		return
	}
	head, _, _ := strings.Cut(call, ",")
	switch {
	case strings.HasPrefix(call, "send") && strings.Contains(head, "<NETLINK:"):
		w.bytes += n
		if strings.Contains(call, "NLM_F_DUMP") {
			w.dumps++
		}
	case strings.HasPrefix(call, "setsockopt") && strings.Contains(call, "T_SO_SET_REPLACE"):
		args := strings.TrimSuffix(strings.TrimSpace(call[:at]), ")")
		size, _ := strconv.ParseInt(args[strings.LastIndex(args, " ")+1:], 10, 64)
		w.bytes += size
	}
}

// trace counts what the proxy writes to the kernel, in a pass of its own: it runs more
// slowly under strace.
func (v *visit) trace(ctx context.Context) (err error) {
	skip := result.Skip{Section: "start", Proxy: v.peer.Name, What: "bytes-written"}
	if _, err := exec.LookPath("strace"); err != nil {
		skip.Why = "strace is not installed"
		v.skip(skip)
		return nil
	}
	v.log.Info("counting what is written", "proxy", v.peer.Name, "shape", v.shape.Name)
	if v.node, err = v.api.NewNode(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.node.Close()) }()
	if v.crowd, err = newCrowd(v.node, v.shape); err != nil {
		return err
	}
	defer v.crowd.close()
	dir, err := os.MkdirTemp("", "kube-nft-trace-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, step := range []func(context.Context, string) error{v.traceStart, v.traceChanges, v.traceIdle, v.traceRestart} {
		if err := step(ctx, dir+"/trace"); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			skip.Shape, skip.Why = v.shape.Name, err.Error()
			v.skip(skip)
			return v.endTraced()
		}
	}
	return v.endTraced()
}

func (v *visit) traceStart(ctx context.Context, file string) (err error) {
	if v.proxy, err = v.node.StartUnder(ctx, v.peer, traceArgs(file)...); err != nil {
		return err
	}
	got, err := v.crowd.await(ctx, v.limit, v.proxy.Gone)
	if err != nil {
		return err
	}
	if got.left > 0 {
		return errors.New(got.notDone(v.limit))
	}
	v.settle(ctx)
	w, err := readFile(file)
	if err != nil {
		return err
	}
	v.addWritten("start", "", w, 1)
	return v.proxy.Gone()
}

// addWritten adds rows, by the number of changes that wrote it.
func (v *visit) addWritten(section, variant string, w written, changes int) {
	row := v.row(section, variant, "bytes-written", "B")
	if !v.peer.Netfilter() {
		row.Note = "by setsockopt, not by netlink"
	}
	v.add(row, float64(w.bytes)/float64(changes))
	v.add(v.row(section, variant, "dumps", "1"), float64(w.dumps)/float64(changes))
}

// tracedChanges is how many changes are counted.
const tracedChanges = 5

func (v *visit) traceChanges(ctx context.Context, file string) error {
	watch, err := startWatch(v.api, v.node, 3, v.versions)
	if err != nil {
		return err
	}
	defer watch.close()
	before, err := readFile(file)
	if err != nil {
		return err
	}
	for range tracedChanges {
		if _, err := watch.change(ctx, false, v.limit); err != nil {
			return err
		}
		v.pause(ctx, 0)
	}
	after, err := readFile(file)
	if err != nil {
		return err
	}
	v.addWritten("change", "replace", after.minus(before), tracedChanges)
	return nil
}

func (v *visit) traceIdle(ctx context.Context, file string) error {
	before, err := readFile(file)
	if err != nil {
		return err
	}
	v.sleep(ctx, v.plan.traceIdle)
	after, err := readFile(file)
	if err != nil {
		return err
	}
	row := v.row("idle", "", "dumps", "1")
	row.Note = fmt.Sprintf("in %v", v.plan.traceIdle)
	v.add(row, float64(after.dumps-before.dumps))
	return nil
}

func (v *visit) traceRestart(ctx context.Context, file string) error {
	if err := v.endTraced(); err != nil {
		return err
	}
	watch, err := startWatch(v.api, v.node, 3, v.versions)
	if err != nil {
		return err
	}
	defer watch.close()
	*watch.version++
	x := watch.expect()
	if _, err := watch.write(ctx, *watch.version); err != nil {
		return err
	}
	if v.proxy, err = v.node.StartUnder(ctx, v.peer, traceArgs(file)...); err != nil {
		return err
	}
	if _, err := x.await(ctx, v.limit); err != nil {
		return err
	}
	v.settle(ctx)
	w, err := readFile(file)
	if err != nil {
		return err
	}
	v.addWritten("restart", "", w, 1)
	return nil
}

// endTraced ends the proxy, which is strace's child, and strace with it.
func (v *visit) endTraced() error {
	if v.proxy == nil || v.proxy.Gone() != nil {
		return nil
	}
	for _, pid := range tree(v.proxy.PID())[1:] {
		_ = syscall.Kill(pid, syscall.SIGKILL) // an error says that it has ended
	}
	return v.proxy.Stop(5 * time.Second)
}

func readFile(path string) (written, error) {
	f, err := os.Open(path)
	if err != nil {
		return written{}, err
	}
	defer f.Close()
	return readTrace(f)
}
