// SPDX-License-Identifier: Apache-2.0

/*
Package localport serves node ports on 127.0.0.1 and ::1 by relaying connections.

Translation cannot: the kernel lets nothing with a loopback source out of another
interface (net/ipv4/route.c, __mkroute_output), unless route_localnet opens
127.0.0.0/8 to the network (CVE-2020-8558). For IPv6 nobody may (RFC 4291, 2.5.3). A
relay needs neither; each half of a connection is an ordinary one.

	client ──► 127.0.0.1:30080 ─ Relay ─ node's address ──► endpoint

Invariants:

  - A node port has a listener exactly while its Service has endpoints. Without one
    the kernel refuses at once, as the table does for the node's other addresses.
  - Which endpoint a connection goes to is decided once. TCP connections live on
    while there is the Service that they were made through, whatever becomes of its
    ports and endpoints. A UDP flow lives as long as its node port and its endpoint.
  - Of two Services with one node port the older has it, then the first by name, as
    in the table (controller/compile). The other one takes over.
  - One TCP connection costs two goroutines, one UDP flow one, and there is a bound
    on both together. Buffers are not theirs: splice(2) moves TCP, datagrams pass
    through buffers that are taken when there is one to read.

Out of scope: SCTP, and which endpoints a Service has (controller/model).
*/
package localport
