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
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Delete our tables; nothing else of this host is touched",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cleanup(cmd.Context(), cmd.OutOrStdout()) },
	}
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
