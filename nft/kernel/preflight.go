// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// The oldest kernel whose nf_tables carries everything in the table, and whose
// element counters and set user data behave as we read them.
var oldestKernel = [2]int{5, 13}

// configOf names the option of the kernel's configuration behind an expression.
func configOf(expression string) string {
	if expression == "fib" {
		return "CONFIG_NFT_FIB_IPV4 and CONFIG_NFT_FIB_IPV6"
	}
	return "CONFIG_NFT_" + strings.ToUpper(expression)
}

// Preflight asks the kernel whether it can hold a table of the schema, by
// describing one in a transaction that is never committed. It returns
// ErrUnsupported with everything that is missing, or fs.ErrPermission.
func (c *Conn) Preflight(ctx context.Context, s *nft.Schema) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkKernel(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	c.batch.reset(nft.TableName + "-preflight")
	s = s.With(nft.AllFeatures)
	if err := c.batch.declare(s); err != nil {
		return err
	}
	sample := nft.Affinity{Port: nft.PortOf("preflight/preflight/tcp"), Proto: nft.TCP, Timeout: 1, Ways: nft.Ways(0).With(nft.AffinityService)}
	if err := c.batch.own(s, []nft.AffinityChange{{Is: sample}}); err != nil {
		return err
	}
	for _, kind := range []nft.ChainKind{nft.Service, nft.External, nft.NodePort, nft.Local} {
		if err := c.batch.chain(s, s.Dynamic(nft.Chain{Kind: kind, N: 2})); err != nil {
			return err
		}
	}
	// No end message: the kernel checks everything, reports, and drops it all
	// (nfnetlink.c: a batch without NFNL_BATCH_DONE is aborted).
	if err := c.send(); err != nil {
		return fmt.Errorf("preflight: %w", err)
	}
	return c.preflightAnswers(s.Family)
}

func (c *Conn) preflightAnswers(f nft.Family) error {
	var missing []string
	var other error
	err := c.receive(false, func(h unix.NlMsghdr, body []byte) bool {
		if h.Type != unix.NLMSG_ERROR {
			return true
		}
		errno, detail, offset := decodeError(h, body)
		index := int(h.Seq) - 1
		switch name := c.batch.expressionAt(index, int(offset)); {
		case errno == 0:
		case errno == unix.EAFNOSUPPORT:
			missing = append(missing, fmt.Sprintf("nftables tables of family %s (CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6)", f))
		case errno == unix.ENOENT && name != "" && name != "lookup" && name != "immediate":
			missing = append(missing, fmt.Sprintf("the expression %s (%s)", name, configOf(name)))
		default:
			other = errors.Join(other, &CommitError{Message: c.batch.describe(index, offset), Errno: errno, Detail: detail})
		}
		return true
	})
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("%w: missing %s; enable it or load its module", ErrUnsupported, strings.Join(slices.Compact(missing), ", "))
	}
	return errors.Join(other, err)
}

// expressionAt names the expression at an offset of a rule's message.
func (b *batch) expressionAt(index, offset int) string {
	if index <= 0 || index >= len(b.starts) {
		return ""
	}
	msg := b.buf[b.starts[index]:]
	if uint16(msg[4]) != unix.NFT_MSG_NEWRULE {
		return ""
	}
	for _, v := range wire.Attrs(wire.First(msg[wire.HeaderLen+wire.FamilyLen:], unix.NFTA_RULE_EXPRESSIONS)) {
		if at := cap(msg) - cap(v); at-wire.AttrLen <= offset && offset < at+len(v) {
			return wire.String(wire.First(v, unix.NFTA_EXPR_NAME))
		}
	}
	return ""
}

func checkKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if !kernelAtLeast(release, oldestKernel) {
		return fmt.Errorf("%w: Linux %s is older than %d.%d, whose nf_tables is the first that kube-nft relies on; upgrade the kernel",
			ErrUnsupported, release, oldestKernel[0], oldestKernel[1])
	}
	return nil
}

// kernelAtLeast compares a release such as 5.10.0-28-amd64; one that it cannot
// read passes, since the features are asked for one by one anyway.
func kernelAtLeast(release string, want [2]int) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return true
	}
	return major > want[0] || major == want[0] && minor >= want[1]
}
