// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	options
	output string
}

func explainCommand() *cobra.Command {
	o := explainOptions{options: options{looksOnly: true}}
	cmd := &cobra.Command{
		Use:   "explain NAMESPACE/SERVICE | SOURCE DESTINATION:PORT[/PROTOCOL]",
		Short: "Say what becomes of a packet on this node, or of a Service's endpoints, and why",
		Long: `explain follows the first packet of a connection through the tables as the kernel
has them: each rule, each element that it meets, the endpoints that it may be sent to and
why others are out, and whose address they see. SOURCE is an address, "node" for a
process on this node, or "outside" for somebody who is no pod. PROTOCOL is tcp, udp or
sctp; without it tcp.

Of a Service it says of every endpoint whether it takes connections here, and why, who
has its addresses, and in what the kernel differs from what kube-nft wants.

Why an endpoint is in or out the running kube-nft tells; --manifests, --kubeconfig or
--config ask the objects instead. Nothing is changed.`,
		Example: `  kube-nft explain default/web
  kube-nft explain 10.244.0.12 10.96.0.80:80
  kube-nft explain outside 203.0.113.80:443
  kube-nft explain node [fd00:10:96::10]:53/udp -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return fmt.Errorf("name a Service, as NAMESPACE/SERVICE, or SOURCE and DESTINATION:PORT; %w", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.explain(cmd.Context(), cmd.OutOrStdout(), args)
		},
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "json or yaml; without it text")
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (o *explainOptions) explain(ctx context.Context, w io.Writer, args []string) error {
	if o.output != "" && o.output != "json" && o.output != "yaml" {
		return fmt.Errorf("--output: %q is neither json nor yaml; %w", o.output, errUsage)
	}
	var service types.NamespacedName
	var packet explain.Packet
	var err error
	if len(args) == 1 {
		service, err = parseService(args[0])
	} else {
		packet, err = parsePacket(args[0], args[1])
	}
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	if service.Name != "" {
		return o.explainService(ctx, w, conn, service)
	}
	return o.explainPacket(ctx, w, conn, packet)
}

// parseService reads NAMESPACE/SERVICE.
func parseService(arg string) (types.NamespacedName, error) {
	namespace, name, ok := strings.Cut(arg, "/")
	if _, err := netip.ParseAddrPort(namespace); err == nil {
		return types.NamespacedName{}, fmt.Errorf("%q is a destination: name the source before it, an address, node or outside", arg)
	}
	if !ok || namespace == "" || name == "" || strings.ContainsAny(name, "/:") {
		return types.NamespacedName{}, fmt.Errorf("%q is no Service's name: write NAMESPACE/SERVICE", arg)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

// parsePacket reads where a packet comes from and goes to.
func parsePacket(from, to string) (p explain.Packet, err error) {
	at, proto, ok := strings.Cut(to, "/")
	if p.Destination, err = netip.ParseAddrPort(at); err != nil || p.Destination.Port() == 0 {
		return p, fmt.Errorf("%q is no destination: write ADDRESS:PORT, of IPv6 [ADDRESS]:PORT; kube-nft explain NAMESPACE/SERVICE lists those of a Service", to)
	}
	p.Protocol = nft.TCP
	if ok {
		if p.Protocol, err = parseProto(proto); err != nil {
			return p, err
		}
	}
	p.Destination = netip.AddrPortFrom(p.Destination.Addr().Unmap().WithZone(""), p.Destination.Port())
	switch from {
	case string(explain.Node), string(explain.Outside):
		p.Origin = explain.Origin(from)
		return p, nil
	}
	p.Origin = explain.Device
	source, err := netip.ParseAddr(from)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is no source: it is an address, node, or outside; a proxy does not know pods by name, `kubectl get pod NAME -o wide` shows a pod's address", from)
	case nft.FamilyOf(source.Unmap()) != nft.FamilyOf(p.Destination.Addr()):
		return p, fmt.Errorf("%s and %s are of different IP families", source, p.Destination.Addr())
	}
	p.Source = source.Unmap().WithZone("")
	return p, nil
}

// parseProto reads a protocol's word.
func parseProto(word string) (nft.Proto, error) {
	for _, p := range [...]nft.Proto{nft.TCP, nft.UDP, nft.SCTP} {
		if strings.EqualFold(p.String(), word) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%q is no protocol of Services: write tcp, udp or sctp", word)
}

// noTable names the mend for a table that cannot be read.
func noTable(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("nftables cannot be read: run as root, or with CAP_NET_ADMIN: %w", fs.ErrPermission)
	case errors.Is(err, nft.ErrMissing):
		return fmt.Errorf("%w: nothing is programmed in this network namespace; `kube-nft run` does that, and in a container without the host's network there is none", err)
	}
	return err
}

// write writes a report as JSON or YAML, or as text.
func (o *explainOptions) write(w io.Writer, report any, text func(io.Writer)) error {
	switch o.output {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(report)
	case "yaml":
		out, err := yaml.Marshal(report)
		if err == nil {
			_, err = w.Write(out)
		}
		return err
	}
	text(w)
	return nil
}
