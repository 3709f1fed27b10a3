"""The fields of the objects in `kubernetes/`, and a check that knows no others.

Those of KubeRay are from the reference of its release 1.7.0, those of Kubernetes from its API 1.28: names and types,
for the parts that a file of ours may use. A `!` marks what must be there; types are of JSON, `str`, `int`, `bool`,
`quantity`, `[T]` a list, `{T}` a map, or the name of a table.
"""

from __future__ import annotations

import re
from typing import Any

QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
SCALARS = {"str": str, "int": int, "bool": bool}
ENUMS = {
    "AuthMode": ("disabled", "token"),
    "UpscalingMode": ("Default", "Aggressive", "Conservative"),
    "AutoscalerVersion": ("v1", "v2"),
    "SubmissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "ServiceType": ("ClusterIP", "NodePort", "LoadBalancer"),
    "RestartPolicy": ("Always", "OnFailure", "Never"),
    "Protocol": ("TCP", "UDP", "SCTP"),
    "ConcurrencyPolicy": ("Allow", "Forbid", "Replace"),
    "PullPolicy": ("Always", "IfNotPresent", "Never"),
    "FailureAction": ("FailJob", "FailIndex", "Ignore", "Count"),
    "ExitOperator": ("In", "NotIn"),
    "Effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "TolerationOperator": ("Exists", "Equal"),
    "PolicyType": ("Ingress", "Egress"),
}


def _table(fields: str) -> dict[str, str]:
    return dict(field.split(":", 1) for field in fields.split())


