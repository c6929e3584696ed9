// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// tracked returns how many connections a namespace tracks.
func tracked(n *netlab.Namespace) (count int, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			count, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	return count, err
}

// received returns how many packets an interface of a namespace has received.
func received(n *netlab.Namespace, ifname string) (count int, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err == nil {
			count, err = parseReceived(string(text), ifname)
		}
		return err
	})
	return count, err
}

// parseReceived finds the received packets of an interface in /proc/net/dev.
func parseReceived(text, ifname string) (int, error) {
	for line := range strings.Lines(text) {
		name, figures, ok := strings.Cut(line, ":")
		fields := strings.Fields(figures)
		if ok && strings.TrimSpace(name) == ifname && len(fields) > 2 {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("no interface %s in /proc/net/dev", ifname)
}
