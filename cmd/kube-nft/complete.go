// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
)

// valuesOf are the words that a shell offers for flags which take one of a few.
var valuesOf = map[string][]string{
	"proxy-mode": {
		"nftables\tnode ports on the primary addresses",
		"iptables\tnode ports on all addresses",
		"ipvs\tnode ports on all addresses",
	},
	"detect-local-mode": {
		"ClusterCIDR\tpods have addresses of --cluster-cidr",
		"NodeCIDR\tpods have addresses of the Node's spec.podCIDRs",
		"BridgeInterface\tpods are on --pod-bridge-interface",
		"InterfaceNamePrefix\tpods are on interfaces --pod-interface-name-prefix",
	},
	"logging-format":     {"text", "json"},
	"nodeport-addresses": {"primary\tthe addresses of the Node", "all\tall but loopback", "localhost\twith --localhost-nodeports"},
}

// directories and files are the flags whose value is one, with how its name may end.
var (
	directories = []string{"manifests", "host-root"}
	files       = map[string][]string{"config": {"conf", "yaml", "yml", "json"}, "kubeconfig": nil, "write-config-to": nil}
)

// completeFlags has shells complete the values of flags, of a command and those below.
// What nobody knows the values of is not completed with names of files.
func completeFlags(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		completeFlags(c)
	}
	if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for name, words := range valuesOf {
		if cmd.Flags().Lookup(name) != nil {
			must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
		}
	}
	for _, name := range directories {
		if cmd.Flags().Lookup(name) != nil {
			must(cmd.MarkFlagDirname(name))
		}
	}
	for name, endings := range files {
		if cmd.Flags().Lookup(name) != nil {
			must(cmd.MarkFlagFilename(name, endings...))
		}
	}
}

// must is for what can only fail by a mistake in this package.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
