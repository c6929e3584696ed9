// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
)

// demoService is a Service of the manifests and the pods behind it.
type demoService struct {
	*model.Service
	pods []*demoPod // in order of their names
}

// readServices reads what the demo is about from a directory, in order of file
// name. Its errors are all that is wrong there.
func readServices(dir string) ([]*demoService, error) {
	objects, err := source.ReadDir(dir, source.DirOptions{
		NodeName: nodeName, Check: model.Check, Logger: slog.New(slog.DiscardHandler),
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no manifests at %s: run the demo in the top directory of kube-nft's source, or name theirs with --manifests", dir)
	case err != nil:
		return nil, err
	}
	var services []*demoService
	byName := make(map[types.NamespacedName]*demoService)
	for _, o := range objects {
		s, ok := o.(*corev1.Service)
		if !ok {
			continue
		}
		// What is wrong with it is an error of ReadDir.
		if m, _ := model.FromService(s, ""); m != nil {
			byName[m.Name] = &demoService{Service: m}
			services = append(services, byName[m.Name])
		}
	}
	names, err := podNames(dir)
	if err != nil {
		return nil, err
	}
	pods := make(map[string]*demoPod)
	for _, o := range objects {
		if s, ok := o.(*discoveryv1.EndpointSlice); ok {
			addPods(byName, pods, names, s)
		}
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("the manifests at %s have no Service with endpoints to show; name others with --manifests", dir)
	}
	for _, s := range services {
		slices.SortFunc(s.pods, byPodName)
	}
	// Services with the most to show come first.
	slices.SortStableFunc(services, func(a, b *demoService) int { return cmp.Compare(len(b.pods), len(a.pods)) })
	return services, nil
}

// addPods makes the pods of a slice, or adds to those there are.
func addPods(services map[types.NamespacedName]*demoService, pods map[string]*demoPod, names map[netip.Addr]string, s *discoveryv1.EndpointSlice) {
	m, _ := model.FromSlice(s, nodeName) // errors are those of ReadDir
	if m == nil || services[m.Service] == nil {
		return
	}
	service := services[m.Service]
	for _, e := range m.Endpoints {
		if !e.Ready {
			continue
		}
		name := cmp.Or(names[e.Addr], e.Addr.String())
		p := pods[name]
		if p == nil {
			p = &demoPod{name: name}
			pods[name] = p
		}
		if !slices.Contains(p.addrs, e.Addr) {
			p.addrs = append(p.addrs, e.Addr)
		}
		for _, port := range m.Ports {
			l := listener{network(port.Protocol), netip.AddrPortFrom(e.Addr, port.Port)}
			if !slices.Contains(p.listens, l) {
				p.listens = append(p.listens, l)
			}
		}
		if !slices.Contains(service.pods, p) {
			service.pods = append(service.pods, p)
		}
	}
}

// podsOf lists the pods of all Services, each once.
func podsOf(services []*demoService) []*demoPod {
	var all []*demoPod
	for _, s := range services {
		for _, p := range s.pods {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, byPodName)
	return all
}

func byPodName(a, b *demoPod) int { return strings.Compare(a.name, b.name) }

// network is the protocol as netlab names it.
func network(p model.Protocol) string {
	switch p {
	case model.UDP:
		return "udp"
	case model.SCTP:
		return "sctp"
	}
	return "tcp"
}

// portName is a Service port as people say it.
func portName(p model.ServicePort) string {
	return fmt.Sprintf("%s %d", strings.ToUpper(network(p.Protocol)), p.Port)
}

// showServices lists the Services as the manifests say them.
func showServices(s *screen, services []*demoService) {
	rows := [][]string{{"SERVICE", "PORTS", "ADDRESSES", "ENDPOINTS"}}
	for _, svc := range services {
		var ports, addresses, pods, nodePorts []string
		for _, p := range svc.Ports {
			ports = append(ports, portName(p))
			if p.NodePort != 0 {
				nodePorts = append(nodePorts, fmt.Sprintf("node port %d", p.NodePort))
			}
		}
		for _, p := range svc.pods {
			pods = append(pods, p.name)
		}
		for _, ips := range [][]netip.Addr{valid(svc.ClusterIPs[:]), svc.LoadBalancerIPs, svc.ExternalIPs} {
			if len(ips) > 0 {
				addresses = append(addresses, strings.Join(words(ips), "  "))
			}
		}
		for i, a := range append(addresses, nodePorts...) {
			row := []string{"", "", a}
			if i == 0 {
				row = []string{svc.Name.Name, strings.Join(ports, ", "), a, cmp.Or(strings.Join(pods, " "), "none")}
			}
			rows = append(rows, row)
		}
	}
	s.columns("   ", rows)
}

func valid(addrs []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !a.IsValid() })
}
