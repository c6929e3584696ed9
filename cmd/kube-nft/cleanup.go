// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

func cleanupCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Delete our tables; nothing else of this host is touched",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				if err := cleanupLasts(cmd.Context()); err != nil {
					return err
				}
			}
			return cleanup(cmd.Context(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while kube-nft runs, which makes them anew")
	return cmd
}

// cleanupLasts returns an error if a kube-nft runs here, which would make its tables
// anew: deleting them would be an outage, and nothing else.
func cleanupLasts(ctx context.Context) error {
	if status, err := askStatus(ctx); err == nil {
		return fmt.Errorf("kube-nft runs here, process %d, and would make its tables anew: stop it first; with --force they are deleted all the same", status.PID)
	}
	return nil
}

// cleanup deletes the tables of all families, also those that are not in use now.
func cleanup(ctx context.Context, w io.Writer) error {
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	var errs []error
	for _, f := range nft.Families {
		deleted, err := conn.Delete(ctx, f)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return explainPermission(err)
		case err != nil:
			errs = append(errs, err)
		case deleted:
			fmt.Fprintf(w, "deleted table %s %s\n", f, nft.TableName)
		default:
			fmt.Fprintf(w, "no table %s %s\n", f, nft.TableName)
		}
	}
	return errors.Join(errs...)
}
