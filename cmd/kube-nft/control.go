// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// controlName is where `run` answers the other commands: an abstract unix socket, so
// that it belongs to the network namespace, as the tables do, is visible in every
// container that shares it, and is gone with the process whatever its end. Who has it is
// the one kube-nft of its namespace.
const controlName = "@kube-nft"

const (
	// handOver is how long a kube-nft that starts waits for another one to end, as one
	// that is replaced does.
	handOver = 3 * time.Second
	// controlAgain is how often a name that a stranger has is tried again.
	controlAgain = 5 * time.Second
	// tryAgain is how often it is within handOver.
	tryAgain = 50 * time.Millisecond
)

// errHeld says that another kube-nft serves this network namespace.
var errHeld = errors.New("another kube-nft serves this network namespace already")

// holder is who has the socket's name.
type holder struct {
	listens  bool
	pid, uid int // pid 0 is a process of another PID namespace
}

// stranger reports whether the holder is none that kube-nft would obey. kube-nft
// listens as soon as it has the name; whoever does not is no kube-nft.
func (h holder) stranger() bool { return !h.listens || !trusted(h.uid) && !mayChange(h.pid) }

// trusted reports whether a user may ask us, and may be a kube-nft: root, and our own
// user. Root in a container without capabilities is among them, who cannot touch our
// tables, but can keep us from starting (SECURITY.md): a socket tells who the user is,
// and not what he may do.
func trusted(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// mayChange reports whether a process can do as it likes to our tables whoever its user
// is, as a kube-nft with nothing but CAP_NET_ADMIN: in a user namespace of its own it
// would be a capability over something else.
func mayChange(pid int) bool {
	if pid == 0 {
		return false
	}
	proc := "/proc/" + strconv.Itoa(pid)
	its, err := os.Readlink(proc + "/ns/user")
	if ours, ourErr := os.Readlink("/proc/self/ns/user"); err != nil || ourErr != nil || its != ours {
		return false
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return false
	}
	_, caps, _ := strings.Cut(string(status), "CapEff:")
	line, _, _ := strings.Cut(caps, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err == nil && set&(1<<unix.CAP_NET_ADMIN) != 0
}

func (h holder) String() string {
	switch {
	case !h.listens:
		return "a process that does not listen there"
	case h.pid == 0:
		return fmt.Sprintf("a process in another container, of user %d", h.uid)
	}
	return fmt.Sprintf("process %d, of user %d", h.pid, h.uid)
}

// holderOf asks the kernel who listens at the socket's name: it keeps who called
// listen (unix(7), SO_PEERCRED).
func holderOf(ctx context.Context) (holder, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", controlName)
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EAGAIN):
		return holder{}, nil // nobody, somebody who only has the name, or who lets nobody in
	case err != nil:
		return holder{}, fmt.Errorf("find out who has the socket %s: %w", controlName, err)
	}
	defer conn.Close()
	who, err := credentials(conn)
	if err != nil {
		return holder{}, fmt.Errorf("find out who has the socket %s: %w", controlName, err)
	}
	return holder{listens: true, pid: int(who.Pid), uid: int(who.Uid)}, nil
}

// credentials are those of the process at the other end.
func credentials(conn net.Conn) (who *unix.Ucred, err error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return who, cmp.Or(controlErr, err)
}

// takeControl makes this process the one kube-nft of its network namespace. If
// another one is, that gets a moment to end, then the error is errHeld. A stranger who
// has the name keeps nobody from starting: then there is neither listener nor error.
func takeControl(ctx context.Context, log *slog.Logger) (net.Listener, error) {
	deadline, told := time.Now().Add(handOver), false
	for {
		l, err := net.Listen("unix", controlName)
		if err == nil {
			return trustedListener{l}, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("listen at the control socket: %w", err)
		}
		who, err := holderOf(ctx)
		late := time.Now().After(deadline)
		switch {
		case err != nil:
			return nil, err
		case late && who.stranger():
			log.Warn("the control socket's name belongs to somebody else: all else goes on, but commands cannot ask this kube-nft, and it cannot see a second one",
				"socket", controlName, "holder", who.String(), "mend", "end that process; ss -xlp shows it")
			return nil, nil
		case late:
			return nil, held(ctx, who)
		case !told:
			told = true
			log.Info("the control socket is taken, waiting a moment for its holder to end", "socket", controlName, "holder", who.String())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(tryAgain):
		}
	}
}

// held describes the other kube-nft, which may tell of itself.
func held(ctx context.Context, who holder) error {
	is := who.String()
	if s, err := askStatus(ctx); err == nil {
		if who.pid == 0 {
			is += ", where it is " + strconv.Itoa(s.PID)
		}
		is += fmt.Sprintf(", version %s, for node %s since %s", s.Version, s.Node, s.Started.Format(time.DateTime))
	}
	return fmt.Errorf("%w: %s; both would write the same two tables, with --service-proxy-name too: end that one first (a pod on this node, or a service of the host), or leave it in charge",
		errHeld, is)
}

// trustedListener accepts connections of root and of our own user, and closes all
// others before they have said a word.
type trustedListener struct{ net.Listener }

// Accept implements net.Listener.
func (l trustedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if who, err := credentials(conn); err == nil && trusted(int(who.Uid)) {
			return conn, nil
		}
		conn.Close()
	}
}
