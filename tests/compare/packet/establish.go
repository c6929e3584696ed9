// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// establish makes flows established whose SYN the node has seen. The SYNs are sent once
// more, to see where they come out; there they are answered. The node tracks the answer
// before it looks for a way to the client, of which there need not be any: nobody hears
// it.
func (m *meter) establish(syns []segment) error {
	ear, err := m.listen()
	if err != nil {
		return err
	}
	defer unix.Close(ear)
	var answers []segment
	for at := 0; at < len(syns); at += burst {
		if _, err := m.sender.Send(syns[at:min(at+burst, len(syns))]); err != nil {
			return err
		}
		heard, err := hear(ear)
		if err != nil {
			return err
		}
		answers = append(answers, heard...)
	}
	if len(answers) < len(syns) {
		return fmt.Errorf("%s: %d of %d SYNs are heard", m.lane.Node.Path(), len(answers), len(syns))
	}
	_, err = timed(m.back, answers)
	return err
}

// listen returns a socket that hears all that arrives at the pods, whoever it is for.
func (m *meter) listen() (fd int, err error) {
	err = m.lane.Pods.Do(func() error {
		nic, err := net.InterfaceByName(m.lane.PodsIf)
		if err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		// A burst has room in it, also where the limit is low and may not be passed.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, burst*4096)
		const ipv4 = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: nic.Index, Protocol: ipv4}); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return -1, fmt.Errorf("listen on %s of %s: %w", m.lane.PodsIf, m.lane.Pods.Path(), err)
	}
	return fd, nil
}

// hear returns the answers to the SYNs that have arrived.
func hear(fd int) (answers []segment, err error) {
	frame := make([]byte, 256)
	for {
		n, _, err := unix.Recvfrom(fd, frame, 0)
		if errors.Is(err, unix.EAGAIN) {
			return answers, nil
		}
		if err != nil {
			return nil, err
		}
		if s, ok := parseSYN(frame[:n]); ok {
			answers = append(answers, s.answer())
		}
	}
}
