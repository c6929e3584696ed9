// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// manifests is a running Dir source over a directory of the test's own.
type manifests struct {
	t    *testing.T
	dir  string
	sink *recorder
	log  *logs
	stop func()
}

// start runs a source over the files given, until the test ends. Polling is
// slow enough to prove that notifications work, unless change says otherwise.
func start(t *testing.T, files map[string]string, change func(*dir)) *manifests {
	t.Helper()
	m := &manifests{t: t, dir: t.TempDir(), sink: newRecorder(), log: &logs{}}
	for name, text := range files {
		m.write(name, text)
	}
	d := newDir(m.dir, DirOptions{NodeName: "node-0", Logger: m.log.logger()})
	d.timing.settle = 5 * time.Millisecond
	d.timing.poll = time.Hour
	if change != nil {
		change(d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, m.sink) }()
	stopped := false
	m.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	t.Cleanup(m.stop)
	m.sink.await(t, "synced")
	return m
}

func (m *manifests) path(name string) string { return filepath.Join(m.dir, name) }

// write writes a file as editors do: by a rename.
func (m *manifests) write(name, text string) {
	m.t.Helper()
	temp := m.path("." + name + ".new")
	if err := errors.Join(os.WriteFile(temp, []byte(text), 0o644), os.Rename(temp, m.path(name))); err != nil {
		m.t.Fatal(err)
	}
}

func (m *manifests) remove(name string) {
	m.t.Helper()
	if err := os.Remove(m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

// clusterIP makes the web Service with another address.
func clusterIP(ip string) string { return strings.Replace(webService, "10.96.0.10", ip, 1) }

func named(name string) string { return strings.Replace(webService, "name: web", "name: "+name, 1) }

// awaitIP waits until the web Service has the address.
func (m *manifests) awaitIP(ip string) {
	m.t.Helper()
	eventually(m.t, func() error {
		if s := m.sink.service("web"); s == nil || s.Spec.ClusterIP != ip {
			return errors.New("web does not have the address " + ip)
		}
		return nil
	})
}

func (m *manifests) expectTold(want ...string) {
	m.t.Helper()
	if diff := cmp.Diff(want, m.sink.take()); diff != "" {
		m.t.Errorf("told: -want +got\n%s", diff)
	}
}

func TestDirDeliversDifferences(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{
		"a.yaml": webService + "---\n" + named("api"), "b.yml": webSlice, "c.json": `{"apiVersion":"v1","kind":"Node","metadata":{"name":"node-0"}}`,
		"d.yaml": "{apiVersion: v1, kind: Node, metadata: {name: node-1}}", ".hidden.yaml": "}", "notes.txt": "}", "web.yaml~": "}", "#web.yaml": "}",
	}, nil)
	m.expectTold("set node node-0", "set service default/api", "set service default/web", "set slice default/web-1", "synced")
	m.write("a.yaml", clusterIP("10.96.0.11")+"---\n"+named("db"))
	m.sink.await(t, "set service default/web")
	m.expectTold("delete service default/api", "set service default/db", "set service default/web")
	m.awaitIP("10.96.0.11")
	m.write("b.yml", "# moved\n")
	m.sink.await(t, "delete slice default/web-1")
	m.write("e.yaml", webSlice)
	m.sink.await(t, "set slice default/web-1")
	m.remove("a.yaml")
	m.sink.await(t, "delete service default/web", "delete service default/db")
	if diff := cmp.Diff([]string{"slice default/web-1"}, m.sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if lines := m.log.Lines(); len(lines) > 0 {
		t.Errorf("logged:\n%s", strings.Join(lines, "\n"))
	}
}

func TestDirKeepsLastGood(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{"a.yaml": webService, "b.yaml": named("b"), "c.yaml": "apiVersion: v1\n"}, nil)
	if diff := cmp.Diff([]string{"service default/b", "service default/web"}, m.sink.names()); diff != "" {
		t.Errorf("a bad file at start: -want +got\n%s", diff)
	}
	bad := strings.Replace(webService, "port: 80", "port: http", 1)
	m.write("a.yaml", named("ok")+"---\n"+bad)
	m.log.await(t, "a.yaml:19: Service default/web: spec.ports[0].port")
	m.write("a.yaml", named("ok")+"---\n"+bad) // the same fault is no news
	m.write("b.yaml", named("b2"))
	m.sink.await(t, "set service default/b2", "delete service default/b")
	if diff := cmp.Diff([]string{"service default/b2", "service default/web"}, m.sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if n := len(m.log.Lines("a.yaml:19")); n != 1 {
		t.Errorf("the fault is logged %d times", n)
	}
	m.write("a.yaml", clusterIP("10.96.0.12"))
	m.awaitIP("10.96.0.12")
	m.log.await(t, "manifest is in force")
}

func TestDirCheck(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{"a.yaml": webService}, func(d *dir) {
		d.opts.Check = func(o runtime.Object) error {
			if s, ok := o.(*corev1.Service); ok && s.Spec.ClusterIP == "10.96.0.66" {
				return errors.New("spec.clusterIP: unlucky")
			}
			return nil
		}
	})
	m.write("a.yaml", clusterIP("10.96.0.66"))
	m.log.await(t, "a.yaml:6: Service default/web: spec.clusterIP: unlucky")
	m.awaitIP("10.96.0.10")
}

func TestDirSameObjectTwice(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{"b.yaml": clusterIP("10.96.0.2"), "c.yaml": clusterIP("10.96.0.3")}, nil)
	m.awaitIP("10.96.0.2")
	m.log.await(t, "c.yaml:1: Service default/web: said already in "+m.path("b.yaml")+":1, which counts")
	m.write("a.yaml", clusterIP("10.96.0.1"))
	m.awaitIP("10.96.0.1")
	m.write("b.yaml", "kaputt")
	m.log.await(t, "kaputt")
	m.remove("a.yaml")
	m.awaitIP("10.96.0.2") // what b.yaml said when it was good
	m.remove("b.yaml")
	m.awaitIP("10.96.0.3")
	for _, told := range m.sink.take() {
		if strings.HasPrefix(told, "delete") {
			t.Errorf("a takeover must not go by a deletion: %s", told)
		}
	}
}

