// SPDX-License-Identifier: Apache-2.0

package site

import (
	"context"
	"fmt"
	"io"
	"net"

	"golang.org/x/net/ipv4"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
)

// serve answers in the pods at every endpoint's address: the handshake and an echo by
// TCP, an echo by UDP, on the port of Services' endpoints and on that of DNS. It ends
// with the node.
func (n *Node) serve() error {
	for _, port := range []int{shape.TargetPort, 53} {
		address := fmt.Sprintf(":%d", port)
		err := n.Pods.Do(func() error {
			var config net.ListenConfig
			tcp, err := config.Listen(context.Background(), "tcp4", address)
			if err != nil {
				return err
			}
			n.closers = append(n.closers, tcp)
			go serveTCP(tcp)
			udp, err := config.ListenPacket(context.Background(), "udp4", address)
			if err != nil {
				return err
			}
			n.closers = append(n.closers, udp)
			return serveUDP(udp)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// serveTCP echoes until the listener is closed. Whoever wants a SYN answered only is
// answered by the kernel.
func serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// serveUDP echoes until the socket is closed, from the address that was asked.
func serveUDP(udp net.PacketConn) error {
	c := ipv4.NewPacketConn(udp)
	if err := c.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			size, about, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:size], &ipv4.ControlMessage{Src: about.Dst}, from)
		}
	}()
	return nil
}
