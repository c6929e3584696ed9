// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

const (
	servicesPath = "/api/v1/namespaces/default/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
)

// TestMain builds outside the namespaces of netlab, where the network is.
func TestMain(m *testing.M) {
	if !netlab.Isolated() {
		if _, err := Build(context.Background(), slog.Default(), Etcd, APIServer, ControllerManager, Kubectl); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	netlab.Main(m)
}

func TestObjects(t *testing.T) {
	t.Parallel()
	c := Run(t, Config{})
	t.Logf("ready after %v, %s resident", c.StartTook.Round(time.Millisecond), resident(t, c.PID()))
	var version struct{ GitVersion, Major, Minor string }
	get(t, c, "/version", &version)
	t.Logf("version %s (%s.%s)", version.GitVersion, version.Major, version.Minor)

	create(t, c, servicesPath, newService("web"))
	create(t, c, slicesPath, newSlice("web-v4", "web"))
	check := func(t *testing.T) {
		t.Helper()
		var service corev1.Service
		get(t, c, servicesPath+"/web", &service)
		for i, p := range c.config.ServiceCIDRs {
			if ip, err := netip.ParseAddr(service.Spec.ClusterIPs[i]); err != nil || !p.Contains(ip) {
				t.Errorf("ClusterIPs are %v, want one of %v", service.Spec.ClusterIPs, c.config.ServiceCIDRs)
			}
		}
		var slice discoveryv1.EndpointSlice
		get(t, c, slicesPath+"/web-v4", &slice)
		want := newSlice("web-v4", "web")
		if diff := cmp.Diff(want.Endpoints, slice.Endpoints); diff != "" {
			t.Errorf("endpoints (-want +got):\n%s", diff)
		}
	}
	check(t)

	pid := c.PID()
	if err := errors.Join(c.Kill(), c.Kill()); err != nil {
		t.Fatal(err)
	}
	// By a client without a connection: that of c may not know yet that it has ended.
	if err := Do(t.Context(), c.Client(Admin), http.MethodGet, c.URL+"/readyz", nil, nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("request to a killed server: %v, want %v", err, syscall.ECONNREFUSED)
	}
	began := time.Now()
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready again after %v", time.Since(began).Round(time.Millisecond))
	if got := c.PID(); got == pid || got == 0 {
		t.Errorf("process id is %d after restart, was %d", got, pid)
	}
	check(t)

	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if exists(c.dir) {
		t.Errorf("%s is left", c.dir)
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	proxy := ServiceAccount("kube-system", "kube-nft")
	c := Run(t, Config{Users: []User{proxy, {Name: "reader", Groups: []string{"readers", "others"}}}})

	create(t, c, "/apis/rbac.authorization.k8s.io/v1/clusterroles", &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "services"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list"}}},
	})
	create(t, c, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "services"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "services"},
		Subjects: []rbacv1.Subject{
			{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: "kube-nft"},
			{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "readers"},
		},
	})
	tests := []struct {
		name, user, path string
		want             int
	}{
		{"service account may", proxy.Name, servicesPath, 0},
		{"service account may not", proxy.Name, slicesPath, http.StatusForbidden},
		{"group may", "reader", servicesPath, 0},
		{"group may not", "reader", slicesPath, http.StatusForbidden},
		{"admin may", Admin, slicesPath, 0},
		{"nobody may not", "nobody", servicesPath, http.StatusForbidden},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := c.Client(tt.user)
			// The server learns of roles from a watch of its own.
			code := -1
			err := poll(t.Context(), 20*time.Millisecond, func() (bool, error) {
				code = statusOf(Do(t.Context(), client, http.MethodGet, c.URL+tt.path, nil, nil))
				return code == tt.want, t.Context().Err()
			})
			if err != nil {
				t.Errorf("status is %d, want %d", code, tt.want)
			}
		})
	}
	for _, user := range []string{Admin, "reader", proxy.Name} {
		if text, err := os.ReadFile(c.Kubeconfig(user)); err != nil || !strings.Contains(string(text), c.tokens[user]) {
			t.Errorf("kubeconfig of %s (%v) lacks the token", user, err)
		}
	}
}