// TestDirConfigMap replaces files as the kubelet does: all at once, by a link.
func TestDirConfigMap(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{}, nil)
	publish := func(version, text string) {
		t.Helper()
		if err := errors.Join(
			os.Mkdir(m.path(".."+version), 0o755),
			os.WriteFile(m.path(".."+version+"/web.yaml"), []byte(text), 0o644),
			os.Symlink(".."+version, m.path("..data_tmp")),
			os.Rename(m.path("..data_tmp"), m.path("..data")),
		); err != nil {
			t.Fatal(err)
		}
	}
	publish("v1", clusterIP("10.96.0.1"))
	if err := os.Symlink("..data/web.yaml", m.path("web.yaml")); err != nil {
		t.Fatal(err)
	}
	m.awaitIP("10.96.0.1")
	publish("v2", clusterIP("10.96.0.2"))
	m.awaitIP("10.96.0.2")
	if err := os.RemoveAll(m.path("..v2")); err != nil {
		t.Fatal(err)
	}
	m.write("other.yaml", named("other"))
	m.log.await(t, "cannot be read")
	m.awaitIP("10.96.0.2") // a link that leads nowhere is a fault, not a deletion
}

func TestDirInPlace(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{"a.yaml": webService}, nil)
	for _, ip := range []string{"10.96.0.11", "10.96.0.12", "10.96.0.13"} { // same size, perhaps the same tick
		if err := os.WriteFile(m.path("a.yaml"), []byte(clusterIP(ip)), 0o644); err != nil {
			t.Fatal(err)
		}
		m.awaitIP(ip)
	}
	for _, told := range m.sink.take() {
		if strings.HasPrefix(told, "delete") {
			t.Errorf("a truncated file was taken at its word: %s", told)
		}
	}
}

// TestDirPolls sees changes without notifications, and an emptied file in the end.
func TestDirPolls(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(outside, []byte(webService), 0o644); err != nil {
		t.Fatal(err)
	}
	m := start(t, nil, func(d *dir) {
		d.timing.poll = 5 * time.Millisecond
		d.timing.emptied = 50 * time.Millisecond
		if err := os.Symlink(outside, filepath.Join(d.path, "link.yaml")); err != nil {
			t.Fatal(err)
		}
	})
	m.awaitIP("10.96.0.10")
	if err := os.WriteFile(outside, []byte(clusterIP("10.96.0.100")), 0o644); err != nil {
		t.Fatal(err)
	}
	m.awaitIP("10.96.0.100")
	if err := os.Truncate(outside, 0); err != nil {
		t.Fatal(err)
	}
	m.sink.await(t, "delete service default/web")
}

