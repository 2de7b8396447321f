"""values.schema.json of the chart: every value has a type, and a name that the chart does not know is refused."""

from __future__ import annotations

from typing import Any

from charts.settings import PROGRAMS, settings_of, shared_settings

__all__ = ["schema"]

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
SWITCH: Schema = {"type": "boolean"}
MAP: Schema = {"type": "object"}
LIST: Schema = {"type": "array"}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w|y))+$"}
NAME: Schema = {"type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": 40}


def whole(least: int = 0) -> Schema:
    return {"type": "integer", "minimum": least}


def one_of(*words: str) -> Schema:
    return {"enum": list(words)}


def entries(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def keys(*required: str, **properties: Schema) -> Schema:
    """An object that has just these keys."""
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return found | ({"required": list(required)} if required else {})


IMAGE = keys(
    registry=TEXT,
    repository=TEXT,
    tag={"type": "string", "pattern": "^[A-Za-z0-9_.-]*$"},
    digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    pullPolicy=one_of("Always", "IfNotPresent", "Never"),
)
CLIENT = keys(caSecret=TEXT, certSecret=TEXT, tokenSecret=TEXT, tokenKey=TEXT)
STORE = keys(
    "type",
    type=one_of("redis", "gcs", "sqlite"),
    redis=keys(
        url={"type": "string", "pattern": r"^($|rediss?(\+(sentinel|cluster))?://[^?]+$)"},
        existingSecret=keys("name", name=TEXT, key=TEXT),
    ),
    gcs=keys(bucket={"type": "string", "pattern": "^[a-z0-9._/-]*$"}),
    sqlite=keys(size={"type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi|Ti)$"}, storageClass=TEXT, existingClaim=TEXT),
    options={"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
)
SCALE = {"minReplicas": whole(), "maxReplicas": whole(1)}
TLS = keys(existingSecret=TEXT, clientCA=SWITCH)

WORKLOAD: dict[str, Schema] = {
    "enabled": SWITCH,
    "replicas": whole(),
    "image": IMAGE,
    "settings": MAP,
    "extraArgs": entries(TEXT),
    "extraEnv": entries({"type": "object", "required": ["name"]}),
    "envFrom": LIST,
    "extraVolumes": entries({"type": "object", "required": ["name"]}),
    "extraVolumeMounts": entries({"type": "object", "required": ["name", "mountPath"]}),
    "extraContainers": entries({"type": "object", "required": ["name", "image"]}),
    "resources": keys(requests=MAP, limits=MAP, claims=LIST),
    "podAnnotations": LABELS,
    "podLabels": LABELS,
    "nodeSelector": LABELS,
    "tolerations": LIST,
    "affinity": MAP,
    "topologySpread": SWITCH,
    "topologySpreadConstraints": LIST,
    "priorityClassName": TEXT,
    "podSecurityContext": MAP,
    "securityContext": MAP,
    "serviceAccount": keys(name=TEXT),
    "rules": entries({"type": "object", "required": ["verbs"]}),
    "rulesIn": entries(TEXT),
    "tls": TLS,
    "tokens": keys(existingSecret=TEXT, key=TEXT),
    "client": CLIENT,
    "rounds": keys(
        schedule={"type": "string", "pattern": r"^(@[a-z]+|\S+( \S+){4})$"}, timeZone=TEXT, deadlineSeconds=whole(1)
    ),
    "service": keys(type=one_of("ClusterIP", "NodePort", "LoadBalancer"), annotations=LABELS),
    "preStopSeconds": whole(),
    "terminationGracePeriodSeconds": {"anyOf": [whole(1), {"const": ""}]},
    "probes": keys(periodSeconds=whole(1), failureThreshold=whole(1), startupSeconds=whole(1)),
    "pdb": keys(enabled=SWITCH, maxUnavailable={"type": ["integer", "string"]}),
    "hpa": keys(enabled=SWITCH, **SCALE, targetCPUUtilizationPercentage=whole(1)),
    "keda": keys(
        enabled=SWITCH,
        **SCALE,
        keysPerReplica=whole(1),
        cooldownSeconds=whole(),
        pollingSeconds=whole(1),
        scaler=TEXT,
        prometheusAddress={"type": "string", "pattern": "^https?://"},
    ),
}
"""What every workload takes."""


def workload(program: str, *required: str, **more: Schema) -> Schema:
    """A workload of one program: its settings are the program's flags."""
    settings: Schema = {"$ref": f"#/$defs/{program}"}
    return keys(*required, **(WORKLOAD | {"settings": settings} | more))


FURTHER = ("watch", "subscribe", "resync", "scaler", "console", "schedules", "relay")
WATCHED = keys(
    "kind",
    "resource",
    kind={"type": "string", "pattern": "^([a-z0-9.-]+/)?v[0-9a-z]+/[A-Z][A-Za-z0-9]*$"},
    resource={"type": "string", "pattern": "^[a-z0-9]+$"},
    mapping=TEXT,
)


def further_programs() -> Schema:
    """An entry of `workloads`: what it may hold depends on its program."""
    entry = keys(
        "name", "program", name=NAME, program=one_of(*FURTHER), queue=TEXT, store=STORE, watches=entries(WATCHED),
        **WORKLOAD,
    )  # fmt: skip
    return entry | {"allOf": [_with_program(program) for program in FURTHER]}


def _with_program(program: str) -> Schema:
    foreign = dict.fromkeys(("watches",) * (program != "watch") + ("store",) * (program != "relay"), False)
    own: Schema = {"properties": {"settings": {"$ref": f"#/$defs/{program}"}} | foreign}
    if program != "relay":
        own["required"] = ["queue"]
    chosen = {"properties": {"program": {"const": program}}, "required": ["program"]}
    return {"if": chosen, "then": own}


_ALERT_DURATIONS = (
    "keysWaitFor", "noProgressWindow", "noProgressFor", "nobodyThereWindow", "nobodyThereFor", "targetDownFor",
    "notCountedFor", "saturatedFor",
    "storeFailsWindow", "deadLettersWindow", "attemptsFailWindow", "attemptsFailFor", "retriesForEverFor",
    "leasesExpireWindow", "leasesExpireFor", "runawayCallbacksFor", "errorEventsWindow",
    "lifecycleEventsWindow", "enqueuerWindow", "enqueuerStuckWindow", "enqueuerStuckFor", "schedulesLateFor",
    "ticksMissedWindow", "messagesRefusedWindow", "relayTargetDownFor", "relayRefusesWindow",
)  # fmt: skip
ALERTS = keys(
    runbooks=TEXT,
    keysWaitSeconds={"type": "number", "exclusiveMinimum": 0},
    schedulesLateSeconds={"type": "number", "exclusiveMinimum": 0},
    storeFailsCount=whole(),
    attemptsFailShare={"type": "number", "minimum": 0, "maximum": 1},
    saturatedShare={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    retriesForEverAttempts=whole(1),
    **dict.fromkeys(_ALERT_DURATIONS, DURATION),
)


def schema() -> Schema:
    """The whole of values.schema.json."""
    queue = keys(
        "name",
        name=NAME,
        store=STORE,
        receiver=workload("receiver"),
        dispatcher=workload("dispatcher", mode=one_of("loop", "rounds")),
    )
    values = keys(
        nameOverride=TEXT,
        fullnameOverride=TEXT,
        commonLabels=LABELS,
        image=IMAGE,
        imagePullSecrets=entries(keys("name", name=TEXT)),
        serviceAccount=keys(create=SWITCH, name=TEXT, annotations=LABELS),
        store=STORE,
        queues=entries(queue),
        hyperqueues=entries(
            workload("hyperqueue", "name", "shards", name=NAME, shards=entries(TEXT) | {"minItems": 1})
        ),
        workloads=entries(further_programs()),
        defaults=keys(**(WORKLOAD | {"settings": shared_settings()})),
        crds=keys(whenMissing=one_of("fail", "skip", "render")),
        networkPolicy=keys(enabled=SWITCH, callers=LIST, scrapers=LIST, egress=LIST),
        monitoring=keys(
            serviceMonitor=keys(enabled=SWITCH, interval=DURATION, labels=LABELS, endpoint=MAP),
            rules=keys(enabled=SWITCH, labels=LABELS),
            dashboards=keys(enabled=SWITCH, labels=LABELS, annotations=LABELS),
        ),
        alerts=ALERTS,
        test=keys(enabled=SWITCH, key=TEXT, timeoutSeconds=whole(1), client=CLIENT),
        upgradeCheck=keys(enabled=SWITCH, timeoutSeconds=whole(1)),
        extraObjects=entries({"type": ["object", "string"]}),
        **{"global": MAP},
    )
    programs = {program: settings_of(program) for program in PROGRAMS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "workqueue",
        **values,
        "$defs": programs,
    }
