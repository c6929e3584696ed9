// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/conntrack"
)

// options are the flags of the commands that compile Services. Those that
// kube-proxy has too are named and mean as there.
type options struct {
	kubeconfig             string
	master                 string
	manifests              string
	hostnameOverride       string
	bindAddress            string
	detectLocalMode        string
	clusterCIDR            string
	podBridgeInterface     string
	podInterfaceNamePrefix string
	masqueradeAll          bool
	masqueradeBit          uint8
	nodePortAddresses      []string
	localNodePorts         bool
	counters               bool
	verbosity              int
	logFormat              string
	limits                 conntrack.Limits
}

func (o *options) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "path of a kubeconfig; in a pod its own service account is used without one")
	f.StringVar(&o.master, "master", "", "URL of the Kubernetes API server, instead of the one in the kubeconfig")
	f.StringVar(&o.manifests, "manifests", "", "directory or file of Services, EndpointSlices and ServiceCIDRs, instead of a cluster")
	f.StringVar(&o.hostnameOverride, "hostname-override", "", "name of this node, instead of the host's name")
	f.StringVar(&o.bindAddress, "bind-address", "0.0.0.0", "this node's primary address, instead of the one in its Node; no socket is bound to it")
	f.StringVar(&o.detectLocalMode, "detect-local-mode", string(controller.LocalByClusterCIDR), "how pods of this node are known, who is none is masqueraded on the way to a cluster IP: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix")
	f.StringVar(&o.clusterCIDR, "cluster-cidr", "", "for ClusterCIDR: addresses of pods, one CIDR or one of each family")
	f.StringVar(&o.podBridgeInterface, "pod-bridge-interface", "", "for BridgeInterface: the bridge that pods are on")
	f.StringVar(&o.podInterfaceNamePrefix, "pod-interface-name-prefix", "", "for InterfaceNamePrefix: how the names of pods' interfaces begin")
	f.BoolVar(&o.masqueradeAll, "masquerade-all", false, "masquerade every connection to a cluster IP")
	f.Uint8Var(&o.masqueradeBit, "iptables-masquerade-bit", nft.DefaultMasqueradeBit, "bit of the packet mark that asks for masquerading, 0 to 31")
	f.StringSliceVar(&o.nodePortAddresses, "nodeport-addresses", nil, "where node ports are served: primary (the default), all, localhost (with --localhost-nodeports), CIDRs of this host's addresses, or several of them")
	const localNodePorts = "serve TCP and UDP node ports on 127.0.0.1 and ::1 too, by relaying connections: they end with kube-nft, and endpoints see the node; no sysctl is set"
	f.BoolVar(&o.localNodePorts, "localhost-nodeports", false, localNodePorts)
	f.BoolVar(&o.localNodePorts, "iptables-localhost-nodeports", false, "the same as --localhost-nodeports; unlike in kube-proxy it is off unless it is given")
	f.BoolVar(&o.counters, "counters", true, "count new connections of each frontend")
	f.IntVarP(&o.verbosity, "v", "v", 0, "log level; from 2 on every commit is logged")
	f.StringVar(&o.logFormat, "logging-format", "text", "text or json")
	o.addConntrackFlags(f)
}

// addConntrackFlags adds the flags about kernel parameters; only run sets them.
func (o *options) addConntrackFlags(f *pflag.FlagSet) {
	l := &o.limits
	f.IntVar(&l.MaxPerCore, "conntrack-max-per-core", 32768, "connections that the kernel may track for each CPU; 0 leaves the limit as it is")
	f.IntVar(&l.Min, "conntrack-min", 131072, "connections that the kernel may track at least, whatever the number of CPUs")
	f.DurationVar(&l.TCPEstablished, "conntrack-tcp-timeout-established", 24*time.Hour, "timeout of idle established TCP connections; 0 leaves it as it is")
	f.DurationVar(&l.TCPCloseWait, "conntrack-tcp-timeout-close-wait", time.Hour, "timeout of TCP connections that one side has closed; 0 leaves it as it is")
	f.BoolVar(&l.TCPBeLiberal, "conntrack-tcp-be-liberal", false, "let packets outside of the TCP window pass as valid")
	f.DurationVar(&l.UDP, "conntrack-udp-timeout", 0, "timeout of idle UDP flows that nobody answered; 0 leaves it as it is")
	f.DurationVar(&l.UDPStream, "conntrack-udp-timeout-stream", 0, "timeout of idle UDP flows that were answered; 0 leaves it as it is")
}