// TestDirLostAndFound takes the whole directory away and brings it back.
func TestDirLostAndFound(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{"a.yaml": webService}, func(d *dir) { d.timing.poll = 5 * time.Millisecond })
	if err := os.Rename(m.dir, m.dir+".away"); err != nil {
		t.Fatal(err)
	}
	m.log.await(t, "manifests cannot be read")
	m.awaitIP("10.96.0.10")
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m.log.await(t, "manifests can be read again")
	m.sink.await(t, "delete service default/web")
	m.write("b.yaml", named("b"))
	m.sink.await(t, "set service default/b")
}

// TestDirGoesWhileRead takes the directory away between one file and the next.
func TestDirGoesWhileRead(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{"a.yaml": webService, "b.yaml": named("b")}, func(d *dir) {
		d.timing.poll = 5 * time.Millisecond
		d.opts.Check = func(o runtime.Object) error {
			if o.(*corev1.Service).Spec.ClusterIP != "10.96.0.11" {
				return nil
			}
			return os.Rename(d.path, d.path+".away")
		}
	})
	m.write("a.yaml", clusterIP("10.96.0.11"))
	m.log.await(t, "manifests cannot be read")
	if diff := cmp.Diff([]string{"service default/b", "service default/web"}, m.sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestDirSingleFile(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{"services": webService, "other.yaml": named("other")}, func(d *dir) {
		d.path = filepath.Join(d.path, "services")
	})
	m.expectTold("set service default/web", "synced")
	m.write("services", clusterIP("10.96.0.2"))
	m.awaitIP("10.96.0.2")
	m.remove("services")
	m.log.await(t, "manifests cannot be read")
	m.awaitIP("10.96.0.2")
	m.write("services", clusterIP("10.96.0.3"))
	m.awaitIP("10.96.0.3")
}

func TestDirStartErrors(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "nowhere")
	for _, path := range []string{missing, filepath.Join(missing, "a.yaml")} {
		sink := newRecorder()
		err := Dir(path, DirOptions{}).Run(t.Context(), sink)
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		if sink.synced > 0 {
			t.Error("synced")
		}
		if _, err := ReadDir(path, DirOptions{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("ReadDir %s: %v", path, err)
		}
	}
}

func TestDirTellsIgnored(t *testing.T) {
	t.Parallel()
	m := start(t, map[string]string{"a.yaml": webService + "---\n{apiVersion: apps/v1, kind: Deployment}\n---\n{apiVersion: v1, kind: Endpoints}\n"}, nil)
	if lines := m.log.Lines("no use for"); len(lines) != 1 || !strings.Contains(lines[0], "level=INFO") || !strings.Contains(lines[0], "apps/v1 Deployment") {
		t.Errorf("%v", lines)
	}
	if lines := m.log.Lines("level=WARN"); len(lines) != 1 || !strings.Contains(lines[0], "a.yaml:13") || !strings.Contains(lines[0], "EndpointSlice") {
		t.Errorf("%v", lines)
	}
}

func TestReadDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yaml": webSlice + "---\n" + webService, "b.yaml": clusterIP("10.96.0.2") + "---\n" + named("b"), "c.yaml": named("c") + "bad: 1\n",
		"d.yaml": "{apiVersion: v1, kind: Node, metadata: {name: n}}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev", filepath.Join(dir, "dev.yaml")); err != nil {
		t.Fatal(err)
	}
	objects, err := ReadDir(dir, DirOptions{})
	want := dir + "/b.yaml:1: Service default/web: said twice, first in " + dir + "/a.yaml:14\n" +
		dir + "/c.yaml:10: Service default/c: bad: unknown field"
	if err == nil || err.Error() != want {
		t.Errorf("-want +got\n%s", cmp.Diff(want, err.Error()))
	}
	var got []string
	for _, o := range objects {
		got = append(got, keyOf(o).String())
	}
	if diff := cmp.Diff([]string{"EndpointSlice default/web-1", "Service default/web", "Service default/b"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if s, ok := objects[0].(*discoveryv1.EndpointSlice); !ok || *s.Ports[0].Protocol != corev1.ProtocolTCP {
		t.Errorf("no defaults: %v", objects[0])
	}
}
