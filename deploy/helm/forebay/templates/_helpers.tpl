{{- define "forebay.name" -}}
{{- if contains "forebay" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-forebay" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "forebay.selector" -}}
app.kubernetes.io/name: forebay
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "forebay.labels" -}}
{{ include "forebay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What is mounted below /etc/forebay: a folder for each Secret. */ -}}
{{- define "forebay.secrets" -}}
server: {{ .Values.tls.server.secretName }}
client-ca: {{ .Values.tls.clientCa.secretName }}
{{- with .Values.tls.crl.secretName }}
crl: {{ . }}
{{- end }}
{{- range $folder, $secret := .Values.secrets }}
{{ $folder }}: {{ $secret }}
{{- end }}
{{- end }}

{{- /* The variables that the chart's values stand for; config adds to them. */ -}}
{{- define "forebay.variables" -}}
{{- $variables := dict
  "FOREBAY_LISTEN" (printf "0.0.0.0:%d" (int .Values.service.port))
  "FOREBAY_HTTP3" (toString .Values.service.http3)
  "FOREBAY_ADMIN_LISTEN" "0.0.0.0:9444"
  "FOREBAY_SINK" .Values.sink.type
  "FOREBAY_STREAMS" .Values.streams
  "FOREBAY_TLS_CERT" "/etc/forebay/server/tls.crt"
  "FOREBAY_TLS_KEY" "/etc/forebay/server/tls.key"
  "FOREBAY_TLS_CLIENT_CA" "/etc/forebay/client-ca/ca.crt"
  "FOREBAY_DRAIN_TIMEOUT" (printf "%ds" (int .Values.shutdown.drainSeconds))
}}
{{- if .Values.tls.crl.secretName }}{{ $_ := set $variables "FOREBAY_TLS_CRL" "/etc/forebay/crl/crl.pem" }}{{ end }}
{{- if eq .Values.sink.type "kafka" }}
{{- $_ := set $variables "FOREBAY_KAFKA_BOOTSTRAP_SERVERS" .Values.sink.kafka.bootstrapServers }}
{{- else }}
{{- $_ := set $variables "AWS_REGION" .Values.sink.kinesis.region }}
{{- end }}
{{- if .Values.spool.enabled }}
{{- $_ := set $variables "FOREBAY_SPOOL_DIR" "/data/spool" }}
{{- $_ := set $variables "FOREBAY_SPOOL_BYTES_MAX" .Values.spool.bytesMax }}
{{- $_ := set $variables "FOREBAY_SPOOL_FULL" .Values.spool.full }}
{{- end }}
{{- range $name, $value := mergeOverwrite $variables .Values.config }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- /* The pod, the same for a Deployment and a StatefulSet. */ -}}
{{- define "forebay.pod" -}}
metadata:
  labels: {{- include "forebay.labels" . | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "forebay.name" . }}
  # A Service called forebay would set variables that look like settings, and a gateway does not start with one it does not know.
  enableServiceLinks: false
  automountServiceAccountToken: false
  # preStop, the drain, three seconds for what is late, and some to spare.
  terminationGracePeriodSeconds: {{ add .Values.shutdown.preStopSeconds .Values.shutdown.drainSeconds 10 }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: { type: RuntimeDefault }
  topologySpreadConstraints:
    {{- range tuple "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $.Values.spread.whenUnsatisfiable }}
      labelSelector:
        matchLabels: {{- include "forebay.selector" $ | nindent 10 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: forebay
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env: {{- include "forebay.variables" . | trim | nindent 8 }}
      {{- if and (eq .Values.sink.type "kafka") .Values.sink.kafka.credentialsSecret }}
      envFrom:
        - secretRef: { name: {{ .Values.sink.kafka.credentialsSecret }} }
      {{- end }}
      ports:
        - { name: devices, containerPort: {{ .Values.service.port }}, protocol: TCP }
        {{- if .Values.service.http3 }}
        - { name: devices-h3, containerPort: {{ .Values.service.port }}, protocol: UDP }
        {{- end }}
        - { name: admin, containerPort: 9444, protocol: TCP }
      # A new pod is waited for until the stream, or the spool, takes readings, for a day: a rollout stops at one that never
      # does. From then on a stream that is away is no reason to send devices elsewhere, or to restart: they are told to wait.
      startupProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 43200
      readinessProbe:
        httpGet: { path: /servez, port: admin }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      livenessProbe:
        httpGet: { path: /livez, port: admin }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      {{- if .Values.shutdown.preStopSeconds }}
      lifecycle:
        preStop:
          sleep: { seconds: {{ .Values.shutdown.preStopSeconds }} }
      {{- end }}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      volumeMounts:
        {{- range $folder, $_ := include "forebay.secrets" . | fromYaml }}
        - { name: {{ $folder }}, mountPath: /etc/forebay/{{ $folder }}, readOnly: true }
        {{- end }}
        {{- if .Values.spool.enabled }}
        - { name: data, mountPath: /data }
        {{- end }}
  # Folders, not single files: only those are changed in place when the Secret is.
  volumes:
    {{- range $folder, $secret := include "forebay.secrets" . | fromYaml }}
    - { name: {{ $folder }}, secret: { secretName: {{ $secret }}, defaultMode: 0440 } }
    {{- end }}
{{- end }}
