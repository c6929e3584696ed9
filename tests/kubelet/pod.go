// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Pod is a pod of a Kubelet.
type Pod struct {
	Object *corev1.Pod // as the API server has it

	kubelet    *Kubelet
	dir        string // volumes and logs
	sandbox    string // its id
	containers []created
}

// created is a container that has been started.
type created struct {
	name, id string
}

// DaemonPod is the pod that the DaemonSet's controller would make for a node.
func DaemonPod(set *appsv1.DaemonSet, node string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Name, pod.Namespace = set.Name+"-"+node, set.Namespace
	pod.Spec.NodeName = node
	return pod
}

// Run creates the pod in the API, unless it is there, runs its init containers, one
// by one, and starts its containers. An error about an init container has its log.
// On error, too, there may be a Pod, which the Kubelet removes in the end.
func (k *Kubelet) Run(ctx context.Context, object *corev1.Pod) (*Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := check(object); err != nil {
		return nil, err
	}
	p := &Pod{Object: object, kubelet: k}
	if object.UID == "" {
		p.Object = &corev1.Pod{}
		path := fmt.Sprintf("/api/v1/namespaces/%s/pods", object.Namespace)
		if err := k.do(ctx, http.MethodPost, path, object, p.Object); err != nil {
			return nil, err
		}
	}
	k.pods = append(k.pods, p)
	p.dir = filepath.Join(k.dir, string(p.Object.UID))
	if err := p.start(ctx); err != nil {
		return p, fmt.Errorf("run pod %s: %w", p.Object.Name, err)
	}
	return p, nil
}

func (p *Pod) start(ctx context.Context) error {
	logs := filepath.Join(p.dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	volumes, err := p.kubelet.volumes(ctx, p.Object, filepath.Join(p.dir, "volumes"))
	if err != nil {
		return err
	}
	account, err := p.kubelet.account(ctx, p.Object, filepath.Join(p.dir, "volumes"))
	if err != nil {
		return err
	}
	sandbox := newSandbox(p.Object, logs)
	var made struct{ PodSandboxID string }
	if err := p.call(ctx, "RunPodSandbox", map[string]any{"config": sandbox}, &made); err != nil {
		return err
	}
	p.sandbox = made.PodSandboxID
	for i, c := range containers(p.Object) {
		env, err := p.kubelet.environment(ctx, p.Object, c)
		if err != nil {
			return err
		}
		config := newContainer(p.Object, c, env, mounts(c, volumes, account))
		if err := p.create(ctx, sandbox, config); err != nil {
			return fmt.Errorf("container %s: %w", c.Name, err)
		}
		if i < len(p.Object.Spec.InitContainers) {
			if err := p.succeed(ctx, c.Name); err != nil {
				return fmt.Errorf("init container %s: %w\n%s", c.Name, err, p.Log(c.Name))
			}
		}
	}
	return nil
}

// create makes and starts a container.
func (p *Pod) create(ctx context.Context, sandbox sandboxConfig, config containerConfig) error {
	request := map[string]any{"podSandboxId": p.sandbox, "config": config, "sandboxConfig": sandbox}
	var made struct{ ContainerID string }
	if err := p.call(ctx, "CreateContainer", request, &made); err != nil {
		return err
	}
	p.containers = append(p.containers, created{name: config.Metadata.Name, id: made.ContainerID})
	return p.call(ctx, "StartContainer", map[string]any{"containerId": made.ContainerID}, nil)
}

// succeed waits for a container to end with exit code 0.
func (p *Pod) succeed(ctx context.Context, name string) error {
	code, err := p.Wait(ctx, name, limit)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	return err
}

// Wait waits for a container to end, and returns its exit code.
func (p *Pod) Wait(ctx context.Context, name string, within time.Duration) (code int, err error) {
	err = netlab.Poll(within, func() error {
		status, _, err := p.status(ctx, name)
		if err == nil && status.State != "CONTAINER_EXITED" {
			err = fmt.Errorf("container %s is in state %s", name, status.State)
		}
		code = status.ExitCode
		return err
	})
	return code, err
}

// Stop ends a container as when its pod is deleted: SIGTERM, and SIGKILL if it does
// not end in the time that the pod allows. It returns the exit code.
func (p *Pod) Stop(ctx context.Context, name string) (code int, err error) {
	id, err := p.id(name)
	if err != nil {
		return 0, err
	}
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if p.Object.Spec.TerminationGracePeriodSeconds != nil {
		grace = *p.Object.Spec.TerminationGracePeriodSeconds
	}
	if err := p.call(ctx, "StopContainer", map[string]any{"containerId": id, "timeout": grace}, nil); err != nil {
		return 0, err
	}
	return p.Wait(ctx, name, limit)
}

// Remove ends what still runs of the pod, and removes it from the API. It is
// idempotent.
func (p *Pod) Remove(ctx context.Context) error {
	if p.sandbox != "" {
		request := map[string]any{"podSandboxId": p.sandbox}
		if err := p.call(ctx, "StopPodSandbox", request, nil); err != nil {
			return err
		}
		if err := p.call(ctx, "RemovePodSandbox", request, nil); err != nil {
			return err
		}
		p.sandbox = ""
	}
	err := p.kubelet.do(ctx, http.MethodDelete, podPath(p.Object), &metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}, nil)
	var answer *cluster.StatusError
	if errors.As(err, &answer) && answer.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// Log returns what a container has written.
func (p *Pod) Log(name string) string {
	text, err := os.ReadFile(filepath.Join(p.dir, "logs", name+".log"))
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		// 2026-01-02T15:04:05.678Z stderr F text
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
			b.WriteString(fields[3])
		}
	}
	return b.String()
}

// Proc returns the directory of a running container's process in a /proc.
func (p *Pod) Proc(ctx context.Context, name string) (string, error) {
	_, pid, err := p.status(ctx, name)
	if err == nil && pid == 0 {
		err = fmt.Errorf("container %s does not run", name)
	}
	return p.kubelet.runtime.proc(pid), err
}

// Spec returns the runtime's specification of a container, as JSON: what the runtime
// made of what the manifest says.
func (p *Pod) Spec(ctx context.Context, name string) (json.RawMessage, error) {
	info, _, err := p.inspect(ctx, name)
	return info.RuntimeSpec, err
}

// status returns the state of a container, and its process id in containerd's
// namespace.
func (p *Pod) status(ctx context.Context, name string) (containerStatus, int, error) {
	info, status, err := p.inspect(ctx, name)
	return status, info.PID, err
}

// details are what containerd says beyond the interface.
type details struct {
	PID         int
	RuntimeSpec json.RawMessage
}

func (p *Pod) inspect(ctx context.Context, name string) (info details, status containerStatus, err error) {
	id, err := p.id(name)
	if err != nil {
		return info, status, err
	}
	var answer struct {
		Status containerStatus
		Info   struct{ Info string }
	}
	if err := p.call(ctx, "ContainerStatus", map[string]any{"containerId": id, "verbose": true}, &answer); err != nil {
		return info, status, err
	}
	err = json.Unmarshal([]byte(answer.Info.Info), &info)
	return info, answer.Status, err
}

func (p *Pod) id(name string) (string, error) {
	for _, c := range p.containers {
		if c.name == name {
			return c.id, nil
		}
	}
	return "", fmt.Errorf("pod %s has started no container %s", p.Object.Name, name)
}

func (p *Pod) call(ctx context.Context, method string, in, out any) error {
	return p.kubelet.runtime.call(ctx, method, in, out)
}
