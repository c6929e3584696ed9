// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"fmt"
	"testing"
	"time"
)

func TestParseConnection(t *testing.T) {
	for _, tt := range []struct {
		line, want string
		open       bool
	}{
		{line: "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData"},
		{"TCP 0AF40005 C5A2 0A600A50 0050 0AF40007 1F90 ESTABLISHED     899", "10.244.0.5:50594 tcp 10.96.10.80:80", true},
		{"TCP 0AF40005 C5A2 0A600A50 0050 0AF40007 1F90 FIN_WAIT        119", "10.244.0.5:50594 tcp 10.96.10.80:80", true},
		{"TCP 0AF40005 C5A2 0A600A50 0050 0AF40007 1F90 TIME_WAIT       119", "10.244.0.5:50594 tcp 10.96.10.80:80", false},
		{"TCP 0AF40005 C5A2 0A600A50 0050 0AF40007 1F90 SYN_SENT         59", "10.244.0.5:50594 tcp 10.96.10.80:80", false},
		{"TCP 0AF40005 0000 0A600A50 0050 0AF40007 1F90 NONE          10800", "", false}, // persistence
		{"UDP 0AF40005 C5A2 0A600A50 0035 0AF40007 1F90 UDP             300", "10.244.0.5:50594 udp 10.96.10.80:53", true},
		{"UDP 0AF40005 C5A2 0A600A50 0035 0AF40007 1F90 UDP             271", "10.244.0.5:50594 udp 10.96.10.80:53", true},
		{"UDP 0AF40005 C5A2 0A600A50 0035 0AF40007 1F90 UDP             270", "10.244.0.5:50594 udp 10.96.10.80:53", false},
		{"TCP fd00:0010:0244:0000:0000:0000:0000:000a C5A2 fd00:0010:0096:0000:0000:0000:0000:0050 0050 fd00:0010:0244:0000:0000:0000:0000:000b 1F90 ESTABLISHED     899",
			"[fd00:10:244::a]:50594 tcp [fd00:10:96::50]:80", true},
		{line: "TCP 0AF40005 C5A2 0A600A5 0050 0AF40007 1F90 ESTABLISHED     899"},
		{line: "TCP 0AF4000 C5A2 0A600A50 0050 0AF40007 1F90 ESTABLISHED     899"},
	} {
		c, open, _ := parseConnection(tt.line, 5*time.Minute)
		if got := fmt.Sprint(c.client, " ", c.to); open != tt.open || (tt.want != "" && got != tt.want) {
			t.Errorf("%s: %s, open %t, want %s, %t", tt.line, got, open, tt.want, tt.open)
		}
	}
}

func TestParseSocket(t *testing.T) {
	for _, tt := range []struct {
		line, want string
		connected  bool
	}{
		{line: "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"},
		{"   0: 500A600A:A5C2 0A00F40A:0050 01 00000000:00000000", "10.96.10.80", true},
		{"   0: 500A600A:A5C2 0A00F40A:0050 06 00000000:00000000", "", false},
		{"   0: 500A600A:0035 00000000:0000 0A 00000000:00000000", "", false}, // listens
		{"   0: 100000FD00009600000000005000000000:A5C2 100000FD000044020000000A:0050 01 0:0", "", false},
		{"   0: 100000FD000096000000000050000000:A5C2 100000FD00004402000000000A000000:0050 01 0:0", "fd00:10:96::50", true},
	} {
		own, connected := parseSocket(tt.line)
		if connected != tt.connected || (connected && own.String() != tt.want) {
			t.Errorf("%s: %v, %t, want %s, %t", tt.line, own, connected, tt.want, tt.connected)
		}
	}
}

// FuzzProc feeds the readers of /proc.
func FuzzProc(f *testing.F) {
	f.Add("TCP 0AF40005 C5A2 0A600A50 0050 0AF40007 1F90 ESTABLISHED     899")
	f.Add("0: 500A600A:A5C2 0A00F40A:0050 01")
	f.Fuzz(func(t *testing.T, line string) {
		if c, _, ok := parseConnection(line, time.Minute); ok && (!c.to.Addr.IsValid() || !c.client.IsValid()) {
			t.Errorf("%q goes nowhere", line)
		}
		if own, connected := parseSocket(line); connected && !own.IsValid() {
			t.Errorf("%q comes from nowhere", line)
		}
	})
}
