{{/* Every workload of the release as one list, so that each kind of object is one loop over it. */}}

{{/* What each program of the image is: its command, and which of these it has. `queue`: it opens one. `grpc`, `http`:
     it serves it (all serve probes, but a round). `keys`: it takes keys over gRPC. `intake`: it takes what becomes keys
     over HTTP, or people come in there. `calls`: it calls servers. `starts`: it calls back for keys. `drains`: it lets calls end.
     `feeds`: it only enqueues, so that a receiver will do where it cannot open the store. `many`: flags that are
     repeated for each of their values. */}}
{{- define "workqueue.programs" -}}
receiver: {command: [workqueue, receive], queue: true, grpc: true, http: true, keys: true}
dispatcher: {command: [dispatcher, run], queue: true, http: true, calls: true, starts: true, drains: true, owner: true}
serve: {command: [dispatcher, serve], queue: true, grpc: true, http: true, keys: true, calls: true, starts: true, drains: true, owner: true}
rounds: {command: [dispatcher, run, --once], queue: true, calls: true, starts: true, drains: true, owner: true}
hyperqueue: {command: [workqueue, hyperqueue], grpc: true, http: true, calls: true}
watch: {command: [workqueue, watch], queue: true, http: true, calls: true, feeds: true, many: [namespace]}
subscribe: {command: [workqueue, subscribe], queue: true, http: true, intake: true, calls: true, feeds: true, many: [filter]}
resync: {command: [workqueue, resync], queue: true, http: true, calls: true, feeds: true}
scaler: {command: [workqueue, scaler], queue: true, grpc: true, http: true}
console: {command: [workqueue, console], queue: true, http: true, intake: true, calls: true, many: [dispatcher]}
schedules: {command: [dispatcher, schedules], queue: true, http: true, drains: true, owner: true}
relay: {command: [dispatcher, relay], queue: true, http: true, intake: true, drains: true, owner: true}
{{- end -}}

