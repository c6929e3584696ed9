// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/kube-nft/kube-nft/controller/config"
)

// flagOf is the flag for each field of kube-proxy's configuration that has one. With
// --config these flags are ignored, as in kube-proxy, but for a few; see beside.
var flagOf = map[string]string{
	"featureGates":                     "feature-gates",
	"clientConnection.kubeconfig":      "kubeconfig",
	"clientConnection.contentType":     "kube-api-content-type",
	"clientConnection.qps":             "kube-api-qps",
	"clientConnection.burst":           "kube-api-burst",
	"logging.format":                   "logging-format",
	"logging.verbosity":                "v",
	"hostnameOverride":                 "hostname-override",
	"bindAddress":                      "bind-address",
	"healthzBindAddress":               "healthz-bind-address",
	"metricsBindAddress":               "metrics-bind-address",
	"bindAddressHardFail":              "bind-address-hard-fail",
	"enableProfiling":                  "profiling",
	"showHiddenMetricsForVersion":      "show-hidden-metrics-for-version",
	"mode":                             "proxy-mode",
	"iptables.masqueradeBit":           "iptables-masquerade-bit",
	"iptables.masqueradeAll":           "masquerade-all",
	"iptables.localhostNodePorts":      "iptables-localhost-nodeports",
	"iptables.syncPeriod":              "iptables-sync-period",
	"iptables.minSyncPeriod":           "iptables-min-sync-period",
	"ipvs.syncPeriod":                  "ipvs-sync-period",
	"ipvs.minSyncPeriod":               "ipvs-min-sync-period",
	"ipvs.scheduler":                   "ipvs-scheduler",
	"ipvs.excludeCIDRs":                "ipvs-exclude-cidrs",
	"ipvs.strictARP":                   "ipvs-strict-arp",
	"ipvs.tcpTimeout":                  "ipvs-tcp-timeout",
	"ipvs.tcpFinTimeout":               "ipvs-tcpfin-timeout",
	"ipvs.udpTimeout":                  "ipvs-udp-timeout",
	"detectLocalMode":                  "detect-local-mode",
	"detectLocal.bridgeInterface":      "pod-bridge-interface",
	"detectLocal.interfaceNamePrefix":  "pod-interface-name-prefix",
	"clusterCIDR":                      "cluster-cidr",
	"nodePortAddresses":                "nodeport-addresses",
	"oomScoreAdj":                      "oom-score-adj",
	"conntrack.maxPerCore":             "conntrack-max-per-core",
	"conntrack.min":                    "conntrack-min",
	"conntrack.tcpEstablishedTimeout":  "conntrack-tcp-timeout-established",
	"conntrack.tcpCloseWaitTimeout":    "conntrack-tcp-timeout-close-wait",
	"conntrack.tcpBeLiberal":           "conntrack-tcp-be-liberal",
	"conntrack.udpTimeout":             "conntrack-udp-timeout",
	"conntrack.udpStreamTimeout":       "conntrack-udp-timeout-stream",
	"configSyncPeriod":                 "config-sync-period",
	"logging.vmodule":                  "vmodule",
	"logging.flushFrequency":           "log-flush-frequency",
	"logging.options.json.splitStream": "log-json-split-stream",
	"logging.options.text.splitStream": "log-text-split-stream",
}

// beside lists the flags that go before a configuration file.
func (o *options) beside() []string {
	names := []string{"hostname-override", "v", "logging-format"}
	if o.looksOnly { // from a workstation, with a kubeconfig of one's own
		names = append(names, "kubeconfig")
	}
	return names
}

// ineffective are flags of kube-proxy that name no field, and do nothing here.
var ineffective = map[string]string{
	"log-json-info-buffer-size": "log lines are written as they come",
	"log-text-info-buffer-size": "log lines are written as they come",
	"boot-id-file":              "nothing here needs to know the boot",
	"machine-id-file":           "nothing here needs to know the machine",
}

