{{/* The Pod of a workload, the same for every program. Takes root and workload. */}}

{{/* A duration of the programs' settings in whole seconds: 500ms, 20s, 2m, 1h. */}}
{{- define "workqueue.seconds" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit) | ceil | int -}}
{{- end -}}

{{/* The least time in which a program can end as it should: what it drains, and 18 s to cancel, settle and answer. */}}
{{- define "workqueue.grace" -}}
{{- if .terminationGracePeriodSeconds -}}
{{- include "workqueue.text" .terminationGracePeriodSeconds -}}
{{- else -}}
{{- $drain := ternary (default "20s" .settings.drainTimeout) "0s" .program.drains -}}
{{- add (ternary .preStopSeconds 0 (or .program.grpc .program.intake) | int) (include "workqueue.seconds" $drain | int) 18 -}}
{{- end -}}
{{- end -}}

{{- define "workqueue.args" -}}
{{- $workload := .workload -}}
{{- range rest (rest $workload.program.command) }}
- {{ . | quote }}
{{- end }}
{{- if or $workload.program.grpc $workload.program.http }}
- "--host=0.0.0.0"
- "--probe-port=8092"
{{- if $workload.tls.existingSecret }}
- "--tls-cert=/etc/workqueue/tls/tls.crt"
- "--tls-key=/etc/workqueue/tls/tls.key"
{{- if $workload.tls.clientCA }}
- "--tls-client-ca=/etc/workqueue/tls/ca.crt"
{{- end }}
{{- else }}
- "--insecure"
{{- end }}
{{- if $workload.tokens.existingSecret }}
- {{ printf "--accept-tokens=/etc/workqueue/tokens/%s" $workload.tokens.key | quote }}
{{- end }}
{{- end }}
{{- if $workload.program.calls }}
{{- include "workqueue.clientArgs" $workload.client }}
{{- end }}
{{- with $workload.shards }}
- {{ printf "--shards=%s" (include "workqueue.shards" (dict "root" $.root "shards" .)) | quote }}
{{- end }}
{{- range $name, $value := $workload.settings }}
{{- if kindIs "bool" $value }}
{{- if $value }}
- {{ printf "--%s" (kebabcase $name) | quote }}
{{- end }}
{{- else if kindIs "slice" $value }}
{{- range ternary $value (list (join "," $value)) (has $name $workload.program.many) }}
- {{ printf "--%s=%s" (kebabcase $name) . | quote }}
{{- end }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%s" (kebabcase $name) (include "workqueue.text" $value) | quote }}
{{- end }}
{{- end }}
{{- range $workload.arguments }}
- {{ . | quote }}
{{- end }}
{{- range $workload.extraArgs }}
- {{ tpl . $.root | quote }}
{{- end }}
{{- end -}}

{{- define "workqueue.clientArgs" -}}
{{- with .caSecret }}
- "--ca=/etc/workqueue/ca/ca.crt"
{{- end }}
{{- with .certSecret }}
- "--client-cert=/etc/workqueue/cert/tls.crt"
- "--client-key=/etc/workqueue/cert/tls.key"
{{- end }}
{{- if .tokenSecret }}
- {{ printf "--token-file=/etc/workqueue/token/%s" (default "token" .tokenKey) | quote }}
{{- end }}
{{- end -}}

{{/* The Secrets of a workload as [folder, Secret], for its volumes and mounts alike. */}}
{{- define "workqueue.secrets" -}}
{{- range list (list "tls" .tls.existingSecret) (list "tokens" .tokens.existingSecret) (list "ca" .client.caSecret) (list "cert" .client.certSecret) (list "token" .client.tokenSecret) }}
{{- if last . }}
- {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "workqueue.shards" -}}
{{- $addresses := list -}}
{{- range .shards -}}
{{- if contains "://" . -}}
{{- $addresses = append $addresses . -}}
{{- else -}}
{{- $shard := include "workqueue.server" (dict "root" $.root "queue" .) | fromYaml -}}
{{- $addresses = append $addresses $shard.url -}}
{{- end -}}
{{- end -}}
{{- join "," $addresses -}}
{{- end -}}

{{/* Who takes the keys of a queue: its receiver, or the one process of a SQLite queue. Takes root and queue (a name). */}}
{{- define "workqueue.server" -}}
{{- $queue := include "workqueue.queueNamed" (dict "root" .root "name" .queue "of" "shards") | fromYaml -}}
{{- $program := include "workqueue.dispatching" (dict "root" .root "queue" $queue) -}}
{{- $role := ternary "dispatcher" "receiver" (eq $program "serve") -}}
{{- $secure := dig $role "tls" "existingSecret" .root.Values.defaults.tls.existingSecret $queue -}}
name: {{ printf "%s-%s" $queue.name $role }}
url: {{ printf "%s://%s-%s-%s.%s.svc:8090" (ternary "grpcs" "grpc" (not (empty $secure))) (include "workqueue.fullname" .root) $queue.name $role .root.Release.Namespace }}
{{- end -}}

