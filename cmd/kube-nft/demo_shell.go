// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// background is how many connections a second the demo sends on each route while
// somebody looks around.
const background = 5

// shell lets the user look around on the demo's node while connections flow.
func (d *demonstration) shell(ctx context.Context) error {
	if !d.options.shell {
		return nil
	}
	dir, err := os.MkdirTemp("", "kube-nft-demo-")
	if err != nil {
		return fmt.Errorf("a place for this program in the shell's PATH: %w", err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, "kube-nft"))
	}
	if err != nil {
		return fmt.Errorf("this program in the shell's PATH: %w", err)
	}
	s := d.screen
	s.heading("A shell on the node; leave it with exit")
	d.suggest()
	flow, stop := context.WithCancel(ctx)
	defer stop()
	var sending sync.WaitGroup
	sent := new(atomic.Uint32)
	for _, r := range append(routes(d.services, d.cluster), d.clusterIPRoutes()...) {
		sending.Go(func() { d.keepSending(flow, r, sent) })
	}
	cmd := d.cluster.node.Command(ctx, shellProgram(), shellArgs()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"), `PS1=\u@`+nodeName+` # `)
	err = cmd.Run()
	stop()
	sending.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil // of the last command in it
	}
	return err
}

// shellProgram is the shell, and shellArgs keep it from files that set another prompt.
func shellProgram() string {
	if path, err := exec.LookPath("bash"); err == nil {
		return path
	}
	return "/bin/sh"
}

func shellArgs() []string {
	if strings.HasSuffix(shellProgram(), "bash") {
		return []string{"--norc", "--noprofile"}
	}
	return nil
}

// What keepSending sends comes from ports that nothing else of the demo uses, see
// firstProbe: the kernel may have tracked it while there was no table.
const (
	firstKept = 10000
	keptPorts = 10000
)

// keepSending opens connections on a route until ctx ends, each from the next of these
// ports; sent counts those of all routes. Who looks around may well break something: failures
// are theirs to see.
func (d *demonstration) keepSending(ctx context.Context, r route, sent *atomic.Uint32) {
	for i := 0; wait(ctx, time.Second/background) == nil; i++ {
		port := uint16(firstKept + sent.Add(1)%keptPorts)
		_, _ = r.from.Ask(ctx, network(r.port.Protocol), r.addrs[i%len(r.addrs)], netlab.Timeout(askTimeout), netlab.FromPort(port))
	}
}

// suggest says what may be worth a try, with addresses of the Services that there are.
func (d *demonstration) suggest() {
	s := d.screen
	rows := [][]string{{"kube-nft list", "what the kernel has"}}
	i := slices.IndexFunc(d.services, func(s *demoService) bool { return len(s.pods) > 0 })
	if i >= 0 {
		service := d.services[i]
		to := service.ClusterIPs[0].String()
		if !service.ClusterIPs[0].IsValid() {
			to = "[" + service.ClusterIPs[1].String() + "]"
		}
		at := fmt.Sprintf("%s:%d", to, service.Ports[0].Port)
		rows = append(rows,
			[]string{"kube-nft explain " + service.Name.String(), "why each endpoint is in or out"},
			[]string{fmt.Sprintf("kube-nft explain %s %s", clientAddrs[0], at), "what becomes of such a packet"},
			[]string{fmt.Sprintf("kube-nft trace %s %s", clientAddrs[0], at), "what becomes of a real one"},
		)
	}
	rows = append(rows,
		[]string{"kube-nft top", "who gets how much; q ends it"},
		[]string{"kube-nft doctor", "what is wrong with this host"},
		[]string{"nft flush ruleset; kube-nft list", "is it back already?"},
		[]string{"nft list ruleset", "the table itself"},
	)
	s.line("The client and the shop send connections to all Services meanwhile. Try:")
	s.line("")
	s.columns("   ", rows)
	s.line("")
}
