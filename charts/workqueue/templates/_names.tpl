{{/* How objects are called and labelled. */}}

{{- define "workqueue.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 30 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change, by which a workload finds its Pods. Takes root and, for one workload, its name. */}}
{{- define "workqueue.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .workload }}
app.kubernetes.io/component: {{ .name }}
{{- end }}
{{- end -}}

{{- define "workqueue.labels" -}}
{{ include "workqueue.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: workqueue
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object: takes root, workload (or none) and name. */}}
{{- define "workqueue.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "workqueue.labels" . | nindent 2 }}
{{- end -}}

{{- define "workqueue.releaseAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "workqueue.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* A workload's account: the one it names, one of its own when it has rules, else the release's. */}}
{{- define "workqueue.account" -}}
{{- if .workload.serviceAccount.name -}}
{{- .workload.serviceAccount.name -}}
{{- else if include "workqueue.grants" . | fromYamlArray -}}
{{- .workload.object -}}
{{- else -}}
{{- include "workqueue.releaseAccount" .root -}}
{{- end -}}
{{- end -}}

{{- define "workqueue.image" -}}
{{- $image := mergeOverwrite (deepCopy .root.Values.image) .workload.image -}}
{{- $path := $image.repository -}}
{{- if $image.registry }}{{ $path = printf "%s/%s" $image.registry $path }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $path $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "workqueue.pullPolicy" -}}
{{- (mergeOverwrite (deepCopy .root.Values.image) .workload.image).pullPolicy -}}
{{- end -}}

{{/* Whether a kind of another project may be rendered: "yes" or nothing. Takes root, api, kind and setting. */}}
{{- define "workqueue.kindExists" -}}
{{- $when := .root.Values.crds.whenMissing -}}
{{- if or (eq $when "render") (.root.Capabilities.APIVersions.Has (printf "%s/%s" .api .kind)) -}}
yes
{{- else if eq $when "fail" -}}
{{- fail (printf "%s is on, but the cluster does not know %s (%s): install its CRD, turn it off, or set crds.whenMissing to skip or render" .setting .kind .api) -}}
{{- end -}}
{{- end -}}
