// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOnlyByName: at a loopback address a page of another name gets nothing, whatever
// leads it there; everywhere else names are the network's, but for the status page.
func TestOnlyByName(t *testing.T) {
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "metrics") })
	for _, tt := range []struct {
		address, host string
		want          int
	}{
		{"127.0.0.1:10249", "127.0.0.1:10249", 200},
		{"127.0.0.1:10249", "127.0.0.1", 200},
		{"127.0.0.1:10249", "[::1]:8080", 200},
		{"127.0.0.1:10249", "192.0.2.1:9", 200}, // an address is no name that could lead here
		{"127.0.0.1:10249", "localhost:10249", 200},
		{"127.0.0.1:10249", "LOCALHOST.", 200},
		{"127.0.0.1:10249", "metrics.localhost", 200},
		{"127.0.0.1:10249", "Node-1:10249", 200},
		{"127.0.0.1:10249", "", 200},
		{"127.0.0.1:10249", "node-2", 421},
		{"127.0.0.1:10249", "rebound.example:10249", 421},
		{"127.0.0.1:10249", "localhost.example", 421},
		{"127.0.0.1:10249", "127.0.0.1.example", 421},
		{"127.0.0.1:10249", "a:b:c", 421},
		{"[::1]:10249", "rebound.example", 421},
		{"0.0.0.0:10249", "node-1.example:10249", 200},
		{"192.0.2.1:10249", "node-1.example", 200},
		{"0.0.0.0:10249/", "192.0.2.1:10249", 200},
		{"0.0.0.0:10249/", "node-1:10249", 200},
		{"0.0.0.0:10249/", "rebound.example:10249", 421},
		{"0.0.0.0:10249/page/page.js", "rebound.example:10249", 421},
		{"192.0.2.1:10249/api/v1/services", "rebound.example", 421},
	} {
		address, path, _ := strings.Cut(tt.address, "/")
		if path == "" && address == tt.address {
			path = "metrics"
		}
		r := httptest.NewRequest("GET", "/"+path, nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		onlyByName(served, address, []string{"node-1"}).ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s asked for %q: %d, want %d", tt.address, tt.host, w.Code, tt.want)
		}
	}
}
