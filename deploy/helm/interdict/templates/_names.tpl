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

{{- /* The ports of each transport of encrypted DNS, as a list of {name, port, protocol}; empty where there is none. */ -}}
{{- define "interdict.encrypted" -}}
{{- $ports := dict
  "dot" (dict "name" "dot" "port" 853 "protocol" "TCP")
  "doh" (dict "name" "doh" "port" 443 "protocol" "TCP")
  "doq" (dict "name" "doq" "port" 853 "protocol" "UDP")
  "doh3" (dict "name" "doh3" "port" 443 "protocol" "UDP") }}
{{- $spoken := list }}
{{- if .Values.encrypted.secretName }}
{{- range .Values.encrypted.transports }}{{ $spoken = append $spoken (get $ports .) }}{{ end }}
{{- end }}
{{- toYaml $spoken }}
{{- end }}

{{- /* interdict.yaml: the operator's, and what the chart itself must know. */ -}}
{{- define "interdict.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "listen" (list "0.0.0.0:5300") }}
{{- $_ := set $config "state_dir" "/var/lib/interdict" }}
{{- $_ := set $config "metrics" (dict "listen" "0.0.0.0:9530") }}
{{- if .Values.encrypted.secretName }}
{{- $encrypted := deepCopy (default dict $config.encrypted) }}
{{- $_ := set $encrypted "certificate" "/etc/interdict/tls/tls.crt" }}
{{- $_ := set $encrypted "key" "/etc/interdict/tls/tls.key" }}
{{- range include "interdict.encrypted" . | fromYamlArray }}
{{- $_ := set $encrypted .name (list (printf "0.0.0.0:%d" (int .port))) }}
{{- end }}
{{- if .Values.encrypted.clientAuthorities }}
{{- $_ := set $encrypted "client_authorities" "/etc/interdict/authorities/ca.crt" }}
{{- end }}
{{- $_ := set $config "encrypted" $encrypted }}
{{- end }}
{{- if .Values.documents }}
{{- $policy := deepCopy (default dict $config.policy) }}
{{- if not (hasKey $policy "documents") }}
{{- $_ := set $policy "documents" (list "shipped" "/etc/interdict/blocklists") }}
{{- end }}
{{- $_ := set $config "policy" $policy }}
{{- end }}
{{- toYaml $config }}
{{- end }}
