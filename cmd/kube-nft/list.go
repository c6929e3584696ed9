// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// listOptions are the flags of list.
type listOptions struct {
	output        string
	all           bool
	noHeaders     bool
	sortBy        string
	protocol      string
	address       string
	filter        view.Filter
	out, complain io.Writer
}

// outputs are the forms of -o; "" is a table.
var outputs = []string{"", "wide", "json", "yaml", "name"}

func listCommand() *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list [[NAMESPACE/]SERVICE[:PORT]]...",
		Short: "List Services and endpoints as the kernel has them",
		Long: `list reads the tables of this host and nothing else: what it shows is what packets
meet, also while kube-nft run is stopped. It changes nothing and holds up nobody.

One Service, as NAMESPACE/SERVICE, is shown in detail.`,
		Example: `  kube-nft list
  kube-nft list -n kube-system -o wide
  kube-nft list default/web
  kube-nft list --unserved
  kube-nft list --address 10.244.1.7
  kube-nft list --sort-by connections | head
  kube-nft list -o json | jq -r '.items[] | select(.state != "served") | .service'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.out, o.complain = cmd.OutOrStdout(), cmd.ErrOrStderr()
			o.filter.Names = args
			if err := o.check(); err != nil {
				return fmt.Errorf("%w; %w", err, errUsage)
			}
			return o.list(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "wide, json, yaml or name; without it a table")
	f.StringVarP(&o.filter.Namespace, "namespace", "n", "", "only Services of this namespace; without it those of all")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "Services of all namespaces, as without -n")
	f.StringVar(&o.address, "address", "", "only Services that have this address, or address:port, as a frontend's or an endpoint's")
	f.StringVar(&o.protocol, "protocol", "", "only tcp, udp or sctp")
	f.BoolVar(&o.filter.Unserved, "unserved", false, "only Services at which somebody is refused or dropped")
	f.StringVar(&o.sortBy, "sort-by", string(view.ByName), "name, connections, endpoints, address or state")
	f.BoolVar(&o.noHeaders, "no-headers", false, "leave out the line of headers")
	return cmd
}

// check reads what was typed.
func (o *listOptions) check() error {
	var errs []error
	if !slices.Contains(outputs, o.output) {
		errs = append(errs, fmt.Errorf("--output: %q is not wide, json, yaml or name", o.output))
	}
	if o.all && o.filter.Namespace != "" {
		errs = append(errs, errors.New("--all-namespaces and --namespace exclude each other"))
	}
	if _, err := view.ParseOrder(o.sortBy); err != nil {
		errs = append(errs, fmt.Errorf("--sort-by: %w", err))
	}
	protocols := map[string]nft.Proto{"": 0, "tcp": nft.TCP, "udp": nft.UDP, "sctp": nft.SCTP}
	proto, ok := protocols[strings.ToLower(o.protocol)]
	if o.filter.Protocol = proto; !ok {
		errs = append(errs, fmt.Errorf("--protocol: %q is not tcp, udp or sctp", o.protocol))
	}
	for _, name := range o.filter.Names {
		if service, _, _ := strings.Cut(name, ":"); service == "" || strings.Count(service, "/") > 1 ||
			strings.HasPrefix(service, "/") || strings.HasSuffix(service, "/") {
			errs = append(errs, fmt.Errorf("%q names no Service: write SERVICE, NAMESPACE/SERVICE, or either with :PORT", name))
		}
	}
	return errors.Join(append(errs, o.checkAddress())...)
}

func (o *listOptions) checkAddress() (err error) {
	if o.address == "" {
		return nil
	}
	if o.filter.Addr, err = netip.ParseAddr(o.address); err == nil {
		o.filter.Addr = o.filter.Addr.Unmap()
		return nil
	}
	if o.filter.AddrPort, err = netip.ParseAddrPort(o.address); err != nil {
		return fmt.Errorf("--address: %q is no address and no address:port", o.address)
	}
	return nil
}

// list prints what the kernel has.
func (o *listOptions) list(ctx context.Context) error {
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	seen, err := look(ctx, conn, o.filter.May)
	if err != nil && (seen == nil || len(seen.found) == 0) {
		return err
	}
	ports := o.filter.Choose(seen.view)
	view.Sort(ports, view.Order(o.sortBy))
	o.warn(seen, ports)
	if none := o.missing(seen.view); none != nil {
		err = errors.Join(err, none)
	}
	return errors.Join(o.print(seen, ports), err)
}

// warn says what is wrong with the tables as a whole, beside what they hold.
func (o *listOptions) warn(seen *sight, ports []view.ServicePort) {
	for _, found := range seen.found {
		if found.Altered != nil {
			fmt.Fprintf(o.complain, "kube-nft: table %s %s: %v; kube-nft run puts it right, and while it is stopped nobody does\n",
				found.Schema.Family, nft.TableName, found.Altered)
		}
	}
	torn := slices.ContainsFunc(ports, func(p view.ServicePort) bool { return p.Torn() })
	if !seen.whole() && (torn || len(o.filter.Names) == 0) { // a few Services were read in no time
		fmt.Fprintln(o.complain, "kube-nft: something was committed while the tables were read: parts may be older than others")
	}
	if n := seen.view.Unnamed; n > 0 {
		fmt.Fprintf(o.complain, "kube-nft: left out: %d frontends that do not say whose they are, which kube-nft did not make\n", n)
	}
}

// missing names the Services that were asked for by name and are not there.
func (o *listOptions) missing(v *view.View) error {
	var errs []error
	for _, name := range o.filter.Names {
		f := view.Filter{Namespace: o.filter.Namespace, Names: []string{name}}
		if !slices.ContainsFunc(v.Ports, func(p view.ServicePort) bool { return f.May(p.Name) }) {
			errs = append(errs, fmt.Errorf("the tables of this host have no Service %q: in this namespace and at this port, if one was named: it is misspelt, headless, of another proxy, or another Service has its addresses: kube-nft explain NAMESPACE/SERVICE says which", name))
		}
	}
	return errors.Join(errs...)
}

// print prints Service ports in the form that was asked for.
func (o *listOptions) print(seen *sight, ports []view.ServicePort) error {
	switch o.output {
	case "json", "yaml":
		return printObjects(o.out, o.output, seen, ports)
	case "name":
		for i := range ports {
			fmt.Fprintln(o.out, printable(ports[i].Name.String()))
		}
		return nil
	}
	if len(ports) == 0 {
		if len(o.filter.Names) == 0 {
			fmt.Fprintln(o.complain, "No Service ports found.")
		}
		return nil
	}
	if o.output == "" && len(o.filter.Names) == 1 && strings.Contains(o.filter.Names[0], "/") {
		return printDetails(o.out, seen.view, ports)
	}
	return o.printTable(ports)
}
