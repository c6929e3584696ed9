// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/prometheus/procfs"

	"github.com/kube-nft/kube-nft/controller/doctor"
	"github.com/kube-nft/kube-nft/nft"
)

// read reads a file of the host: below its root if it is mounted there, else our own.
func (g *gatherer) read(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join(g.root, path))
	if errors.Is(err, fs.ErrNotExist) {
		text, err = os.ReadFile(filepath.Join("/", path))
	}
	return string(text), err
}

// procRoot is where the host's processes are, if its root is mounted, else our own.
func (g *gatherer) procRoot() string {
	root := filepath.Join(g.root, "proc")
	if _, err := os.Stat(filepath.Join(root, "1")); err != nil {
		return "/proc"
	}
	return root
}

// firstPIDs is the inode of the PID namespace that the kernel starts with
// (linux/proc_ns.h, PROC_PID_INIT_INO).
const firstPIDs = "pid:[4026531836]"

// processes looks for kube-proxy, and for how many packets rp_filter has dropped.
func (g *gatherer) processes() {
	if self, err := procfs.Self(); err == nil {
		if n, err := self.Netstat(); err == nil && n.TcpExt.IPReversePathFilter != nil {
			g.facts.ReversePathDrops = uint64(*n.TcpExt.IPReversePathFilter)
		}
	}
	root := g.procRoot()
	if ns, err := os.Readlink(root + "/self/ns/pid"); err != nil || ns != firstPIDs {
		g.gap("processes outside of this container, kube-proxy among them",
			errors.New("they cannot be seen: run it on the host, in a pod with hostPID, or mount the host's /proc below --host-root"))
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		g.gap("processes", err)
		return
	}
	if first, err := os.Readlink(root + "/1/ns/net"); err == nil && first != own {
		g.gap("the host's own network namespace",
			errors.New("this is another one, as in a pod without hostNetwork: what is said here is true of this one alone"))
	}
	all, err := proxiesHere(root)
	g.gap("processes", err)
	for _, p := range all {
		// A kube-proxy that is inside another program shows by what it programs.
		if idle := len(g.facts.Leftovers) == 0 || g.facts.LeftoversInert; p.inside() && idle {
			continue
		}
		g.facts.Proxies = append(g.facts.Proxies, doctor.Process{PID: p.pid, Name: p.name(), Sure: !p.unsure && !p.inside()})
	}
}

func procsOf(root string) (procfs.Procs, error) {
	files, err := procfs.NewFS(root)
	if err != nil {
		return nil, err
	}
	return files.AllProcs()
}

// States of sockets in /proc/net (net/tcp_states.h): one of UDP that is connected to
// nobody looks like a closed one of TCP.
const (
	tcpListen = 10
	udpOpen   = 7
)

// listeners collects sockets whose port a frontend has, and whose they are. Those on
// loopback get no packets of others.
func (g *gatherer) listeners() {
	ports := make(map[uint16]bool)
	for _, family := range g.facts.Families {
		for _, e := range family.Frontends {
			ports[e.Port] = true
		}
	}
	files, err := procfs.NewFS("/proc")
	if err != nil {
		g.gap("local sockets", err)
		return
	}
	inodes := make(map[string][]int) // which of the listeners it is
	add := func(proto nft.Proto, ip net.IP, port, inode uint64) {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok || !ports[uint16(port)] || addr.IsLoopback() {
			return
		}
		key := fmt.Sprintf("socket:[%d]", inode)
		inodes[key] = append(inodes[key], len(g.facts.Listeners))
		g.facts.Listeners = append(g.facts.Listeners, doctor.Listener{Addr: addr.Unmap(), Proto: proto, Port: uint16(port)})
	}
	//lint:ignore SA1019 what should be used instead, sock_diag, is a module that not every kernel has and no container can load
	for _, list := range []func() (procfs.NetTCP, error){files.NetTCP, files.NetTCP6} {
		lines, err := list()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			g.gap("local TCP sockets", err)
		}
		for _, l := range lines {
			if l.St == tcpListen {
				add(nft.TCP, l.LocalAddr, l.LocalPort, l.Inode)
			}
		}
	}
	for _, list := range []func() (procfs.NetUDP, error){files.NetUDP, files.NetUDP6} {
		lines, err := list()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			g.gap("local UDP sockets", err)
		}
		for _, l := range lines {
			if l.St == udpOpen && l.RemPort == 0 {
				add(nft.UDP, l.LocalAddr, l.LocalPort, l.Inode)
			}
		}
	}
	g.name(inodes)
}

// name finds the processes that have the sockets.
func (g *gatherer) name(inodes map[string][]int) {
	if len(inodes) == 0 {
		return
	}
	all, err := procsOf(g.procRoot())
	if err != nil {
		return // they stay without names
	}
	for _, p := range all {
		targets, err := p.FileDescriptorTargets()
		if err != nil {
			continue
		}
		for _, target := range targets {
			for _, i := range inodes[target] {
				if name, err := p.Comm(); err == nil {
					g.facts.Listeners[i].Process = fmt.Sprintf("%s (process %d)", name, p.PID)
				}
			}
		}
	}
}
