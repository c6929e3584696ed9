// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// containerd is one that belongs to a node: it runs in its network namespace, and
// in mount and process id namespaces of its own.
type containerd struct {
	dir  string // below which are all of its files, and log
	cri  string // the program that speaks to it
	cmd  *netlab.Cmd
	done chan struct{} // closed when it has ended
}

// configuration is that of containerd where it differs from the defaults. Limits are
// not set, which takes more of the machine's cgroups than tests should. The score for
// the kernel's search of a victim is not lowered where root may not: runc would fail.
var configuration = template.Must(template.New("").Parse(`version = 2
root = "{{.Dir}}/root"
state = "{{.Dir}}/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt", # would make /opt/containerd
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{{.Dir}}/socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{.Pause}}"
  disable_cgroup = true
  disable_apparmor = true
  restrict_oom_score_adj = {{.RestrictScore}}
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{{.Dir}}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native" # works on every file system
`))

// startContainerd returns one that answers. On error it may be one that has ended.
func startContainerd(ctx context.Context, config Config, dir string) (*containerd, error) {
	c := &containerd{dir: dir, cri: config.Tools.cri(), done: make(chan struct{})}
	var text bytes.Buffer
	err := configuration.Execute(&text, struct {
		Dir, Pause    string
		RestrictScore bool
	}{dir, pauseName, !mayLowerScore()})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "cni"), 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		return nil, err
	}
	if err := c.start(config.Net, file); err != nil {
		return nil, err
	}
	return c, netlab.Poll(limit, func() error {
		if c.ended() {
			return fmt.Errorf("containerd has ended: %v", c.cmd.ProcessState)
		}
		return c.call(ctx, "Version", struct{}{}, nil)
	})
}

// start starts containerd as the first process of a namespace of process ids, all
// of which end with it: so do the containers.
func (c *containerd) start(node *netlab.Namespace, file string) error {
	// A network namespace has one sysfs, which is read-only in all containers if it is
	// so in the first. That of a machine is not.
	const script = emptied + `mount -t proc proc /proc && mkdir /run/sys && mount -t sysfs sysfs /run/sys &&
		exec containerd --config "$0" --log-level warn`
	c.cmd = node.Command(context.Background(), "sh", "-c", script, file)
	c.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	c.cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = c.cmd.Wait() // killed, as a rule
		close(c.done)
	}()
	return nil
}

// stop kills containerd and with it all containers: the first process of a namespace
// is gone only after the others. It may have ended, and be nil.
func (c *containerd) stop() error {
	if c == nil {
		return nil
	}
	_ = c.cmd.Process.Kill() // an error says that it has ended
	<-c.done
	return nil
}

func (c *containerd) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *containerd) log() string {
	if c == nil {
		return ""
	}
	text, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// proc is the directory of a process in the /proc that containerd sees, whose process
// ids are not the test's.
func (c *containerd) proc(pid int) string {
	return fmt.Sprintf("/proc/%d/root/proc/%d", c.cmd.Process.Pid, pid)
}

// call makes a request of the Container Runtime Interface; out may be nil.
func (c *containerd) call(ctx context.Context, method string, in, out any) error {
	request, err := json.Marshal(in)
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.cri, "unix://"+filepath.Join(c.dir, "socket"), method)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(stdout.Bytes(), out)
}

// load imports a docker-archive.
func (c *containerd) load(ctx context.Context, archive string) error {
	_, err := output(exec.CommandContext(ctx, "ctr", "--address", filepath.Join(c.dir, "socket"),
		"--namespace", "k8s.io", "images", "import", archive))
	return err
}

// mayLowerScore reports whether this process may lower the score by which the kernel
// looks for a victim when memory is short (oom_score_adj), and so may a runtime that
// it starts. The kubelet asks for a lower one for most pods.
func mayLowerScore() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[unix.CAP_SYS_RESOURCE/32].Effective&(1<<(unix.CAP_SYS_RESOURCE%32)) != 0
}
