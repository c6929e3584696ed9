// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/conntrack"
)

// options are the flags of the commands that compile Services.
type options struct {
	flags *pflag.FlagSet
	// typed is what kube-proxy's flags say.
	typed *config.Configuration
	// file is the path of kube-proxy's configuration file; then typed is ignored but
	// for the flags that beside lists.
	file                     string
	text                     []byte // of the file, as it was last read
	healthzPort, metricsPort int32

	// Our own.
	master         string
	manifests      string
	proxyName      string
	localNodePorts bool
	counters       bool
	hostRoot       string
	checkEvery     time.Duration

	// looksOnly: nothing is programmed, and the file may be meant for another host.
	looksOnly bool
}

func (o *options) addFlags(f *pflag.FlagSet) {
	o.flags, o.typed = f, config.New()
	// Who writes a command line for kube-nft has no other mode in mind; in a file an
	// empty one is what kube-proxy takes it for.
	o.typed.Mode = config.NFTables
	f.StringVar(&o.file, "config", "", "path of kube-proxy's configuration file (KubeProxyConfiguration); most flags are ignored with it")
	addProxyFlags(f, o.typed)
	addPortFlags(f, &o.healthzPort, &o.metricsPort)
	f.StringVar(&o.master, "master", "", "URL of the Kubernetes API server, instead of the one in the kubeconfig; in a pod it names the server, which must not be reached by the Service's address")
	f.StringVar(&o.manifests, "manifests", "", "directory or file of Services, EndpointSlices and ServiceCIDRs, instead of a cluster")
	f.StringVar(&o.proxyName, "service-proxy-name", "", "serve the Services alone whose label service.kubernetes.io/service-proxy-name is this, beside another proxy for all others")
	f.BoolVar(&o.localNodePorts, "localhost-nodeports", false, "serve TCP and UDP node ports on 127.0.0.1 and ::1 too, by relaying connections: they end with kube-nft, and endpoints see the node; no sysctl is set")
	f.StringVar(&o.hostRoot, "host-root", "/", "where proc/sys/net of the host is mounted, to set the parameters of conntrack there: that of a container is read-only")
	f.DurationVar(&o.checkEvery, "check-interval", 10*time.Minute, "look at all tables so often, beside being notified of changes by others, if others have written to nftables at all; 0 is never")
	f.BoolVar(&o.counters, "counters", true, "count new connections of each frontend")
}

// plan is what a configuration means.
type plan struct {
	config.Settings
	of             *config.Configuration
	nodeName       string
	rules          controller.Rules
	limits         conntrack.Limits
	localNodePorts bool
}

// read returns the configuration, with its defaults, from the file or the flags, and
// what is unknown in it.
func (o *options) read() (c *config.Configuration, unknown []string, err error) {
	if o.file == "" {
		return o.fromFlags(), nil, nil
	}
	text, err := os.ReadFile(o.file)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	return o.decode(text)
}

// decode is read of a file's text.
func (o *options) decode(text []byte) (c *config.Configuration, unknown []string, err error) {
	o.text = text
	if c, unknown, err = config.Decode(text); c == nil {
		return nil, nil, err
	}
	config.SetDefaults(c) // of what does not fit, too: the rest may be wrong as well
	for _, name := range o.beside() {
		if !o.flags.Changed(name) {
			continue
		}
		switch name {
		case "kubeconfig":
			c.ClientConnection.Kubeconfig = o.typed.ClientConnection.Kubeconfig
		case "hostname-override":
			c.HostnameOverride = cmp.Or(o.typed.HostnameOverride, c.HostnameOverride)
		case "v":
			c.Logging.Verbosity = o.typed.Logging.Verbosity
		case "logging-format":
			c.Logging.Format = o.typed.Logging.Format
		}
	}
	return c, unknown, err
}

// fromFlags completes what flags say: those of iptables are for the mode nftables too.
func (o *options) fromFlags() *config.Configuration {
	c := o.typed.DeepCopy()
	if c.Mode == config.NFTables {
		c.NFTables.MasqueradeBit, c.NFTables.MasqueradeAll = c.IPTables.MasqueradeBit, c.IPTables.MasqueradeAll
		c.NFTables.SyncPeriod, c.NFTables.MinSyncPeriod = c.IPTables.SyncPeriod, c.IPTables.MinSyncPeriod
	}
	if o.flags.Changed("healthz-port") {
		c.HealthzBindAddress = onPort(c.HealthzBindAddress, o.healthzPort)
	}
	if o.flags.Changed("metrics-port") {
		c.MetricsBindAddress = onPort(c.MetricsBindAddress, o.metricsPort)
	}
	config.SetEmpty(c)
	return c
}

// name is what a field is called where it was given.
func (o *options) name(path string) string {
	if flag := flagOf[path]; o.file == "" && flag != "" {
		return "--" + flag
	}
	return path
}