TABLES = {
    "RayCluster": _table("apiVersion!:str kind!:str metadata!:Meta spec!:RayClusterSpec"),
    "RayJob": _table("apiVersion!:str kind!:str metadata!:Meta spec!:RayJobSpec"),
    "RayCronJob": _table("apiVersion!:str kind!:str metadata!:Meta spec!:RayCronJobSpec"),
    "CronJob": _table("apiVersion!:str kind!:str metadata!:Meta spec!:CronJobSpec"),
    "ConfigMap": _table("apiVersion!:str kind!:str metadata!:Meta data:{str} immutable:bool"),
    "ServiceAccount": _table("apiVersion!:str kind!:str metadata!:Meta automountServiceAccountToken:bool"),
    "NetworkPolicy": _table("apiVersion!:str kind!:str metadata!:Meta spec!:NetworkPolicySpec"),
    "Meta": _table("name:str namespace:str labels:{str} annotations:{str}"),
    "RayClusterSpec": _table(
        "rayVersion:str authOptions:AuthOptions suspend:bool managedBy:str autoscalerOptions:AutoscalerOptions "
        "headServiceAnnotations:{str} enableInTreeAutoscaling:bool headGroupSpec!:HeadGroupSpec "
        "workerGroupSpecs:[WorkerGroupSpec]"
    ),
    "AuthOptions": _table("mode:AuthMode secretName:str enableK8sTokenAuth:bool"),
    "AutoscalerOptions": _table(
        "resources:Resources image:str imagePullPolicy:PullPolicy securityContext:ContainerSecurity "
        "idleTimeoutSeconds:int upscalingMode:UpscalingMode version:AutoscalerVersion env:[EnvVar] "
        "volumeMounts:[VolumeMount] command:[str] args:[str]"
    ),
    "HeadGroupSpec": _table(
        "template!:PodTemplate enableIngress:bool resources:{str} labels:{str} rayStartParams:{str} "
        "serviceType:ServiceType"
    ),
    "WorkerGroupSpec": _table(
        "suspend:bool groupName!:str replicas:int minReplicas!:int maxReplicas!:int idleTimeoutSeconds:int "
        "priority:int resources:{str} labels:{str} rayStartParams:{str} template!:PodTemplate numOfHosts:int"
    ),
    "RayJobSpec": _table(
        "activeDeadlineSeconds:int backoffLimit:int rayClusterSpec:RayClusterSpec submitterPodTemplate:PodTemplate "
        "metadata:{str} clusterSelector:{str} submitterConfig:SubmitterConfig managedBy:str entrypoint:str "
        "runtimeEnvYAML:str jobId:str submissionMode:SubmissionMode entrypointResources:str "
        "ttlSecondsAfterFinished:int preRunningDeadlineSeconds:int shutdownAfterJobFinishes:bool suspend:bool"
    ),
    "SubmitterConfig": _table("backoffLimit:int"),
    "RayCronJobSpec": _table("jobTemplate!:RayJobSpec schedule!:str timeZone:str suspend:bool"),
    "CronJobSpec": _table(
        "schedule!:str timeZone:str concurrencyPolicy:ConcurrencyPolicy startingDeadlineSeconds:int suspend:bool "
        "successfulJobsHistoryLimit:int failedJobsHistoryLimit:int jobTemplate!:JobTemplate"
    ),
    "JobTemplate": _table("metadata:Meta spec!:JobSpec"),
    "JobSpec": _table(
        "backoffLimit:int activeDeadlineSeconds:int ttlSecondsAfterFinished:int completions:int parallelism:int "
        "suspend:bool podFailurePolicy:PodFailurePolicy template!:PodTemplate"
    ),
    "PodFailurePolicy": _table("rules!:[PodFailureRule]"),
    "PodFailureRule": _table("action!:FailureAction onExitCodes:OnExitCodes onPodConditions:[PodCondition]"),
    "OnExitCodes": _table("containerName:str operator!:ExitOperator values!:[int]"),
    "PodCondition": _table("type!:str status:str"),
    "PodTemplate": _table("metadata:Meta spec!:PodSpec"),
    "PodSpec": _table(
        "containers!:[Container] initContainers:[Container] volumes:[Volume] restartPolicy:RestartPolicy "
        "serviceAccountName:str automountServiceAccountToken:bool nodeSelector:{str} tolerations:[Toleration] "
        "securityContext:PodSecurity imagePullSecrets:[Named] priorityClassName:str "
        "terminationGracePeriodSeconds:int activeDeadlineSeconds:int"
    ),
    "Container": _table(
        "name!:str image!:str imagePullPolicy:PullPolicy command:[str] args:[str] workingDir:str env:[EnvVar] "
        "ports:[Port] resources!:Resources volumeMounts:[VolumeMount] securityContext:ContainerSecurity"
    ),
    "EnvVar": _table("name!:str value:str valueFrom:EnvSource"),
    "EnvSource": _table("secretKeyRef:KeyRef configMapKeyRef:KeyRef"),
    "KeyRef": _table("name!:str key!:str optional:bool"),
    "Port": _table("containerPort!:int name:str protocol:Protocol"),
    "Resources": _table("requests!:{quantity} limits!:{quantity}"),
    "VolumeMount": _table("name!:str mountPath!:str readOnly:bool subPath:str"),
    "Volume": _table("name!:str emptyDir:EmptyDir configMap:ConfigMapVolume hostPath:HostPath"),
    "EmptyDir": _table("medium:str sizeLimit:quantity"),
    "ConfigMapVolume": _table("name!:str optional:bool defaultMode:int"),
    "HostPath": _table("path!:str type:str"),
    "Toleration": _table("key:str operator:TolerationOperator value:str effect:Effect tolerationSeconds:int"),
    "PodSecurity": _table("runAsNonRoot:bool runAsUser:int runAsGroup:int fsGroup:int"),
    "ContainerSecurity": _table(
        "allowPrivilegeEscalation:bool capabilities:Capabilities privileged:bool readOnlyRootFilesystem:bool "
        "runAsNonRoot:bool runAsUser:int runAsGroup:int"
    ),
    "Capabilities": _table("add:[str] drop:[str]"),
    "Named": _table("name!:str"),
    "NetworkPolicySpec": _table(
        "podSelector!:Selector policyTypes:[PolicyType] ingress:[IngressRule] egress:[EgressRule]"
    ),
    "Selector": _table("matchLabels:{str}"),
    "IngressRule": _table("from:[Peer] ports:[PolicyPort]"),
    "EgressRule": _table("to:[Peer] ports:[PolicyPort]"),
    "Peer": _table("podSelector:Selector namespaceSelector:Selector"),
    "PolicyPort": _table("protocol:Protocol port:int endPort:int"),
}


def problems(value: Any, kind: str, where: str = "") -> list[str]:
    """What is wrong with a value: unknown and missing fields and wrong types, each with its place."""
    if kind in SCALARS:
        return [] if type(value) is SCALARS[kind] else [f"{where}: {value!r} is no {kind}"]
    if kind == "quantity":
        good = isinstance(value, str) and QUANTITY.fullmatch(value)
        return [] if good else [f"{where}: {value!r} is no quantity"]
    if kind in ENUMS:
        return [] if value in ENUMS[kind] else [f"{where}: {value!r} is none of {ENUMS[kind]}"]
    if kind.startswith("["):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [
            found for number, item in enumerate(value) for found in problems(item, kind[1:-1], f"{where}[{number}]")
        ]
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    if kind.startswith("{"):
        return [found for key, item in value.items() for found in problems(item, kind[1:-1], f"{where}.{key}")]
    types = {name.rstrip("!"): type_ for name, type_ in TABLES[kind].items()}
    missing = {name[:-1] for name in TABLES[kind] if name.endswith("!")} - set(value)
    found = [f"{where}.{name}: {kind} has no such field" for name in value if name not in types]
    found += [f"{where}: {name} is missing" for name in sorted(missing)]
    for name, item in value.items():
        if name in types:
            found += problems(item, types[name], f"{where}.{name}")
    return found
