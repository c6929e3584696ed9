// SPDX-License-Identifier: Apache-2.0

/*
Package nft is the table as values: which sets, chains and rules there are, what
an element says, and how a change reads. It knows nftables and nothing of
Kubernetes; it is pure, and opens no socket. Package kernel beside it writes and
reads these values over netlink.

The rules are constant. A Service port is one element of a verdict map, an
endpoint is one element of a data map, so that programming a Service means to
add elements. There is one table per IP family, `ip kube-nft` and `ip6 kube-nft`;
the second differs from the first in the word ip6 and the length of addresses.

# The walk of a packet

	 from outside, or from a pod               from a process on this node
	             │                                          │
	prerouting, nat: PREROUTING       output, nat: OUTPUT jump KUBE-SERVICES
	             └───────────────────┬──────────────────────┘
	             address . protocol . port in map KUBE-SERVICES?
	  ┌───────────────────┬──────────┴──────────────┐
	ClusterIP      external IP,             no: to a node address?
	  │            load balancer IP           ┌─────┴───────┐
	  │                   │                  yes            no
	  │                   │            KUBE-NODEPORTS       │
	  │                   │        protocol . port in map   │
	  │                   │        KUBE-NODEPORTS?          │
	  │                   │             yes │   └─ no ──────┤
	KUBE-SVC-n        KUBE-EXT-n    KUBE-NODEPORT-n         │
	mark unless a     mark          mark                    │
	local pod             │               │                 │
	  └─ KUBE-SEP: dnat ──┘         KUBE-SEP-NODEPORTS:     │
	             │                  dnat    │               │
	             └────────────┬─────────────┘               │
	                          │       as it came            │
	                          ├─────────────────────────────┘
	           input, forward or output, filter: KUBE-UNSERVED-*
	             not new, or translated: accept
	             a frontend without endpoints, or an unused
	             port of a ClusterIP: reject
	                          │
	           postrouting, nat: KUBE-POSTROUTING
	             marked: KUBE-MASQ, clear the mark and masquerade
	             a pod that reached itself: masquerade

Chains of type nat see the first packet of a connection only; conntrack treats
the others alike. The filter chains see every packet, and let the others go at
their first test. A packet that no Service took passes all of it unchanged.

A lookup that finds a slot ends the nat chain, because dnat is final. One that
finds none goes on to the next rule, which tries slot 0: see Slots.

# The table

This is what `nft list table ip kube-nft` prints with three Services, trimmed to
few elements; nft also prints each frontend's counter. `kube-nft render` prints
the table of a cluster or of manifests in this form.

	table ip kube-nft {
		comment "kube-nft schema 1"

		# Frontends: what clients address, and where it leads. The number in
		# the chain's name is that of the endpoints.
		map KUBE-SERVICES {
			typeof ip daddr . meta l4proto . th dport : verdict
			size 768
			counter
			elements = { 10.96.0.10 . udp . 53 comment "kube-system/kube-dns:dns" : goto KUBE-SVC-3,
				     192.0.2.80 . tcp . 80 comment "default/web:http" : goto KUBE-EXT-2 }
		}
		map KUBE-NODEPORTS {
			typeof meta l4proto . th dport : verdict
			size 768
			counter
			elements = { tcp . 30080 comment "default/web:http" : goto KUBE-NODEPORT-2 }
		}

		# Endpoints: the same key and a slot, from 0 and without holes.
		map KUBE-SEP {
			typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport
			size 768
			elements = { 10.96.0.10 . udp . 53 . 0 : 10.128.1.2 . 53,
				     10.96.0.10 . udp . 53 . 1 : 10.128.1.3 . 53,
				     10.96.0.10 . udp . 53 . 2 : 10.128.1.4 . 53,
				     192.0.2.80 . tcp . 80 . 0 : 10.128.1.2 . 8080,
				     192.0.2.80 . tcp . 80 . 1 : 10.128.1.3 . 8080 }
		}
		map KUBE-SEP-NODEPORTS {
			typeof meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport
			size 768
			elements = { tcp . 30080 . 0 : 10.128.1.2 . 8080,
				     tcp . 30080 . 1 : 10.128.1.3 . 8080 }
		}

		# Frontends that no endpoint serves.
		map KUBE-NO-ENDPOINTS {
			typeof ip daddr . meta l4proto . th dport : verdict
			size 768
			elements = { 10.96.0.12 . sctp . 80 comment "default/empty:http" : goto KUBE-REJECT }
		}
		map KUBE-NO-ENDPOINTS-NODEPORTS {
			typeof meta l4proto . th dport : verdict
			size 768
			elements = { tcp . 30081 comment "default/empty:http" : goto KUBE-REJECT }
		}

		# ClusterIPs, the addresses that node ports are served on, and the
		# endpoints on this node, each as a pair with itself.
		set KUBE-CLUSTER-IP {
			typeof ip daddr
			size 768
			elements = { 10.96.0.10 }
		}
		set KUBE-NODE-IP {
			typeof ip daddr
			size 768
			elements = { 203.0.113.7 }
		}
		set KUBE-LOOP-BACK {
			typeof ip saddr . ip daddr
			size 768
			elements = { 10.128.1.2 . 10.128.1.2,
				     10.128.1.3 . 10.128.1.3 }
		}

		chain PREROUTING {
			type nat hook prerouting priority dstnat; policy accept;
			ip daddr . meta l4proto . th dport vmap @KUBE-SERVICES
			ip daddr @KUBE-NODE-IP jump KUBE-NODEPORTS
		}
		chain OUTPUT {
			type nat hook output priority -100; policy accept;
			jump KUBE-SERVICES
		}
		chain KUBE-SERVICES {
			ip daddr . meta l4proto . th dport vmap @KUBE-SERVICES
			ip daddr @KUBE-NODE-IP jump KUBE-NODEPORTS
		}
		chain KUBE-NODEPORTS {
			meta l4proto . th dport vmap @KUBE-NODEPORTS
		}

		# One chain for each number of endpoints in use, none for a Service.
		chain KUBE-SVC-1 {
			ip saddr != 10.128.0.0/16 jump KUBE-MARK-MASQ
			dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @KUBE-SEP
		}
		chain KUBE-SVC-3 {
			ip saddr != 10.128.0.0/16 jump KUBE-MARK-MASQ
			dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @KUBE-SEP
			goto KUBE-SVC-1
		}
		chain KUBE-EXT-2 {
			jump KUBE-MARK-MASQ
			dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @KUBE-SEP
			goto KUBE-SVC-1
		}
		chain KUBE-NODEPORT-2 {
			jump KUBE-MARK-MASQ
			dnat ip to meta l4proto . th dport . numgen random mod 2 map @KUBE-SEP-NODEPORTS
			dnat ip to meta l4proto . th dport . numgen random mod 1 map @KUBE-SEP-NODEPORTS
		}
		chain KUBE-MARK-MASQ {
			meta mark set meta mark | 0x00004000
		}

		# What no Service took. Only the last rules differ.
		chain KUBE-UNSERVED-INPUT {
			type filter hook input priority filter; policy accept;
			ct state != new accept
			ct status dnat accept
			ip daddr . meta l4proto . th dport vmap @KUBE-NO-ENDPOINTS
			ip daddr @KUBE-NODE-IP meta l4proto . th dport vmap @KUBE-NO-ENDPOINTS-NODEPORTS
		}
		chain KUBE-UNSERVED-FORWARD {
			type filter hook forward priority filter; policy accept;
			ct state != new accept
			ct status dnat accept
			ip daddr . meta l4proto . th dport vmap @KUBE-NO-ENDPOINTS
			ip daddr @KUBE-CLUSTER-IP reject
		}
		chain KUBE-UNSERVED-OUTPUT {
			type filter hook output priority filter; policy accept;
			ct state != new accept
			ct status dnat accept
			ip daddr . meta l4proto . th dport vmap @KUBE-NO-ENDPOINTS
			ip daddr @KUBE-CLUSTER-IP reject
		}
		chain KUBE-REJECT {
			reject
		}

		chain KUBE-POSTROUTING {
			type nat hook postrouting priority srcnat; policy accept;
			meta mark & 0x00004000 == 0x00004000 goto KUBE-MASQ
			ct status dnat ip saddr . ip daddr @KUBE-LOOP-BACK masquerade fully-random
		}
		chain KUBE-MASQ {
			meta mark set meta mark ^ 0x00004000
			masquerade fully-random
		}
	}

# The external traffic policy Local

While a Service has it, PREROUTING asks two more maps, of the same types: KUBE-XLB
and KUBE-XLB-NODEPORTS for frontends. KUBE-SEP-XLB and KUBE-SEP-XLB-NODEPORTS hold
their endpoints on this node.

	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		ip saddr != 10.128.0.0/16 jump KUBE-XLB
		ip daddr . meta l4proto . th dport vmap @KUBE-SERVICES
		ip daddr @KUBE-NODE-IP jump KUBE-XLB-NODEPORTS
	}
	chain KUBE-XLB {
		ip daddr . meta l4proto . th dport vmap @KUBE-XLB
	}
	chain KUBE-XLB-NODEPORTS {
		ip saddr != 10.128.0.0/16 meta l4proto . th dport vmap @KUBE-XLB-NODEPORTS
		goto KUBE-NODEPORTS
	}
	chain KUBE-XLB-1 {
		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @KUBE-SEP-XLB
	}
	chain KUBE-XLB-SVC-2 {
		ip saddr != 10.128.0.0/16 jump KUBE-MARK-MASQ
		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @KUBE-SEP
		goto KUBE-SVC-1
	}

Clients meet KUBE-XLB first: endpoints on this node only, under their own address,
or `drop` where this node has none. Local pods pass it, and the node itself never
comes by: both find the same frontend in KUBE-SERVICES, which leads them to all
endpoints by KUBE-XLB-SVC-n, the node masqueraded. The internal policy Local needs
nothing of this: the frontend of a ClusterIP leads to fewer slots.

# Features

The external policy Local is one of the Features: sets, chains and rules that exist
only while a Service needs them, because packets pay for them. So is KUBE-LOOP-BACK,
which the endpoints on this node are in. They come in the
transaction of the first such Service and go in that of the last; other chains of the
table get other rules in it. A table is adopted with whatever features it has.

# Session affinity

A Service port with affinity owns a map from clients to endpoints, which the kernel
fills, and a chain for each way to it; its frontends jump there first. Who is not in
the map returns, to a second verdict map that says how the frontend is balanced.

	map KUBE-AFFINITY-default/web/tcp/http {
		typeof ip saddr : ip daddr . th dport
		size 65536
		flags dynamic,timeout
		elements = { 198.51.100.9 timeout 3h expires 2h59m48s : 10.128.1.3 . 8080 }
	}
	chain KUBE-SERVICES {
		ip daddr . meta l4proto . th dport vmap @KUBE-SERVICES             # : jump KUBE-AFFINITY-default/web/tcp/http
		ip daddr . meta l4proto . th dport vmap @KUBE-AFFINITY-SERVICES    # : goto KUBE-SVC-3
		ip daddr @KUBE-NODE-IP jump KUBE-NODEPORTS
	}
	chain KUBE-AFFINITY-default/web/tcp/http {
		ip saddr != 10.128.0.0/16 jump KUBE-MARK-MASQ
		meta l4proto tcp dnat ip to ip saddr map @KUBE-AFFINITY-default/web/tcp/http
	}

dnat ends the nat chain, so that the client is noted later: after translation and
before its own address is replaced. Only the first packet of a connection counts,
and only endpoints that Services with affinity have now.

	chain KUBE-LEARN-POSTROUTING {
		type filter hook postrouting priority srcnat - 1; policy accept;
		ct status confirmed accept
		ct status dnat ip daddr . meta l4proto . th dport @KUBE-LEARN-SEP jump KUBE-LEARN
	}
	chain KUBE-LEARN {
		meta l4proto tcp ct original ip daddr . meta l4proto . ct original proto-dst vmap @KUBE-LEARN
		ct original ip daddr @KUBE-NODE-IP meta l4proto tcp meta l4proto . ct original proto-dst vmap @KUBE-LEARN-NODEPORTS
		…
	}
	chain KUBE-LEARN-default/web/tcp/http {
		ip daddr . meta l4proto . th dport @KUBE-LEARN-SEP meta l4proto tcp update @KUBE-AFFINITY-default/web/tcp/http { ct original ip saddr timeout 3h : ip daddr . th dport }
	}

KUBE-LEARN-INPUT does the same for endpoints on the node's own addresses. update
starts the time of an entry that is there again and does not change it; so whoever
deletes an endpoint deletes what its clients are noted under (Keep). Where a policy
is Local there is a second map, KUBE-AFFINITY-XLB-default/web/tcp/http, with endpoints
on this node: those of one policy are no good for the other.

Should the map be full, update does nothing: new clients are balanced each time.

# Source ranges

Who may reach a load balancer IP is decided before translation, at two hooks:

	chain KUBE-FIREWALL-PREROUTING {
		type filter hook prerouting priority dstnat - 10; policy accept;
		ct state != new accept
		ip daddr . meta l4proto . th dport != @KUBE-LOAD-BALANCER-FW accept
		ip daddr . meta l4proto . th dport . ip saddr != @KUBE-LOAD-BALANCER-SOURCE-CIDR drop
	}

KUBE-FIREWALL-OUTPUT is for processes on this node. The ranges of one frontend are
disjoint: the kernel takes no others.

# One connection

A client 198.51.100.9 connects to 192.0.2.80, TCP port 80:

 1. prerouting: map KUBE-SERVICES has 192.0.2.80 . tcp . 80, counts the packet and
    leads to KUBE-EXT-2.
 2. KUBE-EXT-2 sets the mark bit, draws 0 or 1, say 1, and finds
    192.0.2.80 . tcp . 80 . 1 in KUBE-SEP: dnat to 10.128.1.3, port 8080.
 3. The packet is routed anew. forward: KUBE-UNSERVED-FORWARD accepts it at the
    second rule, since conntrack calls it translated.
 4. postrouting: the bit is set, so KUBE-MASQ clears it and the source becomes the
    node's own address. The answer comes back through this node, and conntrack
    turns both translations around.

A pod 10.128.1.2 that asks the ClusterIP is in the pods' range: it is not marked,
and the endpoint sees its own address. Should it draw itself, source and
destination are equal after dnat, which is in KUBE-LOOP-BACK: it is masqueraded,
or it would answer itself and never see the translated answer.

# Slots

numgen's modulus is a constant of its rule, hence one chain for each number of
endpoints in use (Chain), shared by all Services with as many. Slots are dense:
when an endpoint goes, the last one moves into its slot and the frontend leads
to the chain of one less. A packet may have read the old chain's name just before
that was committed and draw the slot that is gone; it goes on to slot 0, which
exists as long as the frontend does. Above 4 endpoints the modulus goes in steps
(Modulus): the chain may have more slots than there are endpoints, and has rules
to draw again.

# What depends on the configuration

Options decide it, and a change of them is another schema: the table is replaced
as a whole, in one transaction.

  - LocalPods: the prefix of the first rule of KUBE-SVC-n; without it the rule is
    left out and nobody is masqueraded on the way to a ClusterIP.
  - MasqueradeAll: that rule is `jump KUBE-MARK-MASQ` for everybody.
  - MasqueradeBit: the bit 0x00004000 of the mark. The other bits are not ours.
  - AllNodePorts: `fib daddr type local ip daddr != 127.0.0.0/8` instead of
    `ip daddr @KUBE-NODE-IP`.
  - Counters: the word counter in KUBE-SERVICES and KUBE-NODEPORTS.

# Where things are

Schema, Options and Sizes describe the constant part; rule.go holds every rule
and expr.go what each of its clauses compiles to. Set says what the elements of a
set look like, and Element is one of them; text, bytes and nft's own description
of the type follow from the same layout. Contents is what a table holds, Diff
compares two, and Delta is a change, which prints as a script for nft.
*/
package nft