// understand checks a configuration and says what it means; every problem is
// reported at once.
func (o *options) understand(c *config.Configuration) (plan, error) {
	p := plan{of: c}
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	for _, problem := range config.Validate(c) {
		note(fmt.Errorf("%s: %s", o.name(problem.Field), problem.Text))
	}
	var err error
	p.nodeName, err = o.nodeName(c)
	note(err)
	p.rules.DetectLocal, err = o.detectLocal(c)
	note(err)
	p.Settings = config.SettingsOf(c)
	if p.rules.NodePorts, err = controller.ParseNodePorts(p.NodePortAddresses); err != nil {
		note(fmt.Errorf("%s: %w", o.name("nodePortAddresses"), err))
	}
	for _, problem := range validation.IsValidLabelValue(o.proxyName) {
		note(fmt.Errorf("--service-proxy-name: %q cannot be a label's value: %s", o.proxyName, problem))
	}
	if o.manifests != "" && o.proxyName != "" {
		note(errors.New("--manifests and --service-proxy-name exclude each other: of manifests all Services are served"))
	}
	if err := errors.Join(errs...); err != nil {
		return p, err
	}
	p.rules.BindAddress = netip.MustParseAddr(c.BindAddress)
	p.localNodePorts = o.relays(c, p.LocalhostNodePorts)
	p.limits = limits(c)
	p.rules.Options = make(map[nft.Family]nft.Options)
	for _, f := range families() {
		p.rules.Options[f] = nft.Options{
			MasqueradeBit: p.MasqueradeBit,
			MasqueradeAll: p.MasqueradeAll,
			LocalPods:     p.rules.DetectLocal.Pods(f, nil),
			AllNodePorts:  p.rules.NodePorts.All(f),
			Counters:      o.counters,
		}
	}
	return p, nil
}

// relays reports whether node ports are served on localhost: our flag decides, then
// kube-proxy's if it was typed, then the configuration.
func (o *options) relays(c *config.Configuration, implied bool) bool {
	switch {
	case o.flags.Changed("localhost-nodeports"):
		return o.localNodePorts
	case o.file == "" && o.flags.Changed(flagOf["iptables.localhostNodePorts"]):
		return *c.IPTables.LocalhostNodePorts
	}
	return implied
}

func limits(c *config.Configuration) conntrack.Limits {
	t := &c.Conntrack
	return conntrack.Limits{
		MaxPerCore:     int(*t.MaxPerCore),
		Min:            int(*t.Min),
		TCPEstablished: t.TCPEstablishedTimeout.Duration,
		TCPCloseWait:   t.TCPCloseWaitTimeout.Duration,
		TCPBeLiberal:   t.TCPBeLiberal,
		UDP:            t.UDPTimeout.Duration,
		UDPStream:      t.UDPStreamTimeout.Duration,
	}
}

// nodeName is the name of this node as kube-proxy finds it.
func (o *options) nodeName(c *config.Configuration) (string, error) {
	name := c.HostnameOverride
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("%s is needed: %w", o.name("hostnameOverride"), err)
		}
		name = host
	}
	if name = strings.ToLower(strings.TrimSpace(name)); name == "" {
		return "", fmt.Errorf("%s: empty node name", o.name("hostnameOverride"))
	}
	return name, nil
}

// load reads the configuration and says what it means.
func (o *options) load() (p plan, unknown []string, err error) {
	return o.conclude(o.read())
}

// conclude understands what was decoded. If anything is wrong all of it is in the
// error, and what is unknown as well: it may be what was misspelt.
func (o *options) conclude(c *config.Configuration, unknown []string, decoding error) (plan, []string, error) {
	if c == nil {
		return plan{}, nil, o.inFile(decoding)
	}
	p, err := o.understand(c)
	if err = errors.Join(decoding, err); err == nil {
		return p, unknown, nil
	}
	for _, name := range unknown {
		err = fmt.Errorf("%w\n%s", err, name)
	}
	return p, unknown, o.inFile(err)
}

// inFile names the configuration file in an error about it.
func (o *options) inFile(err error) error {
	if o.file == "" {
		return fmt.Errorf("%w\n%w", err, errUsage)
	}
	return fmt.Errorf("configuration file %s:\n%w\n%w", o.file, err, errConfig)
}

// prepare loads the configuration and opens the log that it asks for. What is to be
// said of it is said there.
func (o *options) prepare() (plan, *logger, error) {
	p, unknown, err := o.load()
	if err != nil {
		return p, nil, err
	}
	log := newLogger(p.of)
	tellUnknown(log.Logger, unknown)
	o.tellFlags(log.Logger)
	o.tellNotes(log.Logger, p.of)
	return p, log, nil
}

// tellUnknown says what of a file is left out.
func tellUnknown(log *slog.Logger, unknown []string) {
	for _, name := range unknown {
		log.Warn("configuration has something that this version does not know, it is left out", "what", name)
	}
}

