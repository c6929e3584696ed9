// SPDX-License-Identifier: Apache-2.0

/*
Package trace follows packets through the chains of this host: what the kernel
tells of a traced packet (nftrace), and what that means for a Service. It is pure;
package kernel beside it makes the table, receives the messages, and looks up what
they name.

# The table

Packets are traced that a rule has asked for, so that there is a table of its own,
for as long as a trace runs. It has an owner (NFT_TABLE_F_OWNER): the kernel
deletes it when the socket that made it is closed, however the process ends.

	table inet kube-nft-trace {
		chain FOLLOW {
			tcp flags syn / syn,ack …
			limit rate 10/second burst 10 packets meta nftrace set 1
		}
		chain PREROUTING-BEGINS {
			type filter hook prerouting priority -2147483648; policy accept;
			ip daddr 10.96.0.80 tcp dport 80 jump FOLLOW
		}
		chain PREROUTING-ENDS {
			type filter hook prerouting priority 2147483647; policy accept;
		}
		…
	}

The chains at prerouting and output choose packets, before anybody else has seen
them. The others are empty. They are there because the kernel describes a traced
packet anew to each base chain that it enters: so each hook tells how the packet
looked before everybody else and after, which is how a translation is seen, and
where a packet was last that nobody has dropped and nobody sees again.

# A packet's story

Tell makes a Packet of the events of one packet. What our own chains do is told in
words of Services; what other tables do by table, chain and rule.
*/
package trace
