{{/* check fails on values that cannot work together, in words. */}}
{{- define "kube-nft.check" -}}
{{- $ways := len (compact (list .Values.apiServer .Values.kubeconfigHostPath (ternary "kubeadm" "" .Values.kubeadm.enabled))) -}}
{{- if eq $ways 0 -}}
{{- fail "apiServer is required: the API server as nodes reach it without a Service, https://host:6443 (or set kubeadm.enabled, or kubeconfigHostPath)" -}}
{{- else if gt $ways 1 -}}
{{- fail "set one of apiServer, kubeadm.enabled and kubeconfigHostPath" -}}
{{- end -}}
{{- if and .Values.kubeadm.enabled (ne .Release.Namespace "kube-system") -}}
{{- fail "with kubeadm.enabled the release must be in the namespace of ConfigMap kube-proxy: --namespace kube-system" -}}
{{- end -}}
{{- if and .Values.kubeadm.enabled .Values.config -}}
{{- fail "with kubeadm.enabled the configuration is that of ConfigMap kube-proxy: set config to null" -}}
{{- end -}}
{{- $metrics := get (.Values.config | default dict) "metricsBindAddress" -}}
{{- $healthz := get (.Values.config | default dict) "healthzBindAddress" -}}
{{- if or (hasPrefix "127." $healthz) (hasPrefix "[::1]" $healthz) -}}
{{- fail "config.healthzBindAddress must not be loopback: the kubelet's probes ask the node's address" -}}
{{- end -}}
{{- if and (or .Values.monitoring.podMonitor .Values.monitoring.rules) (or (hasPrefix "127." $metrics) (hasPrefix "[::1]" $metrics)) -}}
{{- fail "with monitoring.podMonitor or monitoring.rules Prometheus must reach config.metricsBindAddress: 0.0.0.0:10249, say" -}}
{{- end -}}
{{- end }}

{{/* config is the file that kube-nft reads. */}}
{{- define "kube-nft.config" -}}
{{- $file := dict "apiVersion" "kubeproxy.config.k8s.io/v1alpha1" "kind" "KubeProxyConfiguration" -}}
{{- if .Values.kubeconfigHostPath -}}
{{- $file = merge $file (dict "clientConnection" (dict "kubeconfig" "/var/lib/kube-nft/kubeconfig")) -}}
{{- end -}}
{{- toYaml (merge $file (.Values.config | default dict)) -}}
{{- end }}

{{/* port is the port of an address of the configuration: (list . "healthzBindAddress" "10256"). */}}
{{- define "kube-nft.port" -}}
{{- $config := (index . 0).Values.config | default dict -}}
{{- regexFind "[0-9]+$" (get $config (index . 1)) | default (index . 2) -}}
{{- end }}

{{/* dir is where the configuration is mounted: kubeadm's names its own path. */}}
{{- define "kube-nft.dir" -}}
{{- ternary "/var/lib/kube-proxy" "/etc/kube-nft" .Values.kubeadm.enabled -}}
{{- end }}

{{/* common is what both containers have. */}}
{{- define "kube-nft.common" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [/kube-nft]
env:
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- if .Values.apiServer }}
- name: API_SERVER
  valueFrom:
    configMapKeyRef:
      name: kube-nft
      key: apiServer
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
- name: config
  mountPath: {{ include "kube-nft.dir" . }}
  readOnly: true
{{- if .Values.kubeconfigHostPath }}
- name: kubeconfig
  mountPath: /var/lib/kube-nft/kubeconfig
  readOnly: true
{{- end }}
{{- end }}

{{/* security is all that either container may do. */}}
{{- define "kube-nft.security" -}}
runAsUser: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [NET_ADMIN]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* args are those of both containers. */}}
{{- define "kube-nft.args" -}}
- --config={{ include "kube-nft.dir" . }}/config.conf
- --hostname-override=$(NODE_NAME)
{{- if .Values.apiServer }}
- --master=$(API_SERVER)
{{- end }}
{{- with .Values.serviceProxyName }}
- --service-proxy-name={{ . }}
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}