// config checks the flags and returns what they mean; every problem is reported
// at once.
func (o *options) config() (controller.Config, error) {
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	c := controller.Config{LocalAddrs: localAddrs}
	var err error
	c.Logger, err = o.logger()
	note(err)
	c.NodeName, err = o.nodeName()
	note(err)
	if c.BindAddress, err = netip.ParseAddr(o.bindAddress); err != nil {
		note(fmt.Errorf("--bind-address: %q is not an IP address", o.bindAddress))
	}
	if c.NodePorts, err = controller.ParseNodePorts(o.nodePortAddresses); err != nil {
		note(fmt.Errorf("--nodeport-addresses: %w", err))
	}
	if o.masqueradeBit > 31 {
		note(fmt.Errorf("--iptables-masquerade-bit: %d is not in 0-31", o.masqueradeBit))
	}
	if o.limits.MaxPerCore < 0 || o.limits.Min < 0 {
		note(errors.New("--conntrack-max-per-core and --conntrack-min: not below 0"))
	}
	for _, d := range []time.Duration{o.limits.TCPEstablished, o.limits.TCPCloseWait, o.limits.UDP, o.limits.UDPStream} {
		if d < 0 {
			note(fmt.Errorf("conntrack timeouts: %v is below 0", d))
		}
	}
	c.DetectLocal, err = o.detectLocal()
	note(err)
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("%w\n%w", err, errUsage)
	}
	c.Options = make(map[nft.Family]nft.Options)
	for _, f := range families() {
		c.Options[f] = nft.Options{
			MasqueradeBit: o.masqueradeBit,
			MasqueradeAll: o.masqueradeAll,
			LocalPods:     c.DetectLocal.Pods(f, nil),
			AllNodePorts:  c.NodePorts.All(f),
			Counters:      o.counters,
		}
	}
	return c, nil
}

func (o *options) logger() (*slog.Logger, error) {
	level := &slog.HandlerOptions{Level: slog.LevelInfo}
	if o.verbosity >= 2 {
		level.Level = slog.LevelDebug
	}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, level)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, level)), nil
	}
	return slog.Default(), fmt.Errorf("--logging-format: %q is neither text nor json", o.logFormat)
}

// nodeName is the name of this node as kube-proxy finds it.
func (o *options) nodeName() (string, error) {
	name := o.hostnameOverride
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("--hostname-override is needed: %w", err)
		}
		name = host
	}
	if name = strings.ToLower(strings.TrimSpace(name)); name == "" {
		return "", errors.New("--hostname-override: empty node name")
	}
	return name, nil
}

// source opens what the flags name: manifests or a cluster.
func (o *options) source(c controller.Config) (source.Source, error) {
	if o.manifests != "" {
		if o.kubeconfig != "" || o.master != "" {
			return nil, fmt.Errorf("--manifests and --kubeconfig or --master exclude each other; %w", errUsage)
		}
		return source.Dir(o.manifests, o.dirOptions(c)), nil
	}
	client, err := o.client()
	if errors.Is(err, source.ErrNoCluster) {
		return nil, fmt.Errorf("nowhere to take Services from: give --kubeconfig FILE for a cluster, or --manifests DIRECTORY for files, or run in a pod with a service account; %w", errUsage)
	}
	if err != nil {
		return nil, err
	}
	return source.API(client, source.APIOptions{NodeName: c.NodeName, Logger: c.Logger}), nil
}

func (o *options) client() (kubernetes.Interface, error) {
	return source.NewClient(source.ClientOptions{Kubeconfig: o.kubeconfig, Server: o.master, Version: version()})
}

func (o *options) dirOptions(c controller.Config) source.DirOptions {
	return source.DirOptions{NodeName: c.NodeName, Logger: c.Logger, Check: model.Check}
}
