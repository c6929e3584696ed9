// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3/vt"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// screen is a program at a terminal: a pseudo-terminal, and behind it an emulator
// that shows what somebody would see there.
type screen struct {
	cmd    *netlab.Cmd
	master *os.File
	backed vt.MockBackend
	done   chan struct{}
	sent   chan int // bytes, as they come
}

// openScreen starts a program at a terminal of a size.
func openScreen(t *testing.T, cmd *netlab.Cmd, width, height int) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	// The other side, whatever of /dev/pts this mount namespace has.
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	tty := os.NewFile(slave, "tty")
	s := &screen{cmd: cmd, master: master, done: make(chan struct{}), sent: make(chan int, 1<<16)}
	s.backed = vt.NewMockBackend(vt.MockOptSize{X: vt.Col(width), Y: vt.Row(height)})
	s.size(t, width, height)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LANG=C.UTF-8", "LC_ALL=")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	go s.show()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		master.Close()
		<-s.done
		if t.Failed() {
			t.Logf("the screen:\n%s", strings.Join(s.lines(), "\n"))
		}
	})
	return s
}

// show has the emulator do what the program writes.
func (s *screen) show() {
	defer close(s.done)
	emulator := vt.NewEmulator(s.backed)
	if emulator.Start() != nil {
		return
	}
	defer emulator.Stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := s.master.Read(buf)
		if err != nil {
			return
		}
		_, _ = emulator.Write(buf[:n])
		select {
		case s.sent <- n:
		default:
		}
	}
}

// size gives the terminal a size.
func (s *screen) size(t *testing.T, width, height int) {
	t.Helper()
	s.backed.SetSize(vt.Coord{X: vt.Col(width), Y: vt.Row(height)})
	err := unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
	if err != nil {
		t.Fatal(err)
	}
}

// lines are those on the screen.
func (s *screen) lines() (all []string) {
	size := s.backed.GetSize()
	for y := range size.Y {
		var line strings.Builder
		for x := range size.X {
			if c := s.backed.GetCell(vt.Coord{X: x, Y: y}).C; c == "" {
				line.WriteByte(' ')
			} else {
				line.WriteString(c)
			}
		}
		all = append(all, strings.TrimRight(line.String(), " "))
	}
	return all
}

// press sends keys.
func (s *screen) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// Keys as terminals send them.
const (
	keyDown  = "\x1b[B"
	keyLeft  = "\x1b[D"
	keyRight = "\x1b[C"
	keyEnter = "\r"
	keyEsc   = "\x1b"
)

// shows waits until a line of the screen has all of the words, and returns it.
func (s *screen) shows(t *testing.T, words ...string) string {
	t.Helper()
	var found string
	err := netlab.Poll(10*time.Second, func() error {
		for _, line := range s.lines() {
			if holds(line, words) {
				found = line
				return nil
			}
		}
		return fmt.Errorf("no line of the screen has %q", words)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// hides waits until no line of the screen has all of the words.
func (s *screen) hides(t *testing.T, words ...string) {
	t.Helper()
	err := netlab.Poll(10*time.Second, func() error {
		for _, line := range s.lines() {
			if holds(line, words) {
				return fmt.Errorf("a line of the screen has %q: %q", words, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// second waits until the clock in the first line has moved. What is half drawn has
// no clock.
func (s *screen) second(t *testing.T) {
	t.Helper()
	before := ""
	err := netlab.Poll(10*time.Second, func() error {
		words := strings.Fields(s.lines()[0])
		if len(words) < 3 {
			return fmt.Errorf("no clock in %q", words)
		}
		if _, err := time.Parse(time.TimeOnly, words[2]); err != nil {
			return err
		}
		if before == "" {
			before = words[2]
		}
		if before == words[2] {
			return fmt.Errorf("the clock stands still: %s", before)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func holds(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}

// ends waits until the program ends by itself, and returns its exit code.
func (s *screen) ends(t *testing.T) int {
	t.Helper()
	select {
	case <-s.done: // the terminal was closed on the other side
	case <-time.After(10 * time.Second):
		t.Fatal("the program still runs")
	}
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}
