// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// controlName is where kube-nft answers its own commands; who has it is the one
// kube-nft of its network namespace.
const controlName = "@kube-nft"

// TestSecondRefuses: two kube-nft in one network namespace would write the same
// tables, so the second one ends and says why, and nothing has changed; one that is
// about to end is waited for.
func TestSecondRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a)...)
	c.run(t)
	before := c.Run(c.node.Namespace, "nft", "list", "ruleset")
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	c.Must(os.WriteFile(kubeconfig, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
"clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`), 0o600))
	for _, from := range [][]string{{"--manifests", manifestDir(t)}, {"--kubeconfig", kubeconfig, "--service-proxy-name", "another"}} {
		out, code := command(t, c.node.Namespace, 0, append([]string{"run", "--masquerade-all", "--conntrack-max-per-core", "0"}, from...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		last := lines[len(lines)-1]
		for _, word := range []string{"another kube-nft serves this network namespace", fmt.Sprintf("process %d,", c.proxy.cmd.Process.Pid), "end that one first", "node-0"} {
			if !strings.Contains(last, word) {
				t.Errorf("%v: the last line lacks %q: %s", from, word, last)
			}
		}
		if code != 1 || strings.Count(out, "another kube-nft") != 1 {
			t.Errorf("%v: code %d: %s", from, code, out)
		}
	}
	if after := c.Run(c.node.Namespace, "nft", "list", "ruleset"); after != before {
		t.Errorf("the tables have changed:\n%s", after)
	}
	// What writes no tables may run beside it.
	for _, args := range [][]string{{"run", "--init-only", "--conntrack-max-per-core", "0"}, {"render", "--manifests", c.manifests}} {
		if out, code := command(t, c.node.Namespace, 0, args...); code != 0 {
			t.Errorf("%v: code %d: %s", args, code, out)
		}
	}
	elsewhere := startProxy(t, c.Namespace("elsewhere"), c.manifests)
	elsewhere.logs(t, "everything is programmed")
	next := startProxy(t, c.node.Namespace, c.manifests)
	next.logs(t, "waiting a moment for its holder to end", strconv.Itoa(c.proxy.cmd.Process.Pid))
	c.proxy.stop(t)
	next.logs(t, "everything is programmed")
	next.kill()
	c.run(t) // its end leaves nothing behind that would have to be waited for
	if c.proxy.count("waiting a moment") != 0 {
		t.Error("what was killed still has the socket")
	}
}

// TestStranger: another user who takes the socket's name keeps nobody from starting,
// and who is not root is told nothing.
func TestStranger(t *testing.T) {
	t.Parallel()
	if data, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Fields(string(data))[2] == "1" {
		t.Skip("there is no other user in this user namespace")
	}
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a)...)
	for _, play := range []string{"listen", "bind"} {
		squatter := startStranger(t, c.node, play)
		squatter.logs(t, "ready")
		c.run(t)
		c.proxy.logs(t, "belongs to somebody else", controlName, "ss -xlp")
		squatter.kill()
		c.proxy.logs(t, "is free now")
		curious := startStranger(t, c.node, "ask")
		if code := curious.code(t); code != 0 || curious.log.String() != "" {
			t.Errorf("code %d, told a stranger: %s", code, &curious.log)
		}
		// Whoever comes next is refused by the one that has it now.
		if out, code := command(t, c.node.Namespace, 0, "run", "--manifests", c.manifests, "--conntrack-max-per-core", "0"); code != 1 {
			t.Errorf("code %d: %s", code, out)
		}
		c.proxy.stop(t)
	}
}

// strangerEnv has the test program play a stranger's part.
const strangerEnv = "KUBE_NFT_E2E_STRANGER"

// startStranger starts one, as nobody.
func startStranger(t *testing.T, at *host, play string) *process {
	t.Helper()
	cmd := at.Command(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), strangerEnv+"="+play)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	return startProcess(t, cmd)
}

// stranger takes the socket's name, with or without listening, or asks who has it and
// prints the answer.
func stranger(play string) (code int) {
	switch play {
	case "listen":
		if _, err := net.Listen("unix", controlName); err != nil {
			fmt.Println(err)
			return 1
		}
	case "bind":
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err == nil {
			err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: controlName})
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
	case "ask":
		conn, err := net.Dial("unix", controlName)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		_, _ = io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: kube-nft\r\n\r\n") // it may be closed already
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.Copy(os.Stdout, conn)
		return 0
	}
	fmt.Println("ready")
	time.Sleep(time.Hour) // it is killed before
	return 1
}

// TestControlSocket: what is asked at the socket is answered, to GET alone.
func TestControlSocket(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "node.yaml", inZone("here"))
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (conn net.Conn, err error) {
		err = c.node.Do(func() (err error) { conn, err = net.Dial("unix", controlName); return err })
		return conn, err
	}}}
	ask := func(method, path string, want int) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://kube-nft"+path, nil)
		c.Must(err)
		response, err := client.Do(request)
		c.Must(err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		c.Must(err)
		if response.StatusCode != want {
			t.Errorf("%s %s: %s: %s", method, path, response.Status, body)
		}
		return string(body)
	}
	var status struct {
		PID                int
		Node, Zone         string
		Synced, Programmed bool
		Services           int
		Tables             []struct{ Family, LocalPods string }
	}
	c.Must(json.Unmarshal([]byte(ask(http.MethodGet, "/v1/status", http.StatusOK)), &status))
	if status.PID != c.proxy.cmd.Process.Pid || status.Node != "node-0" || status.Zone != "here" || !status.Synced || !status.Programmed ||
		status.Services != 2 || len(status.Tables) != 2 || status.Tables[0].Family != "ip" || status.Tables[0].LocalPods != clusterCIDR[:13] {
		t.Errorf("status %+v", status)
	}
	if body := ask(http.MethodGet, "/v1/services/default/web", http.StatusOK); !strings.Contains(body, `"known":true`) {
		t.Errorf("a Service: %s", body)
	}
	if body := ask(http.MethodGet, "/v1/services/default/nobody", http.StatusOK); !strings.Contains(body, `"known":false`) {
		t.Errorf("no Service: %s", body)
	}
	if body := ask(http.MethodGet, "/v1/frontend?port=80&address="+clusterIP(1)[ip4].String(), http.StatusOK); !strings.Contains(body, `"service":"default/web"`) {
		t.Errorf("a frontend: %s", body)
	}
	for _, path := range []string{"/v1/frontend", "/v1/frontend?address=10.96.0.1&port=70000", "/v1/frontend?address=10.96.0.1&port=80&protocol=icmp"} {
		ask(http.MethodGet, path, http.StatusBadRequest)
	}
	ask(http.MethodGet, "/", http.StatusNotFound)
	ask(http.MethodGet, "/metrics", http.StatusNotFound)
	ask(http.MethodPost, "/v1/status", http.StatusMethodNotAllowed)
	ask(http.MethodDelete, "/v1/services/default/web", http.StatusMethodNotAllowed)
}
