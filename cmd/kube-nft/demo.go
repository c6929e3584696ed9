// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

func demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job in a terminal: real connections in network namespaces of its own",
		Long: `demo builds a node, pods and a client in network namespaces of its own, runs
kube-nft on that node with the Services of a directory, and sends connections
through the table. It needs root and the programs ip and nft, takes about ten
seconds, and leaves nothing behind: this host's network is not touched.`,
		Example: `  sudo kube-nft demo
  sudo kube-nft demo --manifests deploy/demo --short
  sudo kube-nft demo --shell`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Who loses the terminal wants nothing left behind either.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			return demo(ctx, cmd.OutOrStdout(), o)
		},
	}
	cmd.Flags().StringVar(&o.manifests, "manifests", "deploy/demo", "directory of Services and EndpointSlices; every endpoint becomes a pod")
	cmd.Flags().BoolVar(&o.short, "short", false, "do not print the table")
	cmd.Flags().BoolVar(&o.shell, "shell", false, "before the end, a shell on the node, to look around while connections flow")
	return cmd
}

type demoOptions struct {
	manifests string
	short     bool
	shell     bool
}

// demo checks what is needed, isolates itself, and goes through the script.
func demo(ctx context.Context, w io.Writer, o demoOptions) error {
	if err := demoNeeds(); err != nil {
		return err
	}
	services, err := readServices(o.manifests)
	if err != nil {
		return err
	}
	if !netlab.Isolated() {
		code, err := netlab.Isolate(os.Args)
		if err != nil {
			return fmt.Errorf("the demo cannot have a network of its own (in a container it needs --privileged): %w", err)
		}
		if code != exitOK {
			os.Exit(code) // the isolated process has said why
		}
		return nil
	}
	d := &demonstration{options: o, services: services, screen: newScreen(w), begin: time.Now()}
	err = d.play(ctx)
	d.screen.progress("")
	if ctx.Err() != nil {
		return errors.New("demo interrupted; its network is gone and nothing is left behind")
	}
	return err
}

// demoNeeds reports what this host lacks.
func demoNeeds() error {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces and needs root: sudo kube-nft demo")
	}
	var errs []error
	for _, need := range []struct{ program, pkg string }{{"ip", "iproute2"}, {"nft", "nftables"}} {
		if _, err := exec.LookPath(need.program); err != nil {
			errs = append(errs, fmt.Errorf("the demo needs the program %s in the PATH: apt-get install %s", need.program, need.pkg))
		}
	}
	return errors.Join(errs...)
}

// demonstration is one run of the demo.
type demonstration struct {
	options  demoOptions
	services []*demoService
	screen   *screen
	begin    time.Time
	cluster  *cluster
	copy     string // directory of the manifests that kube-nft follows
	proxy    *proxy

	connections int // sent and answered, over all steps
	refused     int // by the Services without endpoints, as they should be
}

// play goes through the steps. What they made is gone when it returns.
func (d *demonstration) play(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer func() {
		if d.cluster != nil {
			err = errors.Join(err, d.cluster.lab.Close())
		}
		if d.copy != "" {
			err = errors.Join(err, os.RemoveAll(d.copy))
		}
	}()
	steps := []func(context.Context) error{
		d.buildCluster,
		func(ctx context.Context) error { return d.startProxy(ctx, cancel) },
		d.sendTraffic,
		d.askNobody,
		d.scale,
		d.showTable,
		d.shell,
		d.stop,
	}
	d.screen.title("kube-nft demo: Kubernetes Services as one nftables table, with real connections")
	for _, step := range steps {
		if err := step(ctx); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause // why the step could not go on
			}
			return err
		}
	}
	return nil
}

func (d *demonstration) buildCluster(context.Context) error {
	s := d.screen
	s.heading("A node, its pods and a client, each in a network namespace of its own")
	var err error
	if d.cluster, err = newCluster(d.services); err != nil {
		return fmt.Errorf("build the demo's network: %w", err)
	}
	d.cluster.show(s)
	return nil
}

func (d *demonstration) startProxy(ctx context.Context, cancel context.CancelCauseFunc) error {
	s := d.screen
	s.heading("kube-nft run --manifests %s, on the node", d.options.manifests)
	var err error
	if d.copy, err = copyManifests(d.options.manifests); err != nil {
		return err
	}
	begin := time.Now()
	if d.proxy, err = startProxy(d.cluster.node, d.copy, cancel, s.note); err != nil {
		return err
	}
	for _, r := range d.clusterIPRoutes() {
		if err := r.await(ctx); err != nil {
			return fmt.Errorf("kube-nft runs, but %s, %s, is not served as it should be: %w", r.service.Name, portName(r.port), err)
		}
	}
	took := time.Since(begin)
	showServices(s, d.services)
	s.line("")
	s.line("All of them are served %s after the start of the process.", duration(took))
	return nil
}

func (d *demonstration) showTable(context.Context) error {
	if d.options.short {
		return nil
	}
	out, err := d.cluster.node.Ruleset()
	if err != nil {
		return err
	}
	s := d.screen
	s.heading("The table, as nft list ruleset prints it on the node")
	s.line("Rules are constant, Services are map elements. The map KUBE-SERVICES leads a")
	s.line("packet to KUBE-SVC-3, \"3 endpoints\", which draws one from the map KUBE-SEP.")
	s.line("")
	rules, summary := splitFamilies(out)
	s.verbatim(rules)
	if summary != "" {
		s.line("%s", summary)
	}
	return nil
}

// stop ends kube-nft, shows that traffic does not need it, and cleans up.
func (d *demonstration) stop(ctx context.Context) error {
	s := d.screen
	s.heading("Stop and clean up")
	if err := d.proxy.stop(); err != nil {
		return err
	}
	sent := 0
	for _, r := range routes(d.services, d.cluster) {
		t := r.send(ctx, 50)
		if t.Failed() > 0 {
			return fmt.Errorf("connections failed while kube-nft was stopped: %s", t)
		}
		sent += t.Answered()
	}
	d.connections += sent
	s.line("kube-nft stopped    the kernel goes on without it: %s connections, 0 failed", count(sent))
	out, err := d.cluster.node.Run("/proc/self/exe", "cleanup")
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	s.line("kube-nft cleanup    %s", joinLines(out))
	if out, err = d.cluster.node.Ruleset(); err != nil {
		return err
	}
	if out != "" {
		return fmt.Errorf("the ruleset is not empty after kube-nft cleanup:\n%s", out)
	}
	s.line("nft list ruleset    empty again")
	s.line("")
	asShould := ""
	if d.refused > 0 {
		asShould = fmt.Sprintf(", %d refused as they should be", d.refused)
	}
	s.good("%s connections answered, 0 failed%s; %s", count(d.connections), asShould, duration(time.Since(d.begin)))
	s.line("The network of this host was not touched.")
	return nil
}
