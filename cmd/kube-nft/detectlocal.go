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
	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/controller/model"
)

// detectLocal reads how traffic of this node's pods is known. As in kube-proxy each
// of the settings counts in its own mode alone. Every problem is reported at once.
func (o *options) detectLocal(c *config.Configuration) (controller.DetectLocal, error) {
	d := controller.DetectLocal{Mode: controller.LocalMode(c.DetectLocalMode)}
	var err error
	switch d.Mode {
	case controller.LocalByClusterCIDR:
		d.CIDRs, err = parseClusterCIDR(o.name("clusterCIDR"), c.ClusterCIDR)
	case controller.LocalByNodeCIDR:
	case controller.LocalByBridge:
		d.Interface = c.DetectLocal.BridgeInterface
		err = checkInterface(o.name("detectLocal.bridgeInterface"), o.name("detectLocalMode"), d.Interface)
	case controller.LocalByInterfacePrefix:
		d.Interface = c.DetectLocal.InterfaceNamePrefix
		err = checkInterface(o.name("detectLocal.interfaceNamePrefix"), o.name("detectLocalMode"), d.Interface)
	default:
		err = fmt.Errorf("%s: %q is none of %s, %s, %s, %s", o.name("detectLocalMode"), d.Mode, controller.LocalByClusterCIDR,
			controller.LocalByNodeCIDR, controller.LocalByBridge, controller.LocalByInterfacePrefix)
	}
	return d, err
}

// checkInterface checks the name of an interface, or the beginning of names, by
// what the kernel takes for one (dev_valid_name in net/core/dev.c). Patterns and
// quotes, which it would take, are mistakes, and nft text cannot express them.
func checkInterface(setting, mode, name string) error {
	var errs []error
	note := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{setting}, args...)...))
	}
	if name == "" {
		note("missing: this %s needs it", mode)
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
func parseClusterCIDR(setting, s string) (pods [model.Families]netip.Prefix, err error) {
	if s == "" {
		return pods, nil
	}
	var errs []error
	for word := range strings.SplitSeq(s, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(word))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not a CIDR like 10.244.0.0/16", setting, word))
			continue
		}
		f := model.FamilyOf(p.Addr())
		if pods[f].IsValid() {
			errs = append(errs, fmt.Errorf("%s: %s and %s are of one family, give at most one of each", setting, pods[f], p))
			continue
		}
		pods[f] = p.Masked()
	}
	return pods, errors.Join(errs...)
}
