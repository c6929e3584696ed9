// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// restartManager starts a kube-controller-manager with the controllers of the
// configuration. It starts anew with the API server, as one does that has lost its
// leadership meanwhile.
func (c *Cluster) restartManager(ctx context.Context) (err error) {
	if len(c.config.Controllers) == 0 {
		return nil
	}
	if err := c.manager.stop(); err != nil {
		return err
	}
	c.manager, err = c.run(ctx, "kube-controller-manager", c.config.Binaries.ControllerManager, []string{
		"--kubeconfig=" + c.Kubeconfig(Admin),
		"--controllers=" + strings.Join(c.config.Controllers, ","),
		"--leader-elect=false",
		"--secure-port=0", // nobody asks it anything
		"--use-service-account-credentials=false",
		"--service-account-private-key-file=accounts.key",
		"--root-ca-file=ca.crt",
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
	})
	return err
}

// Kubectl runs kubectl as Admin in the cluster's network namespace, with a text as
// its standard input, and returns its output.
func (c *Cluster) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	paths, err := Build(ctx, c.config.Log, Kubectl)
	if err != nil {
		return "", err
	}
	all := append([]string{"--kubeconfig=" + c.Kubeconfig(Admin), "--cache-dir=" + filepath.Join(c.dir, "kubectl")}, args...)
	cmd := c.config.Command(ctx, paths[0], all...)
	var stderr strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
