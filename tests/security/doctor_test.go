// SPDX-License-Identifier: Apache-2.0

package security

import (
	"strings"
	"testing"
)

// TestDoctorConfined: `kube-nft doctor` gets along with what the container of the
// DaemonSet has, and says what it finds there.
func TestDoctorConfined(t *testing.T) {
	n := newNode(t)
	confined := []string{"-caps", "net_admin", "-no-new-privs", "-read-only", "-profile", profile, "-violation", "kill"}
	n.run(confined)
	n.answered(n.client, "tcp", clusterIP, 1, 2)
	if code, said := n.toEnd(confined, "doctor"); code != 0 || !strings.Contains(said, "nothing to mend") {
		t.Errorf("a healthy node: code %d: %s", code, said)
	}
	n.Must(n.node.NFT("table inet guard {\n chain forward {\n type filter hook forward priority 0; policy drop;\n }\n}\n"))
	if code, said := n.toEnd(confined, "doctor", "-o", "wide"); code != 4 || !strings.Contains(said, "ERROR  endpoint-dropped") {
		t.Errorf("beside a firewall: code %d: %s", code, said)
	}
}