// tellFlags says which flags have no effect.
func (o *options) tellFlags(log *slog.Logger) {
	paths := map[string]string{"healthz-port": "healthzBindAddress", "metrics-port": "metricsBindAddress"}
	for path, name := range flagOf {
		paths[name] = path
	}
	o.flags.Visit(func(f *pflag.Flag) {
		path := paths[f.Name]
		switch {
		case slices.Contains(o.beside(), f.Name):
		case o.file != "" && path != "" && config.Counts(path):
			log.Warn("flag has no effect beside a configuration file: set it there", "flag", "--"+f.Name, "field", path)
		case o.file != "" && path != "":
			log.Info("flag has no effect, nor has its field in the configuration file", "flag", "--"+f.Name, "field", path)
		case ineffective[f.Name] != "":
			log.Info("flag has no effect", "flag", "--"+f.Name, "because", ineffective[f.Name])
		}
	})
}

// tellNotes says what is set and has no effect.
func (o *options) tellNotes(log *slog.Logger, c *config.Configuration) {
	for _, n := range config.Notes(c) {
		if o.file == "" && c.Mode == config.NFTables && n.Why == config.OtherMode && strings.HasPrefix(n.Field, "iptables.") {
			continue // these flags are for nftables too
		}
		if o.file == "" && flagOf[n.Field] == "" {
			continue // nobody typed it
		}
		say := log.Info
		if n.Matters {
			say = log.Warn
		}
		say("setting has no effect", "setting", o.name(n.Field), "value", n.Value, "because", n.Why)
	}
}

// tellDoubts says what a plan leaves out that somebody may miss.
func (o *options) tellDoubts(log *slog.Logger, p plan) {
	for _, f := range nft.Families {
		options, ok := p.rules.Options[f]
		if ok && !options.LocalPods.Known() && p.rules.DetectLocal.Mode == controller.LocalByClusterCIDR {
			log.Info("no addresses of pods are known of this family: nobody is masqueraded on the way to a cluster IP",
				"family", f.String(), "setting", o.name("clusterCIDR"))
		}
	}
	if p.rules.NodePorts.OnlyLoopback() && !p.localNodePorts {
		log.Warn("node ports are served nowhere: localhost alone is asked for, and that is not switched on", "setting", o.name("nodePortAddresses"),
			"mend", "give --localhost-nodeports, or other addresses")
	}
}

// controller starts a Config with what a plan says.
func (o *options) controller(p plan, log *slog.Logger) controller.Config {
	return controller.Config{
		NodeName:      p.nodeName,
		ProxyName:     o.proxyName,
		Rules:         p.rules,
		NoExternalIPs: !p.ExternalIPs,
		LocalAddrs:    localAddrs,
		CheckEvery:    o.checkEvery,
		Logger:        log,
	}
}

// source opens what the flags name: manifests or a cluster.
func (o *options) source(p plan, log *slog.Logger) (source.Source, error) {
	if o.manifests != "" {
		if p.of.ClientConnection.Kubeconfig != "" && o.file == "" || o.master != "" {
			return nil, fmt.Errorf("--manifests and --kubeconfig or --master exclude each other; %w", errUsage)
		}
		return source.Dir(o.manifests, dirOptions(p, log)), nil
	}
	client, server, err := o.client(p)
	if err != nil {
		return nil, err
	}
	return source.API(client, source.APIOptions{NodeName: p.nodeName, Logger: log, ProxyName: o.proxyName, Server: server}), nil
}

// client returns a client of the API, and where the server is.
func (o *options) client(p plan) (client *source.Client, server string, err error) {
	k := &p.of.ClientConnection
	client, server, err = source.NewClient(source.ClientOptions{
		Kubeconfig: k.Kubeconfig, Server: o.master, Version: version(),
		QPS: k.QPS, Burst: int(k.Burst), ContentType: k.ContentType, AcceptContentTypes: k.AcceptContentTypes,
	})
	switch {
	case errors.Is(err, source.ErrNoCluster):
		return nil, "", fmt.Errorf("nowhere to take Services from: give --kubeconfig FILE for a cluster, or --manifests DIRECTORY for files, or run in a pod with a service account; %w", errUsage)
	case errors.Is(err, source.ErrServiceAddress):
		return nil, "", fmt.Errorf("%w: name the server itself with --master https://ADDRESS:PORT, in a kubeconfig, or in the variable KUBERNETES_SERVICE_HOST; %w", err, errUsage)
	}
	if at, parseErr := url.Parse(server); err == nil && parseErr == nil && strings.HasSuffix(at.Hostname(), ".invalid") {
		return nil, "", fmt.Errorf("the API server's address, %s, is what our manifests have in its place: put yours into ConfigMap kube-nft, as apiServer; %w", server, errUsage)
	}
	return client, server, err
}

func dirOptions(p plan, log *slog.Logger) source.DirOptions {
	return source.DirOptions{NodeName: p.nodeName, Logger: log, Check: model.Check}
}
