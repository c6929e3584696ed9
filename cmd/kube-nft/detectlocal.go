// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/model"
)

// detectLocal reads the flags that tell how traffic of this node's pods is known.
// As in kube-proxy each of them counts in its own mode alone. Every problem is
// reported at once.
func (o *options) detectLocal() (controller.DetectLocal, error) {
	d := controller.DetectLocal{Mode: controller.LocalMode(o.detectLocalMode)}
	var err error
	switch d.Mode {
	case "", controller.LocalByClusterCIDR:
		d.Mode = controller.LocalByClusterCIDR
		d.CIDRs, err = parseClusterCIDR(o.clusterCIDR)
	case controller.LocalByNodeCIDR:
	case controller.LocalByBridge:
		d.Interface = o.podBridgeInterface
		err = checkInterface("--pod-bridge-interface", d.Interface)
	case controller.LocalByInterfacePrefix:
		d.Interface = o.podInterfaceNamePrefix
		err = checkInterface("--pod-interface-name-prefix", d.Interface)
	default:
		err = fmt.Errorf("--detect-local-mode: %q is none of %s, %s, %s, %s", d.Mode, controller.LocalByClusterCIDR,
			controller.LocalByNodeCIDR, controller.LocalByBridge, controller.LocalByInterfacePrefix)
	}
	return d, err
}

// checkInterface checks the name of an interface, or the beginning of names, by
// what the kernel takes for one (dev_valid_name in net/core/dev.c). Patterns and
// quotes, which it would take, are mistakes, and nft text cannot express them.
func checkInterface(flag, name string) error {
	var errs []error
	note := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{flag}, args...)...))
	}
	if name == "" {
		note("missing: this --detect-local-mode needs it")
	}
	if len(name) >= unix.IFNAMSIZ {
		note("%q is longer than %d bytes, as no interface's name is", name, unix.IFNAMSIZ-1)
	}
	if i := strings.IndexFunc(name, unicode.IsSpace); i >= 0 {
		note("%q has a blank in it", name)
	}
	if i := strings.IndexAny(name, `*/:"`); i >= 0 {
		note("%q has a %q in it: give the name itself", name, name[i])
	}
	return errors.Join(errs...)
}

// parseClusterCIDR reads one CIDR, or one of each family with a comma between.
func parseClusterCIDR(s string) (pods [model.Families]netip.Prefix, err error) {
	if s == "" {
		return pods, nil
	}
	var errs []error
	for word := range strings.SplitSeq(s, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(word))
		if err != nil {
			errs = append(errs, fmt.Errorf("--cluster-cidr: %q is not a CIDR like 10.244.0.0/16", word))
			continue
		}
		f := model.FamilyOf(p.Addr())
		if pods[f].IsValid() {
			errs = append(errs, fmt.Errorf("--cluster-cidr: %s and %s are of one family, give at most one of each", pods[f], p))
			continue
		}
		pods[f] = p.Masked()
	}
	return pods, errors.Join(errs...)
}
