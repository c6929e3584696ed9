// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnsupported says that the kernel lacks something that the table needs.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrFull says that a set has reached its size.
	ErrFull = errors.New("set is full")
	// ErrDrift says that the table does not hold what it was believed to hold:
	// what was to go is gone, or what was to come is there with another value.
	ErrDrift = errors.New("table was changed by somebody else")
	// ErrUnknown says that the kernel's answer was lost: the transaction may have
	// been committed or not.
	ErrUnknown = errors.New("outcome of the transaction unknown")
	// ErrTraced says that somebody else traces packets.
	ErrTraced = errors.New("another trace is under way in this network namespace")
)

// CommitError is the first error of a transaction, of which nothing was done.
type CommitError struct {
	// Message is what the kernel refused, as nft text.
	Message string
	// Errno is the kernel's reason.
	Errno unix.Errno
	// Detail is what the kernel said about it in words, often nothing.
	Detail string
}

// Error names what was refused, why, and the mend where there is one.
func (e *CommitError) Error() string {
	s := fmt.Sprintf("%s: %v", e.Message, e.Errno)
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	switch e.Errno {
	case unix.ENFILE:
		s += ": the set is full; it was made by somebody else with a size, delete the table and restart"
	case unix.EPERM:
		s += ": changing nftables needs CAP_NET_ADMIN, run as root or give the container that capability"
	case unix.ENOMEM:
		s += ": the kernel is out of memory for nftables"
	}
	return s
}

// Unwrap gives the errno, and the sentinel that it stands for.
func (e *CommitError) Unwrap() []error {
	switch e.Errno {
	case unix.ENFILE:
		return []error{e.Errno, ErrFull}
	case unix.ENOENT, unix.EEXIST:
		return []error{e.Errno, ErrDrift}
	case unix.EPERM:
		return []error{e.Errno, fs.ErrPermission}
	case unix.ENOBUFS:
		return []error{e.Errno, ErrUnknown}
	}
	return []error{e.Errno}
}
