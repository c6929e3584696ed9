// SPDX-License-Identifier: Apache-2.0

package report

import (
	"github.com/spf13/cobra"
)

// Command shows what the other sections have measured.
func Command() *cobra.Command {
	var results, page string
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Show results: a summary here, tables and plots in a page",
		Long: `report reads all result files of a directory and prints the line of each question that
matters most. With --docs it also rewrites the measured parts of that page, which are
between marks, and the plots in the directory beside it.`,
		Example: "  compare report --results docs/performance --docs docs/performance.md",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := Load(results)
			if err != nil {
				return err
			}
			if page != "" {
				if err := r.Write(page); err != nil {
					return err
				}
			}
			return r.Print(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&results, "results", "bin/compare-results", "directory of the results")
	f.StringVar(&page, "docs", "", "page to write tables and plots to, such as docs/performance.md")
	return cmd
}
