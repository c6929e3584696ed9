// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cmd is an exec.Cmd that starts its process in a namespace. The process is
// killed when the namespace is closed, unless SysProcAttr says otherwise; the
// processes that it started itself are not. Whoever called Start calls Wait.
type Cmd struct {
	*exec.Cmd
	namespace *Namespace
}

// Command returns a command that is to run in the namespace. Nothing is
// started yet; the fields of the embedded exec.Cmd may be set as usual.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	// Sent when the thread that forked ends: that is the thread of the namespace.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return &Cmd{Cmd: cmd, namespace: n}
}

// Start starts the process in the namespace and does not wait for it.
func (c *Cmd) Start() error {
	return c.namespace.Do(c.Cmd.Start)
}

// Run starts the process in the namespace and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process and returns its standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("standard output is set")
	}
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the process and returns its standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("standard output or error is set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Run runs a program in the namespace and returns its standard output. The
// error contains what it wrote to standard error.
func (n *Namespace) Run(name string, args ...string) (string, error) {
	return n.pipe(nil, name, args...)
}

// NFT runs "nft -f -" with the script in the namespace: all of it is applied,
// or nothing.
func (n *Namespace) NFT(script string) error {
	_, err := n.pipe(strings.NewReader(script), "nft", "-f", "-")
	return err
}

// Ruleset returns "nft list ruleset" of the namespace.
func (n *Namespace) Ruleset() (string, error) {
	return n.Run("nft", "list", "ruleset")
}

// IP runs "ip -batch" with the lines, each a command without the leading "ip",
// in the namespace. It stops at the first that fails.
func (n *Namespace) IP(lines ...string) error {
	script := strings.Join(lines, "\n") + "\n"
	if _, err := n.pipe(strings.NewReader(script), "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("%w in %q", err, lines)
	}
	return nil
}

// pipe runs a program in the namespace with the given input.
func (n *Namespace) pipe(in io.Reader, name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := n.Command(context.Background(), name, args...)
	cmd.Stdin, cmd.Stderr = in, &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %s: %w: %s",
			n.name, strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}
