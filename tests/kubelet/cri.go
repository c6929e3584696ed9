// SPDX-License-Identifier: Apache-2.0

package kubelet

// The messages of the Container Runtime Interface, in its JSON form, with the fields
// that are used here. See k8s.io/cri-api/pkg/apis/runtime/v1/api.proto for all.
type (
	sandboxConfig struct {
		Metadata     metadata          `json:"metadata"`
		Labels       map[string]string `json:"labels,omitempty"`
		LogDirectory string            `json:"logDirectory"`
		DNSConfig    dnsConfig         `json:"dnsConfig"`
		Linux        struct {
			SecurityContext sandboxSecurity `json:"securityContext"`
		} `json:"linux"`
	}
	containerConfig struct {
		Metadata metadata `json:"metadata"`
		Image    struct {
			Image string `json:"image"`
		} `json:"image"`
		Command    []string  `json:"command,omitempty"`
		Args       []string  `json:"args,omitempty"`
		WorkingDir string    `json:"workingDir,omitempty"`
		Envs       []keyPair `json:"envs,omitempty"`
		Mounts     []mount   `json:"mounts,omitempty"`
		LogPath    string    `json:"logPath"`
		Linux      struct {
			Resources struct {
				OOMScoreAdj int `json:"oomScoreAdj"`
			} `json:"resources"`
			SecurityContext security `json:"securityContext"`
		} `json:"linux"`
	}
	metadata struct {
		Name      string `json:"name"`
		UID       string `json:"uid,omitempty"`
		Namespace string `json:"namespace,omitempty"`
	}
	dnsConfig struct {
		Servers []string `json:"servers"`
	}
	keyPair struct {
		Key   string `json:"key"`
		Value []byte `json:"value"` // bytes in the interface, hence base64
	}
	mount struct {
		ContainerPath string `json:"containerPath"`
		HostPath      string `json:"hostPath"`
		Readonly      bool   `json:"readonly,omitempty"`
	}
	namespaceOptions struct {
		Network string `json:"network"`
		PID     string `json:"pid"`
		IPC     string `json:"ipc"`
	}
	seccomp struct {
		ProfileType string `json:"profileType"`
	}
	sandboxSecurity struct {
		NamespaceOptions namespaceOptions `json:"namespaceOptions"`
		Privileged       bool             `json:"privileged,omitempty"`
		Seccomp          seccomp          `json:"seccomp"`
	}
	security struct {
		NamespaceOptions namespaceOptions `json:"namespaceOptions"`
		Capabilities     *capabilities    `json:"capabilities,omitempty"`
		Privileged       bool             `json:"privileged,omitempty"`
		RunAsUser        *int64Value      `json:"runAsUser,omitempty"`
		RunAsGroup       *int64Value      `json:"runAsGroup,omitempty"`
		ReadonlyRootfs   bool             `json:"readonlyRootfs,omitempty"`
		NoNewPrivs       bool             `json:"noNewPrivs,omitempty"`
		MaskedPaths      []string         `json:"maskedPaths,omitempty"`
		ReadonlyPaths    []string         `json:"readonlyPaths,omitempty"`
		Seccomp          seccomp          `json:"seccomp"`
	}
	capabilities struct {
		Add  []string `json:"addCapabilities,omitempty"`
		Drop []string `json:"dropCapabilities,omitempty"`
	}
	int64Value struct {
		Value int64 `json:"value"`
	}
	containerStatus struct {
		State    string `json:"state"` // CONTAINER_RUNNING, CONTAINER_EXITED
		ExitCode int    `json:"exitCode"`
		Reason   string `json:"reason"`
		Message  string `json:"message"`
	}
)