// addProxyFlags adds kube-proxy's flags, which fill in its configuration. The
// defaults are in it.
func addProxyFlags(f *pflag.FlagSet, c *config.Configuration) {
	f.Var(gates{&c.FeatureGates}, "feature-gates", "name=true or name=false, several with commas between; AllowServiceExternalIPs and KubeProxyNFTablesLocalhostNodePorts mean something")
	k := &c.ClientConnection
	f.StringVar(&k.Kubeconfig, "kubeconfig", "", "path of a kubeconfig; in a pod its own service account is used without one, see --master")
	f.StringVar(&k.ContentType, "kube-api-content-type", k.ContentType, "form of requests to the API server")
	f.Float32Var(&k.QPS, "kube-api-qps", k.QPS, "requests a second to the API server")
	f.Int32Var(&k.Burst, "kube-api-burst", k.Burst, "requests at once to the API server")

	f.StringVar(&c.HostnameOverride, "hostname-override", "", "name of this node, instead of the host's name")
	f.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "this node's primary address, instead of the one in its Node; no socket is bound to it")
	f.StringVar(&c.HealthzBindAddress, "healthz-bind-address", c.HealthzBindAddress, "address and port to serve /healthz, /livez and /readyz on; empty is nowhere")
	f.StringVar(&c.MetricsBindAddress, "metrics-bind-address", c.MetricsBindAddress, "address and port to serve /metrics on; empty is nowhere")
	f.BoolVar(&c.BindAddressHardFail, "bind-address-hard-fail", false, "end if one of these two addresses cannot be had, instead of trying again")
	f.BoolVar(&c.EnableProfiling, "profiling", false, "serve /debug/pprof/ and /debug/flags/v beside metrics")
	f.StringVar(&c.ShowHiddenMetricsForVersion, "show-hidden-metrics-for-version", "", "no effect: no metric is hidden")
	f.Var(&text[v1alpha1.ProxyMode]{&c.Mode}, "proxy-mode", "kube-proxy's mode whose place is taken: iptables, ipvs or nftables; decides where node ports are served by default")
	f.Int32Var(c.OOMScoreAdj, "oom-score-adj", *c.OOMScoreAdj, "oom_score_adj of this process, if it may be written")
	f.DurationVar(&c.ConfigSyncPeriod.Duration, "config-sync-period", c.ConfigSyncPeriod.Duration, "no effect: the API server tells of each change")

	f.Var(&text[v1alpha1.LocalMode]{&c.DetectLocalMode}, "detect-local-mode", "how pods of this node are known, who is none is masqueraded on the way to a cluster IP: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix")
	f.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "for ClusterCIDR: addresses of pods, one CIDR or one of each family")
	f.StringVar(&c.DetectLocal.BridgeInterface, "pod-bridge-interface", "", "for BridgeInterface: the bridge that pods are on")
	f.StringVar(&c.DetectLocal.InterfaceNamePrefix, "pod-interface-name-prefix", "", "for InterfaceNamePrefix: how the names of pods' interfaces begin")
	f.StringSliceVar(&c.NodePortAddresses, "nodeport-addresses", nil, "where node ports are served: primary (the default), all, localhost (with --localhost-nodeports), CIDRs of this host's addresses, or several of them")
	addModeFlags(f, c)
	addConntrackFlags(f, c)
	addLogFlags(f, &c.Logging)
}

// addModeFlags adds those of the modes. There are none of nftables: those of iptables
// are for it, too.
func addModeFlags(f *pflag.FlagSet, c *config.Configuration) {
	i := &c.IPTables
	f.Int32Var(i.MasqueradeBit, "iptables-masquerade-bit", *i.MasqueradeBit, "bit of the packet mark that asks for masquerading, 0 to 31")
	f.BoolVar(&i.MasqueradeAll, "masquerade-all", false, "masquerade every connection to a cluster IP")
	f.BoolVar(i.LocalhostNodePorts, "iptables-localhost-nodeports", *i.LocalhostNodePorts, "with --proxy-mode iptables, or if given: the same as --localhost-nodeports")
	f.DurationVar(&i.SyncPeriod.Duration, "iptables-sync-period", i.SyncPeriod.Duration, "/healthz fails once a change has waited for twice as long")
	f.DurationVar(&i.MinSyncPeriod.Duration, "iptables-min-sync-period", i.MinSyncPeriod.Duration, "no effect: every change is programmed at once")
	v := &c.IPVS
	f.DurationVar(&v.SyncPeriod.Duration, "ipvs-sync-period", v.SyncPeriod.Duration, "/healthz fails once a change has waited for twice as long")
	f.DurationVar(&v.MinSyncPeriod.Duration, "ipvs-min-sync-period", 0, "no effect: every change is programmed at once")
	f.StringVar(&v.Scheduler, "ipvs-scheduler", "", "no effect: each new connection goes to an endpoint at random")
	f.StringSliceVar(&v.ExcludeCIDRs, "ipvs-exclude-cidrs", nil, "no effect: nothing that is not ours is ever touched")
	f.BoolVar(&v.StrictARP, "ipvs-strict-arp", false, "no effect: Service addresses are bound to no interface")
	f.DurationVar(&v.TCPTimeout.Duration, "ipvs-tcp-timeout", 0, "no effect: see --conntrack-tcp-timeout-established")
	f.DurationVar(&v.TCPFinTimeout.Duration, "ipvs-tcpfin-timeout", 0, "no effect: see --conntrack-tcp-timeout-close-wait")
	f.DurationVar(&v.UDPTimeout.Duration, "ipvs-udp-timeout", 0, "no effect: see --conntrack-udp-timeout")
}

