// SPDX-License-Identifier: Apache-2.0

// Package explain says what becomes of a packet, and why: it follows the first packet
// of a connection through the rules of our table, asks the sets what the packet would
// ask them, and names each element that it meets. It says of each endpoint of a Service
// whether it takes new connections, as package model judges.
//
// Nothing is decided a second time here: Walk runs the very expressions that the kernel
// is given, over elements that are read from the kernel, so that a rule that changes is
// explained as it is.
//
// It is pure: tables are behind Table, routes and addresses behind Host. What it does
// not know: connections that exist, to which conntrack does what it did to their first
// packet; rules of others; and what is on the way to this host and from it.
package explain
