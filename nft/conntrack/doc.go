// SPDX-License-Identifier: Apache-2.0

// Package conntrack walks the kernel's table of connections over ctnetlink and
// deletes entries of it, and sets the limits of that table.
//
// A table may hold a million entries. They are handed on one by one as the kernel
// lists them and are never collected, so that memory does not depend on how many
// there are. Entries are deleted over a second socket while the walk goes on: the
// kernel lists a datagram's worth each time it is read from, and holds no lock in
// between (net/netfilter/nf_conntrack_netlink.c, ctnetlink_dump_table).
//
// A walk is not a snapshot. An entry that comes or goes meanwhile may be listed,
// missed, or listed twice; who wants to be sure walks again.
//
// What it does not know: Services, and which entries are stale.
package conntrack
