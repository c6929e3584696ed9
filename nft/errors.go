// SPDX-License-Identifier: Apache-2.0

package nft

import "errors"

// What can be wrong with a table that is read or replaced.
var (
	// ErrMissing says that the family has no table of our name.
	ErrMissing = errors.New("no table " + TableName)
	// ErrSchema says that the table is ours but its constant part is not what it
	// should be: another version, another configuration, or somebody changed it.
	ErrSchema = errors.New("table differs from its schema")
	// ErrForeign says that there is a table of our name which we did not make.
	ErrForeign = errors.New("table was not made by kube-nft")
	// ErrUncounted says that the kernel does not tell how many elements a set has.
	ErrUncounted = errors.New("this kernel does not tell how many elements a set has, newer ones do (NFTA_SET_COUNT)")
)