// TestNamespace has the server in one namespace and a client in another; the
// test process is in neither.
func TestNamespace(t *testing.T) {
	t.Parallel()
	lab := netlab.NewT(t)
	server, client := lab.Namespace("server"), lab.Namespace("client")
	lab.Must(
		netlab.Link(server, "eth0", client, "eth0"),
		server.Addr("eth0", netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24")),
		client.Addr("eth0", netip.MustParsePrefix("192.0.2.3/24")),
	)
	c := Run(t, Config{
		Listen:    netip.IPv4Unspecified(),
		SANs:      []netip.Addr{netip.MustParseAddr("192.0.2.2")},
		Advertise: netip.MustParseAddr("192.0.2.1"),
		Command:   InNamespace(server.Path()),
		Dial:      server.DialContext,
	})
	if _, err := net.DialTimeout("tcp", c.AddrPort.String(), time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial from the test's namespace: %v, want %v", err, syscall.ECONNREFUSED)
	}

	url := fmt.Sprintf("https://192.0.2.2:%d", c.AddrPort.Port())
	var slice discoveryv1.EndpointSlice
	if err := Do(t.Context(), c.ClientVia(Admin, client.DialContext), http.MethodGet, url+slicesPath+"/kubernetes", nil, &slice); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"192.0.2.1"}, slice.Endpoints[0].Addresses); diff != "" {
		t.Errorf("endpoint of Service kubernetes (-want +got):\n%s", diff)
	}
	if got := int(*slice.Ports[0].Port); got != int(c.AddrPort.Port()) {
		t.Errorf("port of Service kubernetes is %d, want %d", got, c.AddrPort.Port())
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	c := Run(t, Config{
		Listen:       netip.IPv6Unspecified(),
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00:10:96::/112"), netip.MustParsePrefix("10.96.0.0/16")},
	})
	var service corev1.Service
	get(t, c, servicesPath+"/kubernetes", &service)
	if diff := cmp.Diff("fd00:10:96::1", service.Spec.ClusterIP); diff != "" {
		t.Errorf("ClusterIP of Service kubernetes (-want +got):\n%s", diff)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{Args: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("error is %v, want the server's complaint", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Config{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want %v", err, context.DeadlineExceeded)
	}
}

// TestOrphans checks that a child outlives the thread that called start, and not
// the process.
func TestOrphans(t *testing.T) {
	t.Parallel()
	const variable = "CLUSTER_TEST_PARENT"
	if log := os.Getenv(variable); log != "" {
		beParent(t, log)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestOrphans$")
	log := filepath.Join(t.TempDir(), "log")
	cmd.Env = append(os.Environ(), variable+"="+log+"-of-child")
	parent, err := start(cmd, log)
	if err != nil {
		t.Fatal(err)
	}
	var child int
	err = poll(ctx, 10*time.Millisecond, func() (bool, error) {
		text, err := os.ReadFile(log)
		if err != nil {
			return false, err
		}
		n, _ := fmt.Sscanf(string(text), "child %d\n", &child) // not there yet
		return n == 1, parent.gone()
	})
	if err != nil {
		t.Fatal(errors.Join(err, parent.stop()))
	}
	if !alive(child) {
		t.Errorf("process %d died with the thread that called start", child)
	}
	if err := parent.stop(); err != nil {
		t.Fatal(err)
	}
	if err := poll(ctx, 10*time.Millisecond, func() (bool, error) { return !alive(child), nil }); err != nil {
		t.Errorf("process %d outlives its parent", child)
	}
}

// beParent starts a child from a thread that ends, prints its process id once the
// thread is gone, and waits to be killed.
func beParent(t *testing.T, log string) {
	t.Helper()
	type result struct {
		p   *process
		err error
		tid int
	}
	results := make(chan result)
	// Go never ends the first thread of a process; the next goroutine cannot get it.
	for range 2 {
		go func() {
			runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
			p, err := start(exec.Command("sleep", "600"), log)
			results <- result{p, err, syscall.Gettid()}
		}()
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		if r.tid == os.Getpid() {
			continue
		}
		err := poll(t.Context(), 10*time.Millisecond, func() (bool, error) {
			return !exists(fmt.Sprintf("/proc/self/task/%d", r.tid)), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("child", r.p.pid)
		<-r.p.done
	}
}

func newService(name string) *corev1.Service {
	both := corev1.IPFamilyPolicyRequireDualStack
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			IPFamilyPolicy: &both,
			Ports:          []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

func newSlice(name, service string) *discoveryv1.EndpointSlice {
	ready, port, portName, protocol := true, int32(8080), "http", corev1.ProtocolTCP
	return &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}},
	}
}

func create(t *testing.T, c *Cluster, path string, object any) {
	t.Helper()
	if err := c.Do(t.Context(), http.MethodPost, path, object, nil); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c *Cluster, path string, object any) {
	t.Helper()
	if err := c.Do(t.Context(), http.MethodGet, path, nil, object); err != nil {
		t.Fatal(err)
	}
}

// statusOf returns the HTTP status that err is about, 0 for none.
func statusOf(err error) int {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code
	}
	return 0
}

func resident(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(value)
		}
	}
	return "nothing"
}

func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}
