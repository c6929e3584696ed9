// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// pageStatus and pageServices are what the status page asks for, as far as it is
// compared.
type pageStatus struct {
	Healthy                bool
	ServicePorts, Unserved int
	ConnectionsPerSecond   *float64
	Counted                bool
	Tables                 []struct {
		Altered  string
		Features []string
	}
	Faults []struct{ IPFamily string }
	Drifts map[string]int
	Passes struct {
		Succeeded, Failed int
		Last              []struct {
			Error        string
			Transactions int
			Compared     bool
		}
	}
}

type pageServices struct {
	Total int
	Items []struct {
		listedPort
		ConnectionsPerSecond *float64
	}
}

// page asks the node's status page.
func (c *cluster) page(path string, answer any) error {
	client := http.Client{Transport: &http.Transport{DialContext: c.node.DialContext, DisableKeepAlives: true}}
	response, err := client.Get("http://127.0.0.1:10249" + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %w: %s", path, response.Status, err, body)
	}
	return json.Unmarshal(body, answer)
}

// TestPage: what is sent shows as a rate, what changes as passes, what others do as
// drift, and endpoints are those who answer.
func TestPage(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a, c.r)...)
	c.write(t, "none.yaml", withSlices(service("none", 4, servicePort("", corev1.ProtocolTCP, 80)))...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	var status pageStatus
	c.Must(c.page("/api/v1/status", &status))
	if status.ServicePorts != 4 || status.Unserved != 1 || !status.Healthy || !status.Counted || len(status.Tables) != 2 || len(status.Faults) != 0 {
		t.Errorf("%+v", status)
	}
	if n := len(status.Passes.Last); n == 0 || status.Passes.Last[0].Transactions == 0 || status.Passes.Failed != 0 {
		t.Errorf("passes: %+v", status.Passes)
	}
	var services pageServices
	c.Eventually(10*time.Second, func() error {
		for range 20 {
			for f := range families {
				if _, err := c.client.ask("tcp", netip.AddrPortFrom(clusterIP(1)[f], 80), patience); err != nil {
					return err
				}
			}
		}
		if err := c.page("/api/v1/services?sort=rate&limit=1", &services); err != nil {
			return err
		}
		if len(services.Items) != 1 || services.Items[0].ConnectionsPerSecond == nil || *services.Items[0].ConnectionsPerSecond == 0 {
			return fmt.Errorf("no rate: %+v", services)
		}
		return nil
	})
	busiest := services.Items[0]
	if busiest.Service != "web" || busiest.Port != "tcp" || services.Total != 4 {
		t.Errorf("the busiest of %d is %s:%s", services.Total, busiest.Service, busiest.Port)
	}
	want := c.servers(busiest.Frontends[0].Endpoints)
	c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[ip4], 80), eitherSource, want...)
	if len(want) != 2 {
		t.Errorf("endpoints %v, want 2", want)
	}
	c.Must(c.page("/api/v1/services?unserved=true", &services))
	if services.Total != 1 || services.Items[0].Service != "none" {
		t.Errorf("not served: %+v", services)
	}
	c.Must(c.node.NFT("delete table ip kube-nft"))
	c.Eventually(10*time.Second, func() error {
		var now pageStatus
		if err := c.page("/api/v1/status", &now); err != nil {
			return err
		}
		if now.Drifts["IPv4"] == 0 || len(now.Tables) != 2 || now.Passes.Succeeded <= status.Passes.Succeeded {
			return fmt.Errorf("nothing is said of a table that was deleted: %+v", now)
		}
		return nil
	})
}

// TestPageOff: who does not want the page has none, and keeps metrics.
func TestPageOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.run(t, "--status-page=false")
	if err := c.page("/api/v1/status", new(pageStatus)); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the page: %v", err)
	}
	if len(c.scrape(t)) == 0 {
		t.Error("no metrics")
	}
}
