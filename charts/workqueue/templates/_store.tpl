{{/* The environment that tells a workload its queue. What a Secret holds never shows in a command line. */}}

{{/* A number as it was written: values are floats by the time a template sees them. */}}
{{- define "workqueue.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* The query of a queue's URL, with its question mark. Takes queue and store. */}}
{{- define "workqueue.query" -}}
{{- $pairs := list -}}
{{- if ne .store.type "gcs" }}{{ $pairs = append $pairs (printf "name=%s" .queue.name) }}{{ end -}}
{{- range $name, $value := .store.options -}}
{{- $pairs = append $pairs (printf "%s=%s" $name (include "workqueue.text" $value | urlquery)) -}}
{{- end -}}
{{- with $pairs }}?{{ join "&" . }}{{ end -}}
{{- end -}}

{{- define "workqueue.queueEnv" -}}
{{- $store := .workload.store -}}
{{- $query := include "workqueue.query" (dict "queue" .workload.queue "store" $store) -}}
{{- if eq $store.type "redis" }}
{{- $redis := default dict $store.redis }}
{{- with dig "existingSecret" "name" "" $redis }}
- name: STORE_URL
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ dig "existingSecret" "key" "url" $redis }}
- name: WORKQUEUE_URL
  value: {{ printf "$(STORE_URL)%s" $query | quote }}
{{- else }}
- name: WORKQUEUE_URL
  value: {{ printf "%s%s" (required (printf "%s: store.redis: url or existingSecret.name says where Redis is" $.workload.queue.name) $redis.url) $query | quote }}
{{- end }}
{{- else if eq $store.type "gcs" }}
- name: WORKQUEUE_URL
  value: {{ printf "gs://%s%s" (required (printf "%s: store.gcs.bucket says where the queue is" .workload.queue.name) (dig "gcs" "bucket" "" $store)) $query | quote }}
{{- else }}
- name: WORKQUEUE_URL
  value: {{ printf "sqlite:////data/%s.db%s" .workload.queue.name $query | quote }}
{{- end }}
{{- end -}}

{{- define "workqueue.claim" -}}
{{- default (printf "%s-%s" (include "workqueue.fullname" .root) .workload.queue.name) (dig "sqlite" "existingClaim" "" .workload.store) -}}
{{- end -}}

{{/*
Not empty if a Pod that comes and goes can look at the store of a workload. The volume of a SQLite queue belongs to the
node of its one process, and before that has run there may be neither volume nor file: only beside it, then. Without a
cluster, as in `helm template`, nobody knows.
*/}}
{{- define "workqueue.canBeLookedAt" -}}
{{- if ne .workload.store.type "sqlite" -}}
yes
{{- else if dig "status" "availableReplicas" 0 (lookup "apps/v1" "Deployment" .root.Release.Namespace .workload.object) -}}
yes
{{- end -}}
{{- end -}}

{{/* Affinity for the node on which the Pod of a workload is. */}}
{{- define "workqueue.beside" -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "workqueue.selector" . | nindent 10 }}
{{- end -}}
