// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/tests/kubelet"
)

// established is the kernel parameter that the configuration sets, in seconds: no
// kernel has it so by default.
const (
	establishedFile = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"
	established     = 11 * 60 * 60
)

// conntrack is what is added to the configuration. The limit of connections is the
// whole machine's, and so not a test's to set.
const conntrack = `conntrack:
  maxPerCore: 0
  tcpEstablishedTimeout: 11h
`

// container is the DaemonSet's.
const container = "kube-nft"

// TestDaemonSet has the DaemonSet's pod serve a node from its start to its end.
func TestDaemonSet(t *testing.T) {
	s := newSite(t)
	s.createNode()
	s.createLarge()
	web := s.createService("web", newEndpoints(1, 2))
	set := s.deploy()
	began := time.Now()
	pod, err := s.kubelet.Run(t.Context(), kubelet.DaemonPod(set, nodeName))
	s.Must(err)
	s.Must(pod.AwaitReady(t.Context(), soon))
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))

	clusterIP := netip.AddrPortFrom(netip.MustParseAddr(web.Spec.ClusterIP), 80)
	nodePort := netip.AddrPortFrom(nodeAddr, uint16(web.Spec.Ports[0].NodePort))
	for _, at := range []netip.AddrPort{clusterIP, nodePort} {
		s.answers("tcp", at, "pod-1", "pod-2")
		s.answers("udp", at, "pod-1", "pod-2")
	}
	t.Run("probes", func(t *testing.T) { checkProbes(t, pod) })
	t.Run("privileges", func(t *testing.T) { checkPrivileges(t, pod) })
	t.Run("buffers", func(t *testing.T) { checkBuffers(t, s) })
	t.Run("kernel parameters", func(t *testing.T) { checkParameter(t, s, established) })
	s.moveFlow(web, clusterIP)
	checkLog(t, pod) // before there is something to warn of
	s.drift(clusterIP)
	s.end(pod, clusterIP)
	t.Run("version", func(t *testing.T) { checkVersion(t, s, set) })
	t.Run("init container without the node's parameters", func(t *testing.T) { checkReadOnly(t, s, set) })
}

// checkProbes shows that each probe of the manifest is one that passes, and so would
// be a load balancer's.
func checkProbes(t *testing.T, pod *kubelet.Pod) {
	c := pod.Object.Spec.Containers[0]
	probes := map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe}
	for name, probe := range probes {
		if err := pod.Probe(t.Context(), container, probe); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c.LivenessProbe != nil && c.LivenessProbe.HTTPGet != nil {
		balancer := c.LivenessProbe.DeepCopy()
		balancer.HTTPGet.Path = "/healthz"
		if err := pod.Probe(t.Context(), container, balancer); err != nil {
			t.Errorf("load balancer: %v", err)
		}
	}
}

// checkBuffers shows that the buffer for what the kernel has to say is as large as
// kube-nft wants it, and not as large as the machine lets everybody have it
// (net.core.rmem_max). The kernel doubles what is asked for.
func checkBuffers(t *testing.T, s *site) {
	out, err := s.node.Run("ss", "--family", "netlink", "--memory", "--numeric")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("rb%d,", 2*8<<20); !strings.Contains(out, want) {
		t.Errorf("no netlink socket has %s\n%s", want, out)
	}
}

// checkPrivileges shows that the process has what it needs, and nothing else, by what
// the kernel says of it.
func checkPrivileges(t *testing.T, pod *kubelet.Pod) {
	proc, err := pod.Proc(t.Context(), container)
	if err != nil {
		t.Fatal(err)
	}
	const netAdmin = "0000000000001000" // 1 << CAP_NET_ADMIN
	want := map[string]string{
		"Uid": "0 0 0 0", "CapBnd": netAdmin, "CapPrm": netAdmin, "CapEff": netAdmin,
		"CapInh": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1",
		"Seccomp":    "2", // a filter
	}
	got := make(map[string]string)
	for key, value := range status(t, proc) {
		if _, ok := want[key]; ok {
			got[key] = value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("process, -want +got:\n%s", diff)
	}
	checkMounts(t, proc)
	checkSeccomp(t, pod)
}

// status returns the fields of /proc/PID/status.
func status(t *testing.T, proc string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// checkMounts shows that there is no file for the process to write: what is writable
// is memory of its own, or the kernel's, less what could do harm.
func checkMounts(t *testing.T, proc string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(proc, "mounts"))
	if err != nil {
		t.Fatal(err)
	}
	readonly := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // device, mount point, type, options
		at, kind := fields[1], fields[2]
		readonly[at] = slices.Contains(strings.Split(fields[3], ","), "ro")
		memory := slices.Contains([]string{"proc", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}, kind)
		if !readonly[at] && !memory {
			t.Errorf("%s is writable: %s", at, line)
		}
	}
	for _, at := range []string{"/", "/sys", "/proc/sys", "/etc/kube-nft", "/var/run/secrets/kubernetes.io/serviceaccount"} {
		if !readonly[at] {
			t.Errorf("%s is not mounted read-only", at)
		}
	}
}

