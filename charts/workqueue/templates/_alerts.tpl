{{/* The rules of files/alerts.yaml with the values' numbers in them. */}}
{{- define "workqueue.alerts" -}}
{{- $rules := .Files.Get "files/alerts.yaml" -}}
{{- range $name, $value := .Values.alerts -}}
{{- $rules = replace (printf "<%s>" $name) (include "workqueue.text" $value) $rules -}}
{{- end -}}
{{- $rules -}}
{{- end -}}