// addConntrackFlags adds those about kernel parameters; only run sets them.
func addConntrackFlags(f *pflag.FlagSet, c *config.Configuration) {
	l := &c.Conntrack
	f.Int32Var(l.MaxPerCore, "conntrack-max-per-core", *l.MaxPerCore, "connections that the kernel may track for each CPU; 0 leaves the limit as it is")
	f.Int32Var(l.Min, "conntrack-min", *l.Min, "connections that the kernel may track at least, whatever the number of CPUs")
	f.DurationVar(&l.TCPEstablishedTimeout.Duration, "conntrack-tcp-timeout-established", l.TCPEstablishedTimeout.Duration, "timeout of idle established TCP connections; 0 leaves it as it is")
	f.DurationVar(&l.TCPCloseWaitTimeout.Duration, "conntrack-tcp-timeout-close-wait", l.TCPCloseWaitTimeout.Duration, "timeout of TCP connections that one side has closed; 0 leaves it as it is")
	f.BoolVar(&l.TCPBeLiberal, "conntrack-tcp-be-liberal", false, "let packets outside of the TCP window pass as valid")
	f.DurationVar(&l.UDPTimeout.Duration, "conntrack-udp-timeout", 0, "timeout of idle UDP flows that nobody answered; 0 leaves it as it is")
	f.DurationVar(&l.UDPStreamTimeout.Duration, "conntrack-udp-timeout-stream", 0, "timeout of idle UDP flows that were answered; 0 leaves it as it is")
}

func addLogFlags(f *pflag.FlagSet, l *logsapi.LoggingConfiguration) {
	f.VarP(verbosity{&l.Verbosity}, "v", "v", "log level; from 2 on every commit is logged")
	f.StringVar(&l.Format, "logging-format", l.Format, "text or json")
	f.Var(logsapi.VModuleConfigurationPflag(&l.VModule), "vmodule", "no effect: all log lines have one level")
	f.DurationVar(&l.FlushFrequency.Duration.Duration, "log-flush-frequency", l.FlushFrequency.Duration.Duration, "no effect: log lines are written as they come")
	f.BoolVar(&l.Options.JSON.SplitStream, "log-json-split-stream", false, "no effect: log lines are one stream")
	f.BoolVar(&l.Options.Text.SplitStream, "log-text-split-stream", false, "no effect: log lines are one stream")
	for name, why := range ineffective {
		f.String(name, "", "no effect: "+why)
	}
}

// addPortFlags adds kube-proxy's flags of old for two of its ports.
func addPortFlags(f *pflag.FlagSet, healthz, metrics *int32) {
	f.Int32Var(healthz, "healthz-port", 0, "port of --healthz-bind-address, if that has none; 0 is nowhere")
	f.Int32Var(metrics, "metrics-port", 0, "port of --metrics-bind-address, if that has none; 0 is nowhere")
	for name, instead := range map[string]string{"healthz-port": "healthz-bind-address", "metrics-port": "metrics-bind-address"} {
		if err := f.MarkDeprecated(name, "use --"+instead); err != nil {
			panic(err) // it was added just now
		}
	}
}

// onPort is what those flags make of an address: none, or one with the port if it has
// no other. As in kube-proxy, an address that has a port keeps it.
func onPort(address string, port int32) string {
	if port == 0 {
		return ""
	}
	return config.WithPort(address, int(port))
}

// text is a flag of a type that is a string.
type text[T ~string] struct{ of *T }

func (t *text[T]) String() string {
	if t.of == nil {
		return "" // for pflag, which asks a zero value
	}
	return string(*t.of)
}
func (t *text[T]) Set(s string) error { *t.of = T(s); return nil }
func (*text[T]) Type() string         { return "string" }

// verbosity is the flag -v.
type verbosity struct{ of *logsapi.VerbosityLevel }

func (v verbosity) String() string {
	if v.of == nil {
		return "0"
	}
	return strconv.Itoa(int(*v.of))
}
func (verbosity) Type() string { return "int" }
func (v verbosity) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err == nil {
		*v.of = logsapi.VerbosityLevel(n)
	}
	return err
}

// gates is the flag --feature-gates.
type gates struct{ of *map[string]bool }

func (gates) String() string { return "" }
func (gates) Type() string   { return "name=bool,..." }
func (g gates) Set(s string) error {
	if *g.of == nil {
		*g.of = make(map[string]bool)
	}
	for part := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		on, err := strconv.ParseBool(strings.TrimSpace(value))
		if err != nil {
			return fmt.Errorf("%q is neither NAME=true nor NAME=false", part)
		}
		(*g.of)[strings.TrimSpace(name)] = on
	}
	return nil
}
