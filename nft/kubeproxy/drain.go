// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Busy is what still needs the mode ipvs.
type Busy struct {
	Services    int // virtual services with connections
	Connections int // of those
	Sockets     int // of this node's processes, connected from an address of kube-ipvs0
}

// Idle says that nothing does.
func (b Busy) Idle() bool { return b == Busy{} }

// String says it to people.
func (b Busy) String() string {
	return fmt.Sprintf("%s of %s through IPVS, and %s of this node's own processes at addresses of %s",
		count(b.Connections, "connection"), count(b.Services, "virtual service"), count(b.Sockets, "socket"), device)
}

// RemoveIdle removes what no connection needs of the mode ipvs: IPVS drops the packets
// of a connection whose virtual service is gone, and a process's connection dies with
// the address that it comes from. It returns what is still needed; when that is nothing
// all is removed. Rules must have been removed before, and new connections must not come
// to IPVS any more: those that another proxy translates do not. New connections of this
// node's processes get another address than one of kube-ipvs0. It is called again until
// nothing is needed; f.Services are then those that still were the time before.
func (f *Found) RemoveIdle(ctx context.Context) (Busy, error) {
	var busy Busy
	if len(f.Services) > 0 {
		if err := f.removeIdleServices(ctx, &busy); err != nil {
			return busy, err
		}
	}
	if f.Device != nil {
		if !f.yielded {
			if err := f.Device.yield(); err != nil {
				return busy, err
			}
			f.yielded = true
		}
		var err error
		if busy.Sockets, err = f.Device.sockets(); err != nil {
			return busy, err
		}
	}
	if !busy.Idle() {
		return busy, nil
	}
	rest := Found{IPSets: f.IPSets, Device: f.Device}
	return busy, rest.RemoveIPVS(ctx)
}

func (f *Found) removeIdleServices(ctx context.Context, busy *Busy) error {
	v, err := openIPVS()
	if v == nil || err != nil {
		return err
	}
	defer v.conn.Close()
	open, err := v.open(ctx, f.Services)
	if err != nil {
		return err
	}
	var needed []VirtualService
	for i := range f.Services {
		s := &f.Services[i]
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n := open[s.Frontend]; n > 0 {
			busy.Services, busy.Connections = busy.Services+1, busy.Connections+n
			needed = append(needed, *s)
			continue
		}
		if err := v.remove(s); err != nil {
			return err
		}
	}
	f.Services = needed
	return nil
}

// sockets counts those that are connected and whose own address is the device's. One
// that is over, and waits for late packets, does not count.
func (d *Device) sockets() (n int, err error) {
	bound := make(map[netip.Addr]bool, len(d.Addrs))
	for _, a := range d.Addrs {
		bound[a] = true
	}
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		file, err := os.Open("/proc/thread-self/net/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return 0, explain("list sockets", err)
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			if own, connected := parseSocket(lines.Text()); connected && bound[own] {
				n++
			}
		}
		file.Close()
		if err := lines.Err(); err != nil {
			return 0, explain("list sockets", err)
		}
	}
	return n, nil
}

// timeWait is the state of a TCP connection that is over (TCP_TIME_WAIT).
const timeWait = "06"

// parseSocket reads a line of /proc/net/tcp and its relatives, which begins
//
//	0: 0A00600A:0035 0100007F:A5C2 01
//
// with own and remote address, in words of the host's order, and the state.
func parseSocket(line string) (own netip.Addr, connected bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[3] == timeWait {
		return own, false
	}
	addr, _, _ := strings.Cut(fields[1], ":")
	_, port, _ := strings.Cut(fields[2], ":")
	if n, err := strconv.ParseUint(port, 16, 16); err != nil || n == 0 {
		return own, false
	}
	b, err := hex.DecodeString(addr)
	if err != nil || len(b)%4 != 0 {
		return own, false
	}
	for at := 0; at < len(b); at += 4 {
		binary.NativeEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:]))
	}
	own, connected = netip.AddrFromSlice(b)
	return own.Unmap(), connected
}