{{- define "workqueue.probes" -}}
{{- $probes := .workload.probes -}}
startupProbe:
  httpGet: {path: /healthz, port: probes}
  periodSeconds: 1
  failureThreshold: {{ $probes.startupSeconds }}
livenessProbe:
  httpGet: {path: /healthz, port: probes}
  periodSeconds: {{ $probes.periodSeconds }}
  failureThreshold: {{ $probes.failureThreshold }}
  timeoutSeconds: 5
readinessProbe:
  {{- if and .workload.program.grpc (not .workload.tls.existingSecret) }}
  grpc: {port: 8090}
  {{- else }}
  httpGet: {path: /readyz, port: probes}
  {{- end }}
  periodSeconds: {{ $probes.periodSeconds }}
  failureThreshold: {{ $probes.failureThreshold }}
  timeoutSeconds: 5
{{- end -}}

{{- define "workqueue.env" -}}
- name: OTEL_SERVICE_NAME
  value: {{ .workload.object }}
{{- if .workload.program.owner }}
- name: WORKQUEUE_OWNER
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
{{- if .workload.program.queue }}
{{- include "workqueue.queueEnv" . }}
{{- else if .workload.url }}
- name: WORKQUEUE_URL
  value: {{ .workload.url }}
{{- end }}
{{- with .workload.extraEnv }}
{{ tpl (toYaml .) $.root }}
{{- end }}
{{- end -}}

{{- define "workqueue.container" -}}
- name: {{ .workload.program.name }}
  image: {{ include "workqueue.image" . }}
  imagePullPolicy: {{ include "workqueue.pullPolicy" . }}
  command: {{ slice .workload.program.command 0 2 | toJson }}
  {{- with include "workqueue.args" . | trim }}
  args:
    {{- . | nindent 4 }}
  {{- end }}
  env:
    {{- include "workqueue.env" . | trim | nindent 4 }}
  {{- with .workload.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .served }}
  ports:
    {{- if .workload.program.grpc }}
    - {name: grpc, containerPort: 8090}
    {{- end }}
    - {name: http, containerPort: 8091}
    - {name: probes, containerPort: 8092}
  {{- include "workqueue.probes" . | nindent 2 }}
  {{- if or .workload.program.grpc .workload.program.intake }}
  lifecycle:
    preStop: {sleep: {seconds: {{ .workload.preStopSeconds }}}}
  {{- end }}
  {{- end }}
  resources:
    {{- toYaml .workload.resources | nindent 4 }}
  securityContext:
    {{- toYaml .workload.securityContext | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- if and .workload.program.queue (eq .workload.store.type "sqlite") }}
    - {name: data, mountPath: /data}
    {{- end }}
    {{- range include "workqueue.secrets" .workload | fromYamlArray }}
    - {name: {{ first . }}, mountPath: /etc/workqueue/{{ first . }}, readOnly: true}
    {{- end }}
    {{- with .workload.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- with .workload.extraContainers }}
{{ tpl (toYaml .) $.root }}
{{- end }}
{{- end -}}

{{- define "workqueue.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- if and .workload.program.queue (eq .workload.store.type "sqlite") }}
- name: data
  persistentVolumeClaim: {claimName: {{ include "workqueue.claim" . }}}
{{- end }}
{{- range include "workqueue.secrets" .workload | fromYamlArray }}
- name: {{ first . }}
  secret: {secretName: {{ last . }}}
{{- end }}
{{- with .workload.extraVolumes }}
{{ tpl (toYaml .) $.root }}
{{- end }}
{{- end -}}

{{- define "workqueue.spread" -}}
{{- if .workload.topologySpreadConstraints -}}
topologySpreadConstraints:
  {{- toYaml .workload.topologySpreadConstraints | nindent 2 }}
{{- else if .workload.topologySpread -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "workqueue.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* A whole Pod: its metadata and spec. `served` is off for what ends by itself. */}}
{{- define "workqueue.pod" -}}
metadata:
  labels:
    {{- include "workqueue.selector" . | nindent 4 }}
    {{- with mergeOverwrite (deepCopy .root.Values.commonLabels) .workload.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .workload.podAnnotations }}
  annotations:
    {{- tpl (toYaml .) $.root | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "workqueue.account" . }}
  automountServiceAccountToken: {{ not (empty (include "workqueue.grants" . | fromYamlArray)) }}
  # A Service called workqueue-http would else set WORKQUEUE_HTTP_PORT to an address.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "workqueue.grace" .workload }}
  securityContext:
    {{- toYaml .workload.podSecurityContext | nindent 4 }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $name := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
  {{- with get $.workload $name }}
  {{ $name }}: {{- if kindIs "string" . }} {{ . }}{{ else }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- end }}
  {{- end }}
  {{- with include "workqueue.spread" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if not .served }}
  restartPolicy: Never
  {{- end }}
  containers:
    {{- include "workqueue.container" . | nindent 4 }}
  volumes:
    {{- include "workqueue.volumes" . | nindent 4 }}
{{- end -}}
