// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/site"
	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

// freeWait is how long the kernel takes to give back what tables were in.
const freeWait = 2 * time.Second

// tables measures the kernel's memory that is in the proxy's tables: what is there less
// when they are gone, the proxy itself being gone already. It is that of the whole
// machine, on which nothing else should happen meanwhile.
func (v *visit) tables(ctx context.Context) error {
	if err := v.proxy.Kill(); err != nil {
		return err
	}
	if err := v.node.Router.Do(forgetFlows); err != nil {
		return err
	}
	v.sleep(ctx, freeWait)
	before := usualKernelMemory()
	if err := wipe(v.node.Router, v.peer); err != nil {
		return err
	}
	v.sleep(ctx, freeWait)
	row := v.row("memory", "", "kernel", "B")
	row.Note = "difference of SUnreclaim + VmallocUsed + Percpu of the machine when the tables are deleted"
	v.add(row, float64(before-usualKernelMemory()))
	return nil
}

// usualKernelMemory is the median of some looks: the stacks of threads that come and go
// are in it, too.
func usualKernelMemory() int64 {
	var looks [9]int64
	for i := range looks {
		looks[i] = kernelMemory()
		time.Sleep(50 * time.Millisecond)
	}
	slices.Sort(looks[:])
	return looks[len(looks)/2]
}

// wipe deletes all tables of a namespace.
func wipe(n *netlab.Namespace, p peer.Peer) error {
	if p.Netfilter() {
		return n.NFT("flush ruleset")
	}
	restore := n.Command(context.Background(), "xtables-legacy-multi", "iptables-restore")
	restore.Stdin = strings.NewReader("*nat\nCOMMIT\n*filter\nCOMMIT\n*mangle\nCOMMIT\n")
	if out, err := restore.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return nil
}

// forgetFlows empties the connection tracking of the calling thread's namespace.
func forgetFlows() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const deleteFlows = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE, of all
	return unix.Sendto(fd, message(deleteFlows, unix.NLM_F_REQUEST, unix.AF_UNSPEC, 0, nil), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// programming is how long the proxy has worked at its tables until now, by its own
// metrics, which have the same name in all of them. Of the two families one has all the
// work; some count it for both.
func programming(n *site.Node) (seconds float64, ok bool) {
	status, text, err := process.Get(n.Router, "http://"+peer.MetricsAddress+"/metrics")
	if err != nil || status != 200 {
		return 0, false
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if family, _, _ := strings.Cut(name, "{"); family != "kubeproxy_sync_proxy_rules_duration_seconds_sum" {
			continue
		}
		if sum, err := strconv.ParseFloat(value, 64); err == nil {
			seconds, ok = max(seconds, sum), true
		}
	}
	return seconds, ok
}
