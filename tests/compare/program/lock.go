// SPDX-License-Identifier: Apache-2.0

package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// lockProber finds out how long the lock of a namespace's nftables is held: every few
// milliseconds it begins a transaction upon a generation of the tables that there has
// never been. The kernel takes the lock, finds that out, and gives it back at once. (It
// does not do so if a transaction fails later: then it waits for all processors.) While
// it waits for the lock, nobody else begins a transaction, not even in another namespace:
// what is compared has the machine for itself.
type lockProber struct {
	fd   int
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	waits []float64 // seconds
	since time.Time // when the probe began that is under way; zero is none
	err   error
}

const lockEvery = 3 * time.Millisecond

func probeLock(n *netlab.Namespace) (*lockProber, error) {
	p := &lockProber{stop: make(chan struct{})}
	err := n.Do(func() (err error) {
		if p.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	p.done.Go(func() { favoured(p.run) })
	return p, nil
}

func (p *lockProber) run() {
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for {
		p.mu.Lock()
		p.since = time.Now()
		p.mu.Unlock()
		took, err := p.probe()
		p.mu.Lock()
		p.since = time.Time{}
		if err != nil {
			p.err = err
			p.mu.Unlock()
			return
		}
		p.waits = append(p.waits, took.Seconds())
		p.mu.Unlock()
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

// take returns what was measured since the last call, with what is still waited for.
func (p *lockProber) take() (seconds []float64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seconds, p.waits = p.waits, nil
	if waits := time.Since(p.since); !p.since.IsZero() && waits > lockEvery {
		seconds = append(seconds, waits.Seconds())
	}
	return seconds, p.err
}

func (p *lockProber) close() {
	close(p.stop)
	p.done.Wait()
	_ = unix.Close(p.fd)
}

// probe sends the transaction and returns how long that took.
func (p *lockProber) probe() (time.Duration, error) {
	request := failingBatch()
	began := time.Now()
	if err := unix.Sendto(p.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	took := time.Since(began) // the kernel works inside the call
	var answer [512]byte
	n, _, err := unix.Recvfrom(p.fd, answer[:], 0)
	if err != nil {
		return 0, err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return 0, errors.New("no error for what must fail")
	}
	if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:]))); errno != unix.ERESTART {
		return 0, fmt.Errorf("begin upon an unknown generation: %w", errno)
	}
	return took, nil
}

// failingBatch begins a transaction upon generation 2³²-1, and ends it.
func failingBatch() []byte {
	const (
		subsystem = unix.NFNL_SUBSYS_NFTABLES
		genID     = 1 // NFNL_BATCH_GENID
	)
	attr := binary.NativeEndian.AppendUint16(nil, 8)
	attr = binary.NativeEndian.AppendUint16(attr, genID)
	attr = binary.BigEndian.AppendUint32(attr, 1<<32-1)
	b := message(unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, unix.AF_UNSPEC, subsystem, attr)
	return append(b, message(unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, unix.AF_UNSPEC, subsystem, nil)...)
}

// message is one of nfnetlink's: two headers and what follows.
func message(kind, flags int, family byte, resource uint16, attrs []byte) []byte {
	const headers = unix.SizeofNlMsghdr + 4
	b := binary.NativeEndian.AppendUint32(nil, uint32(headers+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, uint16(flags))
	b = append(b, make([]byte, 8)...) // sequence number and port
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, attrs...)
}
