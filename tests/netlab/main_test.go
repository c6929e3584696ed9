// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// helperEnv makes the test binary behave like a command that uses netlab.
const helperEnv = "NETLAB_TEST_HELPER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperEnv); mode != "" {
		os.Exit(helper(mode))
	}
	netlab.Main(m)
}

// helper is the command. Its modes are named after what the isolated part does.
func helper(mode string) int {
	if mode == "believe" {
		_, err := netlab.New()
		fmt.Println(netlab.Isolated(), errors.Is(err, netlab.ErrNotIsolated), err)
		return 0
	}
	if !netlab.Isolated() {
		code, err := netlab.Isolate(os.Args)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		return code
	}
	switch mode {
	case "exit":
		return 7
	case "await-signal":
		return awaitSignal()
	case "lab":
		return runLab()
	case "die":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	return 2
}

func awaitSignal() int {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGTERM)
	fmt.Println("ready")
	<-c
	return 9
}

// runLab starts a process in a namespace, prints where it is and waits.
func runLab() int {
	l, err := netlab.New()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	n, err := l.Namespace("only")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	sleeper := n.Command(context.Background(), "sleep", "1000")
	if err := sleeper.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(os.Getpid(), sleeper.Process.Pid)
	return awaitSignal()
}

func helperCommand(t *testing.T, mode string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	// The race detector sleeps for a second when a process ends.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", helperEnv+"="+mode)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	return cmd
}

func TestIsolationIsReal(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{1, os.Getppid()} {
		other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil && other == own {
			t.Errorf("tests run in the network namespace of process %d", pid)
		}
	}
	links, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(links)) {
		if name, _, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) != "lo" {
			t.Errorf("interface %s in a fresh namespace", strings.TrimSpace(name))
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/run/netns", &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Errorf("/run/netns: type %#x, %v", fs.Type, err)
	}
}

// A marker in the environment alone convinces nobody.
func TestMarkerIsNotBelieved(t *testing.T) {
	for _, tt := range []struct{ name, marker string }{
		{"inherited", os.Getenv("NETLAB_ISOLATED")},
		{"no marker", ""},
		{"nonsense", "1"},
		{"right parent", fmt.Sprintf("%d net:[1] user:[1]", os.Getpid())},
		{"init", "1 net:[1] user:[1]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := helperCommand(t, "believe", "NETLAB_ISOLATED="+tt.marker).Output()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(out), "false true ") {
				t.Errorf("isolated, ErrNotIsolated, err = %s", out)
			}
			t.Logf("%s", out)
		})
	}
}

func TestIsolateExitCode(t *testing.T) {
	for _, tt := range []struct {
		name, mode string
		want       int
	}{
		{"exit", "exit", 7},
		{"killed", "die", 128 + 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var exit *exec.ExitError
			err := helperCommand(t, tt.mode).Run()
			if !errors.As(err, &exit) || exit.ExitCode() != tt.want {
				t.Errorf("ran with %v, want exit status %d", err, tt.want)
			}
		})
	}
}

// Root in its own user namespace is enough.
func TestIsolateUnprivileged(t *testing.T) {
	cmd := helperCommand(t, "lab")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: os.Geteuid() != 0}}
	cmd.Dir = "/"
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("run as nobody: %v", err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Scan()
	var child, sleeper int
	if _, err := fmt.Sscan(lines.Text(), &child, &sleeper); err != nil {
		_ = cmd.Wait()
		t.Skipf("no user namespace: %s", lines.Text())
	}
	lines.Scan()
	_ = cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("ended with %v, want exit status 9", err)
	}
}

func TestIsolateForwardsSignals(t *testing.T) {
	cmd := helperCommand(t, "await-signal")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if s := bufio.NewScanner(stdout); !s.Scan() || s.Text() != "ready" {
		t.Errorf("said %q", s.Text())
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("ended with %v, want exit status 9", err)
	}
}

// Killing the outermost process takes everything with it.
func TestKillLeavesNothing(t *testing.T) {
	cmd := helperCommand(t, "lab")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(stdout)
	s.Scan()
	pids := strings.Fields(s.Text())
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if len(pids) != 2 {
		t.Fatalf("said %q, want two process ids", s.Text())
	}
	for _, p := range pids {
		pid, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		err = netlab.Poll(5*time.Second, func() error {
			if alive(pid) {
				return fmt.Errorf("process %d lives", pid)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// alive reports whether a process runs; an orphan that nobody reaps does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
