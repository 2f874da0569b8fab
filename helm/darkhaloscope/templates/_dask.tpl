{{/* Pod spec of the scheduler. Takes the root. */}}
{{- define "dhs.schedulerPodSpec" -}}
{{- $values := .Values.scheduler -}}
{{ include "dhs.podSpec" (dict "root" . "values" $values "role" "worker" "capacity" "onDemand" "token" false) }}
terminationGracePeriodSeconds: 30
containers:
  - name: scheduler
    {{- include "dhs.container" (dict "root" . "image" .Values.image.worker) | nindent 4 }}
    args: [dask, scheduler, --host, 0.0.0.0, --port, "8786", --dashboard-address, ":8787"]
    env:
      {{- include "dhs.env" (dict "root" . "image" .Values.image.worker "values" $values) | nindent 6 }}
      {{- include "dhs.daskEnv" . | nindent 6 }}
      - name: DASK_TEMPORARY_DIRECTORY
        value: /tmp/dask
    ports:
      - name: tcp-comm
        containerPort: 8786
        protocol: TCP
      - name: http-dashboard
        containerPort: 8787
        protocol: TCP
    readinessProbe:
      httpGet:
        path: /health
        port: http-dashboard
      initialDelaySeconds: 2
      periodSeconds: 5
      timeoutSeconds: 5
    livenessProbe:
      httpGet:
        path: /health
        port: http-dashboard
      initialDelaySeconds: 30
      periodSeconds: 20
      timeoutSeconds: 10
      failureThreshold: 6
    resources:
      {{- include "dhs.resources" (dict "cpu" $values.resources.cpu "memory" $values.resources.memory "disk" $values.resources.ephemeralStorage) | nindent 6 }}
    volumeMounts:
      {{- include "dhs.scratchMounts" . | nindent 6 }}
volumes:
  {{- include "dhs.scratchVolumes" (dict "root" . "tmp" .Values.scratch.tmp) | nindent 2 }}
{{- end }}

{{/* Pod spec of a worker. Takes root and env, which the operator adds by itself where it makes the workers. */}}
{{- define "dhs.workerPodSpec" -}}
{{- $root := .root -}}
{{- $values := $root.Values.worker -}}
{{- $memory := include "dhs.workerMemory" $root -}}
{{ include "dhs.podSpec" (dict "root" $root "values" $values "role" "worker" "capacity" "spot" "token" false) }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- if $values.spreadZones }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "dhs.selector" (dict "root" $root "component" "worker") | nindent 8 }}
{{- end }}
containers:
  - name: worker
    {{- include "dhs.container" (dict "root" $root "image" $root.Values.image.worker) | nindent 4 }}
    args: [dhs, worker]
    env:
      {{- include "dhs.env" (dict "root" $root "image" $root.Values.image.worker "values" $values) | nindent 6 }}
      {{- include "dhs.daskEnv" $root | nindent 6 }}
      {{- include "dhs.threadEnv" $root | trim | nindent 6 }}
      - name: DHS_WORKER_MEMORY_LIMIT
        value: {{ $memory | quote }}
      - name: DHS_WORKER_THREADS
        value: "1"
      - name: DHS_WORKER_SPACE
        value: {{ $values.spillSpace | quote }}
      - name: DASK_TEMPORARY_DIRECTORY
        value: /var/dask
      {{- with .env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    resources:
      {{- include "dhs.resources" (dict "cpu" $values.cpu "memory" $memory "disk" $values.ephemeralStorage) | nindent 6 }}
    volumeMounts:
      {{- include "dhs.scratchMounts" $root | nindent 6 }}
      - name: dask-space
        mountPath: /var/dask
      {{- with $root.Values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  {{- include "dhs.scratchVolumes" (dict "root" $root "tmp" $root.Values.scratch.tmp) | nindent 2 }}
  - name: dask-space
    emptyDir:
      sizeLimit: {{ $values.spillSpace }}
  {{- with $root.Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Annotations of the scheduler's pod: it is the one thing that cannot be replaced during a run. Takes the root. */}}
{{- define "dhs.schedulerAnnotations" -}}
karpenter.sh/do-not-disrupt: "true"
{{- if .Values.prometheus.enabled }}
prometheus.io/scrape: "true"
prometheus.io/port: "8787"
prometheus.io/path: /metrics
{{- end }}
{{- with .Values.scheduler.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Ports of the scheduler's Service. */}}
{{- define "dhs.schedulerPorts" -}}
- name: tcp-comm
  port: 8786
  targetPort: tcp-comm
  protocol: TCP
- name: http-dashboard
  port: 8787
  targetPort: http-dashboard
  protocol: TCP
{{- end }}

{{/* The DaskCluster that the driver creates, without workers. Takes the root. */}}
{{- define "dhs.daskCluster" -}}
{{- $fullname := include "dhs.fullname" . -}}
apiVersion: kubernetes.dask.org/v1
kind: DaskCluster
metadata:
  name: {{ $fullname }}
  namespace: {{ .Release.Namespace }}
  labels:
    app.kubernetes.io/name: darkhaloscope
    app.kubernetes.io/instance: {{ .Release.Name }}
    app.kubernetes.io/managed-by: {{ .Release.Service }}
spec:
  idleTimeout: 0
  scheduler:
    metadata:
      labels:
        {{- include "dhs.podLabels" (dict "root" . "component" "scheduler") | nindent 8 }}
      annotations:
        {{- include "dhs.schedulerAnnotations" . | nindent 8 }}
    spec:
      {{- include "dhs.schedulerPodSpec" . | nindent 6 }}
    service:
      type: ClusterIP
      selector:
        dask.org/cluster-name: {{ $fullname }}
        dask.org/component: scheduler
      ports:
        {{- include "dhs.schedulerPorts" . | nindent 8 }}
  worker:
    replicas: 0
    metadata:
      labels:
        {{- include "dhs.podLabels" (dict "root" . "component" "worker") | nindent 8 }}
      {{- with .Values.worker.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "dhs.workerPodSpec" (dict "root" .) | nindent 6 }}
{{- end }}
