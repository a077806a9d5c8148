{{- define "laurel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "laurel.fullname" -}}
{{- $name := include "laurel.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "laurel.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "laurel.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* What selects the operator's pod. It cannot change between releases: a Deployment's selector is immutable. */}}
{{- define "laurel.selectorLabels" -}}
app.kubernetes.io/name: {{ include "laurel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "laurel.labels" -}}
{{ include "laurel.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "laurel.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Whether the endpoint for webhooks has a certificate of its own. */}}
{{- define "laurel.webhookTls" -}}
{{- and .Values.webhook.enabled (eq .Values.webhook.scheme "https") -}}
{{- end -}}

{{/* The newest version in which the cluster serves MutatingAdmissionPolicy; v1 where it is asked for all the same. */}}
{{- define "laurel.policyVersion" -}}
{{- $group := "admissionregistration.k8s.io" -}}
{{- if .Capabilities.APIVersions.Has (printf "%s/v1/MutatingAdmissionPolicy" $group) -}}
{{- printf "%s/v1" $group -}}
{{- else if .Capabilities.APIVersions.Has (printf "%s/v1beta1/MutatingAdmissionPolicy" $group) -}}
{{- printf "%s/v1beta1" $group -}}
{{- else if eq .Values.changedBy.stamp "Always" -}}
{{- printf "%s/v1" $group -}}
{{- end -}}
{{- end -}}

{{/* The policy is an object of the whole cluster: those of two releases for a namespace each have names of their own. */}}
{{- define "laurel.policyName" -}}
{{- include "laurel.fullname" . }}{{ if eq .Values.scope "namespace" }}-{{ .Release.Namespace }}{{ end }}-changed-by
{{- end -}}

{{/* Whether the API server is to stamp who decided about a version. The policy is an object of the whole cluster, so `Auto` brings
     none to an installation that keeps to its namespace. */}}
{{- define "laurel.stampsChangedBy" -}}
{{- if or (eq .Values.changedBy.stamp "Always") (and (eq .Values.changedBy.stamp "Auto") (eq .Values.scope "cluster") (include "laurel.policyVersion" .)) -}}
true
{{- end -}}
{{- end -}}

{{/* Two operators with overlapping scopes would undo each other's work. Where the cluster can be asked, the install ends here.
     A release for one namespace does not ask: who installs it may list nothing outside of that. */}}
{{- define "laurel.refuseOverlap" -}}
{{- if eq .Values.scope "cluster" -}}
{{- range $lease := (lookup "coordination.k8s.io/v1" "Lease" "" "").items -}}
{{- $theirs := get ($lease.metadata.annotations | default dict) "laurel.dev/scope" -}}
{{- $runs := and (eq $lease.metadata.name "laurel") (ne $lease.metadata.namespace $.Release.Namespace) (($lease.spec).holderIdentity) -}}
{{- if and $runs $theirs -}}
{{- printf "scope: another Laurel, with scope %s, runs in namespace %q: its Lease \"laurel\" is held by %q. Both would act on the same objects. Upgrade that release or uninstall it, or, if it is gone, delete the Lease: kubectl -n %s delete lease laurel" $theirs $lease.metadata.namespace $lease.spec.holderIdentity $lease.metadata.namespace | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* An operator of a release without the Lease acts beside a new one for as long as it runs. */}}
{{- define "laurel.refuseBesideOne" -}}
{{- $name := include "laurel.fullname" . -}}
{{- $before := lookup "apps/v1" "Deployment" .Release.Namespace $name -}}
{{- if and $before (gt (int ($before.spec).replicas) 0) (gt (int .Values.replicas) 0) -}}
{{- $names := list -}}
{{- range (first $before.spec.template.spec.containers).env -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- if not (has "LAUREL_LEASE_NAMESPACE" $names) -}}
{{- printf "replicas: the Laurel that runs as Deployment %q is of a release without the Lease, and would act beside the new one. Upgrade in two steps: first with --set replicas=0, which ends it while serving goes on, then without." $name | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