{{/* One workload: the defaults, its program and what it says of itself. Takes root, name, program, queue, given. */}}
{{- define "workqueue.workload" -}}
{{- $programs := include "workqueue.programs" . | fromYaml -}}
{{- if not (hasKey $programs .program) }}{{ fail (printf "%s: program: %q is none of %s" .name .program (keys $programs | sortAlpha | join ", ")) }}{{ end -}}
{{- $program := get $programs .program -}}
{{- $own := omit .given "shards" "program" "queue" "name" "mode" "store" -}}
{{- $workload := mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) -}}
{{- $_ := set $workload "name" .name -}}
{{- $_ := set $workload "object" (printf "%s-%s" (include "workqueue.fullname" .root) .name) -}}
{{- $_ := set $workload "program" (mergeOverwrite (include "workqueue.noProgram" . | fromYaml) (dict "name" .program) $program) -}}
{{- $_ := set $workload "queue" .queue -}}
{{- $_ := set $workload "store" (default .root.Values.store .queue.store) -}}
{{- if and $workload.program.feeds (eq $workload.store.type "sqlite") -}}
{{- /* Nobody but the process of the queue may open its file. */ -}}
{{- $server := include "workqueue.server" (dict "root" .root "queue" .queue.name) | fromYaml -}}
{{- $_ := set $workload "url" $server.url -}}
{{- $_ := set $workload.program "queue" false -}}
{{- end -}}
{{- if eq .program "watch" -}}
{{- include "workqueue.checkWatches" $workload -}}
{{- $_ := set $workload "arguments" (list (printf "--lease=%s/%s" .root.Release.Namespace $workload.object)) -}}
{{- range $workload.watches -}}
{{- $_ := set $workload "arguments" (append $workload.arguments (ternary .kind (printf "%s=%s" .kind .mapping) (empty .mapping))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $workload -}}
{{- end -}}

{{/* What a program has none of, unless its line says so. */}}
{{- define "workqueue.noProgram" -}}
{queue: false, grpc: false, http: false, keys: false, intake: false, calls: false, starts: false, drains: false, feeds: false, owner: false, many: []}
{{- end -}}

{{- define "workqueue.checkWatches" -}}
{{- if not .watches }}{{ fail (printf "%s: watches: it is empty; name the kinds, such as {kind: apps/v1/Deployment, resource: deployments}" .name) }}{{ end -}}
{{- end -}}

{{/* The program that dispatches a queue. SQLite is one file, so one process does everything. */}}
{{- define "workqueue.dispatching" -}}
{{- $store := default .root.Values.store .queue.store -}}
{{- if eq $store.type "sqlite" }}serve{{ else if eq (dig "dispatcher" "mode" "loop" .queue) "rounds" }}rounds{{ else }}dispatcher{{ end -}}
{{- end -}}

{{- define "workqueue.workloads" -}}
{{- $root := . -}}
{{- $found := list -}}
{{- range $queue := .Values.queues -}}
{{- $program := include "workqueue.dispatching" (dict "root" $root "queue" $queue) -}}
{{- $given := default dict $queue.dispatcher -}}
{{- $found = append $found (include "workqueue.workload" (dict "root" $root "queue" $queue "program" $program "name" (printf "%s-dispatcher" $queue.name) "given" $given) | fromYaml) -}}
{{- if ne $program "serve" -}}
{{- $found = append $found (include "workqueue.workload" (dict "root" $root "queue" $queue "program" "receiver" "name" (printf "%s-receiver" $queue.name) "given" (default dict $queue.receiver)) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- range $hyperqueue := .Values.hyperqueues -}}
{{- $workload := include "workqueue.workload" (dict "root" $root "queue" dict "program" "hyperqueue" "name" $hyperqueue.name "given" $hyperqueue) | fromYaml -}}
{{- $_ := set $workload "shards" $hyperqueue.shards -}}
{{- $found = append $found $workload -}}
{{- end -}}
{{- range $entry := .Values.workloads -}}
{{- $queue := dict "name" $entry.name "store" $entry.store -}}
{{- if ne $entry.program "relay" -}}
{{- $queue = include "workqueue.queueNamed" (dict "root" $root "name" $entry.queue "of" $entry.name) | fromYaml -}}
{{- end -}}
{{- $found = append $found (include "workqueue.workload" (dict "root" $root "queue" $queue "program" $entry.program "name" $entry.name "given" $entry) | fromYaml) -}}
{{- end -}}
{{- $enabled := list -}}
{{- range $found -}}
{{- if .enabled -}}
{{- include "workqueue.check" (dict "root" $root "workload" . "others" $enabled) -}}
{{- $enabled = append $enabled . -}}
{{- end -}}
{{- end -}}
{{- toYaml $enabled -}}
{{- end -}}

{{- define "workqueue.queueNamed" -}}
{{- $found := dict -}}
{{- range .root.Values.queues }}{{ if eq .name (default "" $.name) }}{{ $found = . }}{{ end }}{{ end -}}
{{- if and .name (not $found) -}}
{{- fail (printf "%s: queue %q is none of queues" .of .name) -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* What the schema cannot say: refuse it in one line that names the setting. */}}
{{- define "workqueue.check" -}}
{{- $workload := .workload -}}
{{- $values := .root.Values -}}
{{- range .others -}}
{{- if eq .name $workload.name }}{{ fail (printf "two workloads are called %q: names of queues, hyperqueues and workloads have to differ" .name) }}{{ end -}}
{{- end -}}
{{- if gt (len $workload.object) 52 -}}
{{- fail (printf "%s: the name is longer than 52 characters: shorten the queue's, or set fullnameOverride" $workload.object) -}}
{{- end -}}
{{- if $workload.program.starts -}}
{{- $called := pick $workload.settings "callback" "target" "command" -}}
{{- if ne (len $called) 1 -}}
{{- fail (printf "%s: settings.callback, settings.target or settings.command: one of them says what is called" $workload.name) -}}
{{- end -}}
{{- end -}}
{{- if and $workload.program.queue (eq $workload.store.type "sqlite") -}}
{{- if not (has $workload.program.name (list "serve" "relay")) }}{{ fail (printf "%s: a queue in SQLite has one process, so it has no %s beside it" $workload.name $workload.program.name) }}{{ end -}}
{{- if or (gt (int $workload.replicas) 1) $workload.hpa.enabled $workload.keda.enabled -}}
{{- fail (printf "%s: replicas: a queue in SQLite has one process, so at most 1 replica and neither hpa nor keda" $workload.name) -}}
{{- end -}}
{{- end -}}
{{- if and $workload.hpa.enabled $workload.keda.enabled -}}
{{- fail (printf "%s: hpa.enabled and keda.enabled: one of them scales a workload" $workload.name) -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.egress) (or $workload.settings.target (and $workload.program.queue (ne $workload.store.type "sqlite"))) -}}
{{- fail (printf "networkPolicy.egress: it is empty, so %s could not reach its store or target; name them" $workload.name) -}}
{{- end -}}
{{- end -}}