// checkSeccomp shows that the filter is the runtime's own, which refuses by default.
func checkSeccomp(t *testing.T, pod *kubelet.Pod) {
	t.Helper()
	text, err := pod.Spec(t.Context(), container)
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Linux struct {
			Seccomp struct {
				DefaultAction string
				Syscalls      []struct{ Names []string }
			}
		}
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	allowed := 0
	for _, rule := range spec.Linux.Seccomp.Syscalls {
		allowed += len(rule.Names)
		if slices.Contains(rule.Names, "mount") {
			t.Errorf("seccomp: mount is among what is allowed")
		}
	}
	if spec.Linux.Seccomp.DefaultAction != "SCMP_ACT_ERRNO" || allowed < 300 {
		t.Errorf("seccomp: by default %s, %d system calls listed, want the runtime's profile", spec.Linux.Seccomp.DefaultAction, allowed)
	}
}

// checkParameter shows that the init container has set the node's parameter, or not.
func checkParameter(t *testing.T, s *site, want int) {
	t.Helper()
	text, err := s.node.Run("cat", establishedFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(text); got != strconv.Itoa(want) {
		t.Errorf("%s is %s, want %d", establishedFile, got, want)
	}
}

// checkLog shows that nothing was refused: what kube-nft may not do it tells.
func checkLog(t *testing.T, pod *kubelet.Pod) {
	t.Helper()
	for _, c := range slices.Concat(pod.Object.Spec.InitContainers, pod.Object.Spec.Containers) {
		for line := range strings.Lines(pod.Log(c.Name)) {
			if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
				t.Errorf("container %s: %s", c.Name, line)
			}
		}
	}
}

// checkVersion runs the image without a command.
func checkVersion(t *testing.T, s *site, set *appsv1.DaemonSet) {
	pod := kubelet.DaemonPod(set, nodeName)
	pod.Name += "-version"
	c := pod.Spec.Containers[0]
	pod.Spec.InitContainers = nil
	pod.Spec.Containers = []corev1.Container{{Name: "version", Image: c.Image, Args: []string{"version"}, SecurityContext: c.SecurityContext}}
	code, log := runToEnd(t, s, pod, "version")
	if code != 0 || !strings.HasPrefix(log, "kube-nft ") {
		t.Errorf("exit code %d, %q", code, log)
	}
}

// checkReadOnly leaves the init container with the parameters that every container has:
// it sets nothing, says so, and is no reason not to start.
func checkReadOnly(t *testing.T, s *site, set *appsv1.DaemonSet) {
	s.Must(s.node.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "1000"))
	pod := kubelet.DaemonPod(set, nodeName)
	pod.Name += "-read-only"
	c := pod.Spec.InitContainers[0]
	c.Args = slices.DeleteFunc(c.Args, func(arg string) bool { return strings.HasPrefix(arg, "--host-root") })
	pod.Spec.InitContainers, pod.Spec.Containers = nil, []corev1.Container{c}
	code, log := runToEnd(t, s, pod, c.Name)
	if code != 0 || !strings.Contains(log, filepath.Base(establishedFile)) {
		t.Errorf("exit code %d, want 0, and the log to name the parameter:\n%s", code, log)
	}
	checkParameter(t, s, 1000)
}

// runToEnd runs a pod of one container, and returns how that ended.
func runToEnd(t *testing.T, s *site, pod *corev1.Pod, container string) (code int, log string) {
	t.Helper()
	ran, err := s.kubelet.Run(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	if code, err = ran.Wait(t.Context(), container, soon); err != nil {
		t.Fatal(err)
	}
	return code, ran.Log(container)
}
