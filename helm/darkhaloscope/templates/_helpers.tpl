{{/* Name of every object of the release. */}}
{{- define "dhs.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name -}}
{{- end }}

{{/* The run configuration as JSON, whether it came as a text or as a mapping. */}}
{{- define "dhs.config" -}}
{{- if not .Values.config }}
{{- fail "config is empty: give the run configuration with --set-file config=FILE" }}
{{- end }}
{{- $config := .Values.config }}
{{- if kindIs "string" $config }}
{{- $config = fromYaml $config }}
{{- if $config.Error }}
{{- fail (printf "config is not a YAML mapping: %s" $config.Error) }}
{{- end }}
{{- end }}
{{- range list "run" "cluster" }}
{{- if not (kindIs "map" (get $config .)) }}
{{- fail (printf "config: expected a section %q" .) }}
{{- end }}
{{- end }}
{{- if or (not $config.run.name) (not $config.run.root) }}
{{- fail "config: run.name and run.root are needed" }}
{{- end }}
{{- toJson $config -}}
{{- end }}

{{/* run.region of the configuration; empty where nothing lies on S3. */}}
{{- define "dhs.region" -}}
{{- (include "dhs.config" . | fromJson).run.region | default "" -}}
{{- end }}

{{/* Folder of the run, also of a limited one. */}}
{{- define "dhs.runUrl" -}}
{{- $run := (include "dhs.config" . | fromJson).run -}}
{{- $limit := .Values.driver.limitShards -}}
{{- printf "%s/%s%s" (trimSuffix "/" $run.root) $run.name (ternary (printf "-limit%d" (int64 $limit)) "" (not (empty $limit))) -}}
{{- end }}

{{/* "true" unless the configuration trains nothing. */}}
{{- define "dhs.trains" -}}
{{- $training := (include "dhs.config" . | fromJson).training | default dict -}}
{{- ternary $training.enabled true (hasKey $training "enabled") -}}
{{- end }}

{{/* Memory limit of a worker as a Kubernetes quantity: GiB becomes Gi, GB becomes G. */}}
{{- define "dhs.workerMemory" -}}
{{- $cluster := (include "dhs.config" . | fromJson).cluster | default dict -}}
{{- $cluster.memory_per_worker | default "2GiB" | toString | trimSuffix "B" -}}
{{- end }}

{{/* Bytes of a Kubernetes quantity. */}}
{{- define "dhs.bytes" -}}
{{- $factors := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $suffix := regexFind "[A-Za-z]+$" (toString .) -}}
{{- mulf (trimSuffix $suffix (toString .) | float64) (get $factors $suffix | default 1 | float64) | int64 -}}
{{- end }}

{{/* Reference of an image. Takes the section of the image. */}}
{{- define "dhs.image" -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}
{{- end }}

{{/* Labels by which pods are selected. Takes root and component. */}}
{{- define "dhs.selector" -}}
app.kubernetes.io/name: darkhaloscope
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of a pod. Takes root and component. */}}
{{- define "dhs.podLabels" -}}
{{ include "dhs.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of an object of the release. Takes root and component. */}}
{{- define "dhs.labels" -}}
{{ include "dhs.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Name of a service account. Takes root and role. */}}
{{- define "dhs.account" -}}
{{- (get .root.Values.serviceAccounts .role).name | default (printf "%s-%s" (include "dhs.fullname" .root) .role) -}}
{{- end }}
