// SPDX-License-Identifier: Apache-2.0

package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Running is a proxy that runs on a node.
type Running struct {
	Peer  peer.Peer
	Began time.Time

	cmd    *netlab.Cmd
	output string
	done   chan struct{} // closed when it has ended
}

// Start starts a proxy on the node.
func (n *Node) Start(ctx context.Context, p peer.Peer) (*Running, error) {
	return n.StartUnder(ctx, p)
}

// StartUnder starts a proxy as the last arguments of another program, such as one that
// traces it. The process is that other one.
func (n *Node) StartUnder(ctx context.Context, p peer.Peer, wrapper ...string) (*Running, error) {
	program, err := p.Program(ctx, n.api.log)
	if err != nil {
		return nil, err
	}
	launch, err := p.Launch(program, peer.Node{
		Name: n.Name, Kubeconfig: n.api.Kubeconfig(User), ClusterCIDR: shape.ClusterCIDR.String(), Dir: n.dir,
	})
	if err != nil {
		return nil, err
	}
	words := append(append(wrapper[:len(wrapper):len(wrapper)], launch.Path), launch.Args...)
	r := &Running{Peer: p, output: filepath.Join(n.dir, fmt.Sprintf("output-%d", len(n.running))), done: make(chan struct{})}
	out, err := os.Create(r.output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	r.cmd = n.Router.Command(context.WithoutCancel(ctx), words[0], words[1:]...)
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.Env = out, out, launch.Env
	r.Began = time.Now()
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	go func() {
		_ = r.cmd.Wait() // killed, as a rule
		close(r.done)
	}()
	n.running = append(n.running, r)
	return r, nil
}

// PID is that of the process, which may have children.
func (r *Running) PID() int { return r.cmd.Process.Pid }

// Stop asks the proxy to end, and kills it if it does not.
func (r *Running) Stop(within time.Duration) error {
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	select {
	case <-r.done:
		return nil
	case <-time.After(within):
		return r.Kill()
	}
}

// Kill ends the proxy at once; it may have ended. Its tables stay.
func (r *Running) Kill() error {
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-r.done
	return nil
}

// Gone returns an error if the proxy has ended, with its last words.
func (r *Running) Gone() error {
	select {
	case <-r.done:
		return fmt.Errorf("%s has ended: %v: %s", r.Peer.Name, r.cmd.ProcessState, r.Tail(5))
	default:
		return nil
	}
}

// Output is all that it has written.
func (r *Running) Output() string {
	text, err := os.ReadFile(r.output)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Tail returns the last lines of it.
func (r *Running) Tail(lines int) string {
	all := strings.SplitAfter(r.Output(), "\n")
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}
