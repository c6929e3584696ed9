// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Probe asks a container once, as its manifest says, and returns why it fails. There
// must be such a probe, of HTTP.
func (p *Pod) Probe(ctx context.Context, container string, probe *corev1.Probe) error {
	if probe == nil || probe.HTTPGet == nil {
		return fmt.Errorf("container %s has no such HTTP probe", container)
	}
	get := probe.HTTPGet
	port, err := p.port(container, get.Port)
	if err != nil {
		return err
	}
	addr := p.kubelet.config.Addr
	if get.Host != "" {
		if addr, err = netip.ParseAddr(get.Host); err != nil {
			return err
		}
	}
	timeout := time.Duration(max(probe.TimeoutSeconds, 1)) * time.Second
	url := fmt.Sprintf("http://%s%s", netip.AddrPortFrom(addr, port), get.Path)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := p.kubelet.client(timeout).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

// port returns the number of a container's port.
func (p *Pod) port(container string, port intstr.IntOrString) (uint16, error) {
	if port.Type == intstr.Int {
		return uint16(port.IntVal), nil
	}
	for _, c := range containers(p.Object) {
		for _, has := range c.Ports {
			if c.Name == container && has.Name == port.StrVal {
				return uint16(has.ContainerPort), nil
			}
		}
	}
	return 0, fmt.Errorf("container %s has no port %s", container, port.StrVal)
}

// AwaitReady waits until all of the pod's containers that have a startup, a liveness
// or a readiness probe pass all of them. It returns at once if a container ends.
func (p *Pod) AwaitReady(ctx context.Context, within time.Duration) error {
	var fatal error
	err := netlab.Poll(within, func() error {
		for i := range p.Object.Spec.Containers {
			c := &p.Object.Spec.Containers[i]
			status, _, err := p.status(ctx, c.Name)
			if err != nil {
				return err
			}
			if status.State != "CONTAINER_RUNNING" {
				fatal = fmt.Errorf("container %s has ended with exit code %d: %s %s", c.Name, status.ExitCode, status.Reason, status.Message)
				return nil
			}
			for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				if probe == nil {
					continue
				}
				if err := p.Probe(ctx, c.Name, probe); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return errors.Join(fatal, err)
}
