{{- define "interdict.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "interdict.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "interdict.labels" -}}
{{ include "interdict.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* interdict.yaml: the operator's, and what the chart itself must know. */ -}}
{{- define "interdict.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "listen" (list "0.0.0.0:5300") }}
{{- $_ := set $config "state_dir" "/var/lib/interdict" }}
{{- $_ := set $config "metrics" (dict "listen" "0.0.0.0:9530") }}
{{- if .Values.documents }}
{{- $policy := deepCopy (default dict $config.policy) }}
{{- if not (hasKey $policy "documents") }}
{{- $_ := set $policy "documents" (list "shipped" "/etc/interdict/blocklists") }}
{{- end }}
{{- $_ := set $config "policy" $policy }}
{{- end }}
{{- toYaml $config }}
{{- end }}
