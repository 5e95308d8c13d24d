{{/* Names and labels. */}}
{{- define "penstock.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "penstock.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "penstock.selector" . }}
{{- end -}}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "penstock.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What every pod may do: nothing but its work. The group is given to the volume once: a change of every file at
each start would let the group read the keys, and they are refused then. */}}
{{- define "penstock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What settings name as env:NAME, and the name of each member. */}}
{{- define "penstock.environment" -}}
envFrom:
  - secretRef: {name: {{ .Values.secret.name }}}
env:
  - name: PENSTOCK_MEMBER
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end -}}

{{- define "penstock.mounts" -}}
- {name: settings, mountPath: /project/penstock.toml, subPath: penstock.toml, readOnly: true}
- {name: scratch, mountPath: /tmp}
{{- range $folder, $secret := .Values.secretFiles }}
- {name: secret-{{ $folder }}, mountPath: /secrets/{{ $folder }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "penstock.volumes" -}}
- name: settings
  configMap: {name: {{ include "penstock.name" . }}}
- name: scratch
  emptyDir: {sizeLimit: 256Mi}
{{- range $folder, $secret := .Values.secretFiles }}
- name: secret-{{ $folder }}
  secret: {secretName: {{ $secret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "penstock.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
