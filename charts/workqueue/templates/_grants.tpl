{{/* What a workload may do in the cluster: a list of {name, namespace, rules}; without namespace it holds in all. */}}
{{- define "workqueue.grants" -}}
{{- $root := .root -}}
{{- $workload := .workload -}}
{{- $rules := default list $workload.rules -}}
{{- $places := default list $workload.rulesIn -}}
{{- $grants := list -}}
{{- if eq $workload.program.name "watch" -}}
{{- /* The Lease by which one of its processes watches, and no other; creating one cannot be narrowed to a name. */ -}}
{{- $leases := dict "apiGroups" (list "coordination.k8s.io") "resources" (list "leases") -}}
{{- $own := mergeOverwrite (deepCopy $leases) (dict "resourceNames" (list $workload.object) "verbs" (list "get" "update")) -}}
{{- $new := mergeOverwrite (deepCopy $leases) (dict "verbs" (list "create")) -}}
{{- $grants = append $grants (dict "name" (printf "%s-lease" $workload.object) "namespace" $root.Release.Namespace "rules" (list $own $new)) -}}
{{- range $workload.watches -}}
{{- $parts := splitList "/" .kind -}}
{{- $group := ternary (first $parts) "" (eq (len $parts) 3) -}}
{{- $rules = append $rules (dict "apiGroups" (list $group) "resources" (list .resource) "verbs" (list "list" "watch")) -}}
{{- end -}}
{{- $places = default (list "*") $workload.settings.namespace -}}
{{- end -}}
{{- if $rules -}}
{{- if has "*" $places -}}
{{- $grants = append $grants (dict "name" (printf "%s-%s" $root.Release.Namespace $workload.object) "rules" $rules) -}}
{{- else -}}
{{- range default (list $root.Release.Namespace) $places -}}
{{- $grants = append $grants (dict "name" $workload.object "namespace" . "rules" $rules) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $grants -}}
{{- end -}}
