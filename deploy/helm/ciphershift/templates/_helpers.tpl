{{/* The image, by digest if there is one. */}}
{{- define "ciphershift.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Name of the secret with the database's address. */}}
{{- define "ciphershift.secret" -}}
{{- if not (or .Values.database.secret .Values.database.url) -}}
{{- fail "set database.secret to the name of a secret with the key CIPHERSHIFT_DATABASE, or database.url for a trial" -}}
{{- end -}}
{{ .Values.database.secret | default "ciphershift-secrets" }}
{{- end -}}

{{/* What selects the pods of one component: a dictionary of root and component. */}}
{{- define "ciphershift.selector" -}}
app.kubernetes.io/name: ciphershift
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* A pod's security: of the pod, and of its container. */}}
{{- define "ciphershift.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10000
runAsGroup: 10000
fsGroup: 10000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}
{{- define "ciphershift.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Where variables come from that API and worker share, besides the settings: credentials of the database and of an object store. */}}
{{- define "ciphershift.secrets" -}}
- secretRef: { name: {{ include "ciphershift.secret" . }} }
{{- with .Values.storage.secret }}
- secretRef: { name: {{ . }} }
{{- end }}
{{- end -}}

{{/* Bytes of scratch space: 2 GiB, and with an object store the local copies of all evaluation keys that it may have. */}}
{{- define "ciphershift.scratchBytes" -}}
{{- if .Values.storage.url -}}
{{ add 2147483648 (.Values.settings.CIPHERSHIFT_STORAGE_BYTES | default "10737418240" | int64) }}
{{- else -}}
2147483648
{{- end -}}
{{- end -}}

{{/* Where jobs and keys are kept, and scratch space, in which an object store's local copies lie. */}}
{{- define "ciphershift.mounts" -}}
{{- if not .Values.storage.url }}
- { name: storage, mountPath: /data }
{{- end }}
- { name: scratch, mountPath: /tmp }
{{- end -}}
{{- define "ciphershift.volumes" -}}
{{- if not .Values.storage.url }}
- name: storage
  persistentVolumeClaim: { claimName: ciphershift-storage }
{{- end }}
- name: scratch
  emptyDir: { sizeLimit: "{{ include "ciphershift.scratchBytes" . }}" }
{{- end -}}
