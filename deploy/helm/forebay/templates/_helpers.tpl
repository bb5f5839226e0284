{{- define "forebay.name" -}}
{{- if contains "forebay" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-forebay" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "forebay.selector" -}}
app.kubernetes.io/name: forebay
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "forebay.labels" -}}
{{- with .Values.commonLabels }}
{{- toYaml . }}
{{ end }}
{{- include "forebay.selector" . }}
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

{{- /* Further labels of one object: (list $ .Values.podLabels). */ -}}
{{- define "forebay.labelsAnd" -}}
{{- mergeOverwrite (include "forebay.labels" (first .) | fromYaml) (last .) | toYaml }}
{{- end }}

{{- /* A quantity of memory, of Kubernetes or of Forebay (512Mi, 512MiB), in MiB, rounded down; one of CPU in cores, rounded up. */ -}}
{{- define "forebay.mebibytes" -}}
{{- $text := kindIs "float64" . | ternary (printf "%.0f" .) . | toString }}
{{- $number := regexFind "^[0-9.]+" $text }}
{{- $bytes := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $unit := trimPrefix $number $text | trimSuffix "B" }}
{{- if not (and $number (hasKey $bytes $unit)) }}{{ fail (printf "%q is not understood as memory; write it like 512Mi" $text) }}{{ end }}
{{- divf (mulf (float64 $number) (get $bytes $unit)) 1048576 | floor | int }}
{{- end }}

{{- define "forebay.cores" -}}
{{- $text := toString . }}
{{- if hasSuffix "m" $text }}{{ divf (float64 (trimSuffix "m" $text)) 1000 | ceil | int }}{{ else }}{{ ceil (float64 $text) | int }}{{ end }}
{{- end }}

{{- /* How many threads serve devices, as far as it is known here; else 0. */ -}}
{{- define "forebay.workers" -}}
{{- $cpu := (.Values.resources.requests).cpu | default (.Values.resources.limits).cpu }}
{{- if .Values.workers }}{{ .Values.workers }}
{{- else if $cpu }}{{ include "forebay.cores" $cpu }}
{{- else if (.Values.resources.limits).memory }}
{{- fail "resources: give requests.cpu, or set workers: with neither a worker for each of the node's cores takes 7 MiB of limits.memory" }}
{{- else }}0{{ end }}
{{- end }}

{{- /* What the memory limit holds: values.yaml says how it is reckoned. */ -}}
{{- define "forebay.connectionsMax" -}}
{{- if .Values.connectionsMax }}{{ .Values.connectionsMax }}
{{- else if (.Values.resources.limits).memory }}
{{- $limit := include "forebay.mebibytes" .Values.resources.limits.memory | int }}
{{- $readings := div $limit 4 }}
{{- with .Values.config.FOREBAY_MEMORY_MAX }}{{ $readings = include "forebay.mebibytes" . | int }}{{ end }}
{{- $left := sub $limit (add $readings 100 (mul 7 (include "forebay.workers" . | int))) | int }}
{{- if lt $left 16 }}{{ fail (printf "resources.limits.memory: %d MiB leave no room for connections beside %s workers; give more" $limit (include "forebay.workers" .)) }}{{ end }}
{{- if .Values.service.http3 }}{{ mul $left 16 }}{{ else }}{{ min (mul $left 64) 40000 }}{{ end }}
{{- end }}
{{- end }}

{{- /* The variables that the chart's values stand for; config adds to them. */ -}}
{{- define "forebay.variables" -}}
{{- $address := ternary "[::]" .Values.listenAddress (eq .Values.listenAddress "::") }}
{{- $variables := dict
  "FOREBAY_LISTEN" (printf "%s:%d" $address (int .Values.service.port))
  "FOREBAY_HTTP3" (toString .Values.service.http3)
  "FOREBAY_ADMIN_LISTEN" (printf "%s:9444" $address)
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
{{- with include "forebay.connectionsMax" . }}{{ $_ := set $variables "FOREBAY_CONNECTIONS_MAX" . }}{{ end }}
{{- if .Values.workers }}{{ $_ := set $variables "FOREBAY_WORKERS" (toString .Values.workers) }}{{ end }}
{{- range $name, $value := mergeOverwrite $variables .Values.config }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if and (not .Values.workers) (ne (include "forebay.workers" .) "0") }}
# Where there is a limit alone, Kubernetes makes it the request.
- name: FOREBAY_WORKERS
  valueFrom: { resourceFieldRef: { containerName: forebay, resource: requests.cpu, divisor: "1" } }
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The pod, the same for a Deployment and a StatefulSet. */ -}}
{{- define "forebay.pod" -}}
metadata:
  labels: {{- include "forebay.labelsAnd" (list . .Values.podLabels) | nindent 4 }}
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
  securityContext: {{- toYaml .Values.podSecurityContext | nindent 4 }}
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
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: forebay
      {{- with .Values.image }}
      image: "{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}"
      {{- end }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env: {{- include "forebay.variables" . | trim | nindent 8 }}
      {{- $credentials := and (eq .Values.sink.type "kafka") .Values.sink.kafka.credentialsSecret }}
      {{- if or $credentials .Values.envFrom }}
      envFrom:
        {{- with $credentials }}
        - secretRef: { name: {{ . }} }
        {{- end }}
        {{- with .Values.envFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
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
      securityContext: {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        {{- range $folder, $_ := include "forebay.secrets" . | fromYaml }}
        - { name: {{ $folder }}, mountPath: /etc/forebay/{{ $folder }}, readOnly: true }
        {{- end }}
        {{- if .Values.spool.enabled }}
        - { name: data, mountPath: /data }
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  # Folders, not single files: only those are changed in place when the Secret is.
  volumes:
    {{- range $folder, $secret := include "forebay.secrets" . | fromYaml }}
    - { name: {{ $folder }}, secret: { secretName: {{ $secret }}, defaultMode: 0440 } }
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
