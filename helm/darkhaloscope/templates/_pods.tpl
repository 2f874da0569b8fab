{{/* What every pod has under spec, but for containers and volumes. Takes root, values (placement), role (account), capacity (spot, onDemand or any) and token. */}}
{{- define "dhs.podSpec" -}}
serviceAccountName: {{ include "dhs.account" . }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- $spot := .root.Values.spot }}
{{- $selector := deepCopy .values.nodeSelector }}
{{- if and $spot.enabled (ne .capacity "any") }}
{{- $_ := set $selector $spot.labelKey (ternary $spot.spotValue $spot.onDemandValue (eq .capacity "spot")) }}
{{- end }}
{{- with $selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := .values.tolerations }}
{{- if and $spot.enabled (eq .capacity "spot") }}
{{- $tolerations = concat $tolerations $spot.tolerations }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every container has. Takes root and image (section). */}}
{{- define "dhs.container" -}}
image: {{ include "dhs.image" .image | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- with .root.Values.aws.credentialsSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}

{{/* Environment of every container. Takes root, image (section) and values (placement). */}}
{{- define "dhs.env" -}}
{{- $region := include "dhs.region" .root -}}
- name: DHS_IMAGE
  value: {{ include "dhs.image" .image | quote }}
- name: DHS_NAMESPACE
  value: {{ .root.Release.Namespace | quote }}
- name: DHS_RELEASE
  value: {{ .root.Release.Name | quote }}
- name: DHS_FULLNAME
  value: {{ include "dhs.fullname" .root | quote }}
{{- if $region }}
- name: AWS_REGION
  value: {{ $region | quote }}
- name: AWS_DEFAULT_REGION
  value: {{ $region | quote }}
{{- end }}
- name: HOME
  value: /tmp/home
- name: TMPDIR
  value: /tmp
- name: MPLCONFIGDIR
  value: /tmp/home/matplotlib
- name: XDG_CACHE_HOME
  value: /tmp/home/cache
- name: NUMBA_CACHE_DIR
  value: /var/cache/numba
{{- with concat .root.Values.extraEnv .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What Dask is told in driver, scheduler and workers. Takes the root. */}}
{{- define "dhs.daskEnv" -}}
{{- $cluster := (include "dhs.config" . | fromJson).cluster | default dict -}}
- name: DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES
  value: "10"
- name: DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT
  value: {{ printf "%ds" (int64 ($cluster.no_workers_timeout_s | default 300)) | quote }}
- name: DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES
  value: '["distributed.http.scheduler.prometheus", "distributed.http.scheduler.info", "distributed.http.scheduler.json", "distributed.http.scheduler.api", "distributed.http.health", "distributed.http.proxy", "distributed.http.statics"]'
- name: DASK_DISTRIBUTED__COMM__RETRY__COUNT
  value: "3"
{{- end }}

{{/* One thread per process in numerical libraries. */}}
{{- define "dhs.threadEnv" -}}
{{- range $name := list "OMP_NUM_THREADS" "OPENBLAS_NUM_THREADS" "MKL_NUM_THREADS" "NUMBA_NUM_THREADS" }}
- name: {{ $name }}
  value: "1"
{{- end }}
{{- end }}

{{/* Resources: memory and disk are limited at what is requested. Takes cpu, memory, disk. */}}
{{- define "dhs.resources" -}}
requests:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
  ephemeral-storage: {{ .disk | quote }}
limits:
  memory: {{ .memory | quote }}
  ephemeral-storage: {{ .disk | quote }}
{{- end }}

{{/* Mounts of the writable folders. Takes the root. */}}
{{- define "dhs.scratchMounts" -}}
- name: tmp
  mountPath: /tmp
- name: home
  mountPath: /tmp/home
- name: numba-cache
  mountPath: /var/cache/numba
{{- end }}

{{/* The writable folders. Takes root and tmp (size). */}}
{{- define "dhs.scratchVolumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .tmp }}
- name: home
  emptyDir:
    sizeLimit: {{ .root.Values.scratch.home }}
- name: numba-cache
  emptyDir:
    sizeLimit: {{ .root.Values.scratch.numbaCache }}
{{- end }}

{{/* Ends a Job at once on exit codes that no second try can mend; an evicted pod does not count. Takes the container's name. */}}
{{- define "dhs.podFailurePolicy" -}}
rules:
  - action: FailJob
    onExitCodes:
      containerName: {{ . }}
      operator: In
      values: [2, 3]
    # Empty, because the API description of 1.28 calls it required and clients check against that.
    onPodConditions: []
  - action: Ignore
    onPodConditions:
      - type: DisruptionTarget
        status: "True"
{{- end }}

{{/* Kubernetes 1.28 does by default what newer ones can be told: no new pod before the old one has ended. Takes the root. */}}
{{- define "dhs.podReplacementPolicy" -}}
{{- if semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version -}}
podReplacementPolicy: Failed
{{- end -}}
{{- end }}
