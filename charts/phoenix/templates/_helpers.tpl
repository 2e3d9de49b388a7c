{{/* Names, at most 63 characters, as a label's value must be. */}}
{{- define "phoenix.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "phoenix.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "phoenix.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "phoenix.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Cluster-scoped objects of two releases must not share a name. */}}
{{- define "phoenix.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "phoenix.fullname" .) }}
{{- end }}

{{- define "phoenix.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "phoenix.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "phoenix.selectorLabels" -}}
app.kubernetes.io/name: {{ include "phoenix.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "phoenix.labels" -}}
{{ include "phoenix.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: phoenix-hypervisor
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "phoenix.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* What the operator may do in the namespaces whose containers it looks after. It creates and deletes
     none of these but what spec.service asks for: the rest are the users' objects. */}}
{{- define "phoenix.workloadRules" -}}
# Finalizers are set and taken by patch.
- apiGroups: [phoenix-hypervisor.io]
  resources: [lxctemplates, lxccontainers]
  verbs: [get, patch]
- apiGroups: [phoenix-hypervisor.io]
  resources: [lxctemplates/status, lxccontainers/status]
  verbs: [get, patch]
# Setup scripts and what they are given; the tokens and keys that spec.vllm names. Each is read by its name.
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get]
# spec.service.
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, create, patch, delete]
{{- end }}
