// SPDX-License-Identifier: Apache-2.0

// Package inject lets what a real process says to the real kernel go wrong. The
// process runs under a seccomp filter that asks this one about each call by which it
// sends to a netlink socket or receives from one: the call may go on, fail without
// having been made, fail although the kernel has done all of it, or be the last thing
// that the process does.
//
//	process             kernel                   Injector
//	sendto(netfilter) ──► seccomp: user_notif ──► Rule(Call) Verdict
//	                  ◄── errno, or go on    ◄───
//
// That is what seccomp's user notification is for (seccomp_unotify(2), Linux 5.9;
// WAIT_KILLABLE_RECV, Linux 5.19, keeps signals of Go's scheduler from making a call
// twice). Unlike a tracer it can make the call itself, with a copy of the process's
// descriptor, and then say that it failed: the answer is lost, the transaction is not.
//
// Nothing stands in for the kernel, and the process needs no change. Calls of all its
// threads are counted together, in the order in which they come.
package inject
