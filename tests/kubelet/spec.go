// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostNamespaces are those of a pod on the host's network.
var hostNamespaces = namespaceOptions{Network: "NODE", PID: "CONTAINER", IPC: "POD"}

// What the kubelet hides from a container, or keeps it from writing, that is not
// privileged: k8s.io/kubernetes/pkg/securitycontext.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// check returns an error for a pod that would get less, or more, than it asks for.
func check(pod *corev1.Pod) error {
	var errs []error
	spec := &pod.Spec
	if !spec.HostNetwork {
		errs = append(errs, errors.New("not on the host's network"))
	}
	if spec.HostPID || spec.HostIPC || (spec.HostUsers != nil && !*spec.HostUsers) {
		errs = append(errs, errors.New("hostPID, hostIPC or hostUsers"))
	}
	for _, c := range containers(pod) {
		if c.RestartPolicy != nil || len(c.EnvFrom) > 0 || c.Lifecycle != nil {
			errs = append(errs, fmt.Errorf("container %s: restartPolicy, envFrom or lifecycle", c.Name))
		}
		if s := c.SecurityContext; s != nil && (s.ProcMount != nil && *s.ProcMount != corev1.DefaultProcMount || s.SELinuxOptions != nil) {
			errs = append(errs, fmt.Errorf("container %s: procMount or SELinux", c.Name))
		}
		for _, m := range c.VolumeMounts {
			if m.SubPath != "" || m.SubPathExpr != "" || m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
				errs = append(errs, fmt.Errorf("container %s: mount %s with subPath or propagation", c.Name, m.Name))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("pod %s asks for what is not done here: %w", pod.Name, err)
	}
	return nil
}

// containers are all of a pod's, in the order in which they start.
func containers(pod *corev1.Pod) (all []*corev1.Container) {
	for i := range pod.Spec.InitContainers {
		all = append(all, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		all = append(all, &pod.Spec.Containers[i])
	}
	return all
}

// newSandbox is what the pod is for the runtime.
func newSandbox(pod *corev1.Pod, logs string) sandboxConfig {
	c := sandboxConfig{
		Metadata:     metadata{Name: pod.Name, UID: string(pod.UID), Namespace: pod.Namespace},
		Labels:       pod.Labels,
		LogDirectory: logs,
		DNSConfig:    dnsConfig{Servers: []string{"127.0.0.1"}}, // nobody there: a node without a resolver
	}
	c.Linux.SecurityContext = sandboxSecurity{
		NamespaceOptions: hostNamespaces,
		Seccomp:          seccomp{ProfileType: "RuntimeDefault"},
	}
	for _, container := range containers(pod) {
		if s := container.SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			c.Linux.SecurityContext.Privileged = true
		}
	}
	return c
}

// newContainer is what a container is for the runtime.
func newContainer(pod *corev1.Pod, container *corev1.Container, env []keyPair, mounts []mount) containerConfig {
	c := containerConfig{
		Metadata:   metadata{Name: container.Name},
		Command:    expandAll(container.Command, env),
		Args:       expandAll(container.Args, env),
		WorkingDir: container.WorkingDir,
		Envs:       env,
		Mounts:     mounts,
		LogPath:    container.Name + ".log",
	}
	c.Image.Image = container.Image
	c.Linux.Resources.OOMScoreAdj = oomScore(pod)
	c.Linux.SecurityContext = newSecurity(pod, container)
	return c
}

// newSecurity is what a container may do. What a container says goes before what the
// pod says.
func newSecurity(pod *corev1.Pod, container *corev1.Container) security {
	s := security{
		NamespaceOptions: hostNamespaces,
		MaskedPaths:      maskedPaths,
		ReadonlyPaths:    readonlyPaths,
		Seccomp:          seccomp{ProfileType: "Unconfined"}, // as a kubelet without --seccomp-default has it
	}
	if of := pod.Spec.SecurityContext; of != nil {
		s.user(of.RunAsUser, of.RunAsGroup)
		s.profile(of.SeccompProfile)
	}
	of := container.SecurityContext
	if of == nil {
		return s
	}
	s.user(of.RunAsUser, of.RunAsGroup)
	s.profile(of.SeccompProfile)
	s.Privileged = of.Privileged != nil && *of.Privileged
	s.ReadonlyRootfs = of.ReadOnlyRootFilesystem != nil && *of.ReadOnlyRootFilesystem
	s.NoNewPrivs = of.AllowPrivilegeEscalation != nil && !*of.AllowPrivilegeEscalation
	if of.Capabilities != nil {
		s.Capabilities = &capabilities{Add: names(of.Capabilities.Add), Drop: names(of.Capabilities.Drop)}
	}
	return s
}

func (s *security) user(uid, gid *int64) {
	if uid != nil {
		s.RunAsUser = &int64Value{*uid}
	}
	if gid != nil {
		s.RunAsGroup = &int64Value{*gid}
	}
}

func (s *security) profile(p *corev1.SeccompProfile) {
	if p != nil {
		s.Seccomp.ProfileType = string(p.Type) // the same names
	}
}

// oomScore is the kubelet's for a node's most important pods, and for one that
// promises no memory.
func oomScore(pod *corev1.Pod) int {
	if strings.HasPrefix(pod.Spec.PriorityClassName, "system-") {
		return -997
	}
	return 1000
}

func names[T ~string](all []T) (texts []string) {
	for _, one := range all {
		texts = append(texts, string(one))
	}
	return texts
}

// expandAll replaces $(NAME) in each text.
func expandAll(texts []string, env []keyPair) (expanded []string) {
	for _, text := range texts {
		expanded = append(expanded, expand(text, env))
	}
	return expanded
}

// expand replaces $(NAME) by the variable's value, and leaves it if there is none.
// $$ stands for $, hence $$(NAME) for $(NAME).
func expand(text string, env []keyPair) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteString("$")
			text = rest[1:]
		case strings.HasPrefix(rest, "(") && closed:
			b.WriteString(lookup(env, name))
			text = after
		default:
			b.WriteString("$")
			text = rest
		}
	}
}

// lookup returns the last value of a variable, as the process itself would see it.
func lookup(env []keyPair, name string) string {
	value := "$(" + name + ")"
	for _, v := range env {
		if v.Key == name {
			value = string(v.Value)
		}
	}
	return value
}
