// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Op is what a call does.
type Op int

// A process sends or receives.
const (
	Send Op = iota
	Receive
)

func (o Op) String() string { return [...]string{"send", "receive"}[o] }

// Topic is what a socket's last request was about, which its answers are about too.
type Topic int

// Topics of netfilter netlink (linux/netfilter/nfnetlink.h).
const (
	Notifications Topic = iota // nothing has been sent: it listens
	Question                   // of nf_tables
	Transaction                // of nf_tables
	Conntrack                  // a question or an order
)

func (t Topic) String() string {
	return [...]string{"notifications", "question", "transaction", "conntrack"}[t]
}

// Call is a call of the process on a netfilter netlink socket that is about to be made.
type Call struct {
	N     int // how many there were in the life of the Injector, with this one
	Op    Op
	Topic Topic
	// Again says that nothing was sent since the socket's last receive: most likely
	// there is nothing to receive any more.
	Again bool
}

func (c Call) String() string { return fmt.Sprintf("%s %s", c.Op, c.Topic) }

// Verdict is what becomes of a call. The zero value lets it go on.
type Verdict struct {
	made  bool // the call is made before anything else
	kill  bool
	errno unix.Errno
	after time.Duration
}

// Fail has a call fail that is not made.
func Fail(errno unix.Errno) Verdict { return Verdict{errno: errno} }

// Lose makes a call and has it fail all the same: the kernel has done what was asked,
// or what was received is gone.
func Lose(errno unix.Errno) Verdict { return Verdict{made: true, errno: errno} }

// Kill kills the process instead of the call.
func Kill() Verdict { return Verdict{kill: true} }

// KillAfter makes the call, and kills the process before it learns of that.
func KillAfter() Verdict { return Verdict{made: true, kill: true} }

// Delay lets a call go on late.
func Delay(d time.Duration) Verdict { return Verdict{after: d} }

// Rule decides on a call. It is called from one goroutine at a time.
type Rule func(Call) Verdict

// Times is a Rule that gives a verdict on the first n calls that match.
func Times(n int, verdict Verdict, match func(Call) bool) Rule {
	return func(c Call) Verdict {
		if n <= 0 || !match(c) {
			return Verdict{}
		}
		n--
		return verdict
	}
}

// Of matches calls of one kind; of those that receive, the first after a request.
func Of(op Op, topic Topic) func(Call) bool {
	return func(c Call) bool { return c.Op == op && c.Topic == topic && !c.Again }
}
