{{/* The Job from which the driver makes the programs of the network: it sets name, args, owner and deadline. Takes the root. */}}
{{- define "dhs.programJob" -}}
{{- $values := .Values.program -}}
{{- $fullname := include "dhs.fullname" . -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $fullname }}-program
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "dhs.podLabels" (dict "root" . "component" "program") | nindent 4 }}
spec:
  backoffLimit: {{ $values.backoffLimit }}
  ttlSecondsAfterFinished: {{ int64 $values.ttlSecondsAfterFinished }}
  completions: {{ $values.nodes }}
  parallelism: {{ $values.nodes }}
  completionMode: {{ ternary "Indexed" "NonIndexed" (gt (int $values.nodes) 1) }}
  podFailurePolicy:
    {{- include "dhs.podFailurePolicy" "program" | nindent 4 }}
  {{- with include "dhs.podReplacementPolicy" . }}
  {{- . | nindent 2 }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- include "dhs.podLabels" (dict "root" . "component" "program") | nindent 8 }}
      annotations:
        karpenter.sh/do-not-disrupt: "true"
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "dhs.podSpec" (dict "root" . "values" $values "role" "program" "capacity" "any" "token" false) | nindent 6 }}
      restartPolicy: Never
      terminationGracePeriodSeconds: 100
      {{- if gt (int $values.nodes) 1 }}
      subdomain: {{ $fullname }}-trainer
      {{- end }}
      containers:
        - name: program
          {{- include "dhs.container" (dict "root" . "image" .Values.image.trainer) | nindent 10 }}
          {{- if gt (int $values.nodes) 1 }}
          command:
            - torchrun
            - --nnodes={{ $values.nodes }}
            - --nproc-per-node={{ $values.gpus }}
            - --rdzv-backend=c10d
            - --rdzv-id=$(DHS_JOB_NAME)
            - --rdzv-endpoint=$(DHS_JOB_NAME)-0.{{ $fullname }}-trainer:29400
            - --max-restarts=3
          {{- else if gt (int $values.gpus) 0 }}
          command: [torchrun, --standalone, --nproc-per-node={{ $values.gpus }}]
          {{- else }}
          command: [python]
          {{- end }}
          args: []
          env:
            {{- include "dhs.env" (dict "root" . "image" .Values.image.trainer "values" $values) | nindent 12 }}
            - name: DHS_JOB_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.labels['job-name']
            - name: DHS_POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
          resources:
            requests:
              cpu: {{ $values.resources.cpu | quote }}
              memory: {{ $values.resources.memory | quote }}
              ephemeral-storage: {{ $values.resources.ephemeralStorage | quote }}
              {{- if gt (int $values.gpus) 0 }}
              {{ $values.gpuResource }}: {{ $values.gpus | quote }}
              {{- end }}
            limits:
              memory: {{ $values.resources.memory | quote }}
              ephemeral-storage: {{ $values.resources.ephemeralStorage | quote }}
              {{- if gt (int $values.gpus) 0 }}
              {{ $values.gpuResource }}: {{ $values.gpus | quote }}
              {{- end }}
          volumeMounts:
            {{- include "dhs.scratchMounts" . | nindent 12 }}
            - name: shared-memory
              mountPath: /dev/shm
            - name: config
              mountPath: /etc/darkhaloscope/config
              readOnly: true
            {{- with .Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        {{- include "dhs.scratchVolumes" (dict "root" . "tmp" $values.scratchSpace) | nindent 8 }}
        - name: shared-memory
          emptyDir:
            medium: Memory
            sizeLimit: {{ $values.sharedMemory }}
        - name: config
          configMap:
            name: {{ $fullname }}-config
        {{- with .Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}
