{{/* Every workload of the release as one list, so that each kind of object is one loop over it. */}}

{{/* What each program of the image is: its command, and which of these it has. `queue`: it opens one. `grpc`, `http`:
     it serves it (all serve probes, but a round). `calls`: it calls servers. `drains`: it lets callbacks end. */}}
{{- define "workqueue.programs" -}}
receiver: {command: [workqueue, receive], queue: true, grpc: true, http: true}
dispatcher: {command: [dispatcher, run], queue: true, http: true, calls: true, drains: true, owner: true}
serve: {command: [dispatcher, serve], queue: true, grpc: true, http: true, calls: true, drains: true, owner: true}
rounds: {command: [dispatcher, run, --once], queue: true, calls: true, drains: true, owner: true}
hyperqueue: {command: [workqueue, hyperqueue], grpc: true, http: true, calls: true}
{{- end -}}

{{/* One workload: the defaults, its program and what it says of itself. Takes root, name, program, queue, given. */}}
{{- define "workqueue.workload" -}}
{{- $programs := include "workqueue.programs" . | fromYaml -}}
{{- if not (hasKey $programs .program) }}{{ fail (printf "%s: program: %q is none of %s" .name .program (keys $programs | sortAlpha | join ", ")) }}{{ end -}}
{{- $program := get $programs .program -}}
{{- $own := omit .given "shards" "program" "queue" "name" "mode" -}}
{{- $workload := mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) -}}
{{- $_ := set $workload "name" .name -}}
{{- $_ := set $workload "object" (printf "%s-%s" (include "workqueue.fullname" .root) .name) -}}
{{- $_ := set $workload "program" (mergeOverwrite (dict "name" .program "grpc" false "http" false "queue" false "calls" false "drains" false "owner" false) $program) -}}
{{- $_ := set $workload "queue" .queue -}}
{{- $_ := set $workload "store" (default .root.Values.store .queue.store) -}}
{{- toYaml $workload -}}
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
{{- $queue := include "workqueue.queueNamed" (dict "root" $root "name" $entry.queue "of" $entry.name) | fromYaml -}}
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
{{- if $workload.program.drains -}}
{{- $called := pick $workload.settings "callback" "target" "command" -}}
{{- if ne (len $called) 1 -}}
{{- fail (printf "%s: settings.callback, settings.target or settings.command: one of them says what is called" $workload.name) -}}
{{- end -}}
{{- end -}}
{{- if and $workload.program.queue (eq $workload.store.type "sqlite") -}}
{{- if not (or (eq $workload.program.name "serve") (not $workload.program.drains)) }}{{ fail (printf "%s: a sqlite queue has one process for everything" $workload.name) }}{{ end -}}
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
