"""Looks at the cluster and says what is wrong and how to repair it. Changes nothing; exit 1 when
something is wrong.

    make -C CA2 doctor        KUBECTL names another kubectl; needs nothing but Python

It looks at: nodes, pods (not scheduled, image, configuration, restarts, their last words), what
could not be created, Jobs, volumes (not bound, full), the topic and the group's offsets. `judge`
decides from what was read, so it can be tested without a cluster.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

NAMESPACES = ("gpu-tokens", "gpu-tokens-agents")
FULL_PERCENT = 85
_STORES = {"kafka": "/var/lib/kafka/data", "mongo": "/data/db"}
_KINDS = (
    "pods,persistentvolumeclaims,jobs,statefulsets,deployments,daemonsets,horizontalpodautoscalers,"
    "events"
)
_WORDS_LINES = 40

# What a pod's last words mean, first match wins: pattern, name of the fault, repair.
_LAST_WORDS = (
    (
        (
            r"refused the login|Authentication failed|AuthenticationFailed|SASL authentication "
            r"(error|failed)|SaslAuthentication"
        ),
        "wrong secret",
        "the passwords in components/secrets are not those of the data: put the old files back, or "
        "make -C CA2 up kafka-user "
        "(it gives MongoDB and Kafka the passwords that are there now)",
    ),
    (
        r"No space left on device|ENOSPC|disk is full|out of disk space",
        "full volume",
        "enlarge it: kubectl -n gpu-tokens edit pvc (where the storage class allows it), or "
        "shorten KAFKA_RETENTION_HOURS or "
        "RAW_RETENTION_DAYS",
    ),
    (
        r"create the topics with|UNKNOWN_TOPIC|Unknown topic",
        "missing topic",
        (
            "make -C CA2 up (its Job `topics` creates them; kubectl -n gpu-tokens logs job/topics "
            "says why it could not)"
        ),
    ),
    (
        r"OffsetsNotSeeded|no first offset",
        "group without first offsets",
        "make -C CA2 up (its Job `topics` sets them)",
    ),
    (
        r"INCONSISTENT_CLUSTER_ID|Invalid cluster\.id",
        "another cluster's volume",
        "the old secrets.env, or destroy-data",
    ),
)
# Run inside a pod that is up and not ready: it says itself what it waits for.
_ASK_READY = """
import urllib.error, urllib.request
try: urllib.request.urlopen("http://127.0.0.1:8080/ready", timeout=15)
except urllib.error.HTTPError as answer: print(answer.read().decode())
"""
_IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}


@dataclass
class Facts:
    """What was read from the cluster. `words` and `fill` by namespace/pod; None where it could not
    be read."""

    objects: list[dict[str, Any]]
    nodes: list[dict[str, Any]]
    words: dict[str, str] = field(default_factory=dict)
    fill_percent: dict[str, int | None] = field(default_factory=dict)
    topic: tuple[int, str] | None = None  # exit status and output of `gpu-tokens topics show`


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what, and how to repair it."""

    what: str
    repair: str

    def __str__(self) -> str:
        return f"WRONG {self.what} -> {self.repair}"


def judge(facts: Facts) -> list[Finding]:
    """Everything that is wrong, causes before what follows from them."""
    findings = [
        *_nodes(facts),
        *_claims(facts),
        *_volumes(facts),
        *_not_created(facts),
        *_pods(facts),
        *_jobs(facts),
    ]
    findings += [*_topic(facts), *_strength(facts)]
    return list(dict.fromkeys(findings))


def _of(facts: Facts, kind: str) -> list[dict[str, Any]]:
    return [item for item in facts.objects if item["kind"] == kind]


def _name(item: dict[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _workload(pod: dict[str, Any]) -> str:
    """The workload that a pod is of; '' for a pod that somebody made by hand."""
    return str(pod["metadata"].get("labels", {}).get("app.kubernetes.io/name", ""))


def _condition(item: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = item.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _events(facts: Facts, item: dict[str, Any]) -> list[str]:
    """The messages of the warnings about an object, newest first."""
    about = [
        event
        for event in _of(facts, "Event")
        if event.get("type") == "Warning"
        and event["involvedObject"].get("uid") == item["metadata"].get("uid")
    ]
    about.sort(
        key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", reverse=True
    )
    return [" ".join(event.get("message", "").split())[:300] for event in about]


def _nodes(facts: Facts) -> list[Finding]:
    findings = []
    for node in facts.nodes:
        name, ready = node["metadata"]["name"], _condition(node, "Ready")
        if ready.get("status") != "True":
            findings.append(
                Finding(
                    f"node {name} is not ready: {ready.get('message', 'unknown')}",
                    "bring the node back",
                )
            )
        elif node["spec"].get("unschedulable"):
            findings.append(
                Finding(
                    f"node {name} takes no pods (cordoned)",
                    f"kubectl uncordon {name}, when its repair is done",
                )
            )
        for pressure in ("DiskPressure", "MemoryPressure", "PIDPressure"):
            if _condition(node, pressure).get("status") == "True":
                findings.append(
                    Finding(
                        f"node {name}: {pressure}", "free or enlarge it: pods are being evicted"
                    )
                )
    return findings


def _claims(facts: Facts) -> list[Finding]:
    findings = []
    for claim in _of(facts, "PersistentVolumeClaim"):
        phase = claim["status"].get("phase")
        if phase == "Bound":
            continue
        why = next(iter(_events(facts, claim)), "no event says why")
        storage = (
            claim["spec"].get("storageClassName")
            or "the default storage class (is there one? kubectl get storageclass)"
        )
        repair = (
            f"a volume of {storage} with {claim['spec']['resources']['requests']['storage']} must "
            "be free where the pod may run"
        )
        findings.append(
            Finding(f"volume claim {_name(claim)} is {phase}, not bound: {why}", repair)
        )
    return findings


def _volumes(facts: Facts) -> list[Finding]:
    return [
        Finding(f"full volume: {pod} is {percent} % full", _LAST_WORDS[1][2])
        for pod, percent in facts.fill_percent.items()
        if percent is not None and percent >= FULL_PERCENT
    ]


def _not_created(facts: Facts) -> list[Finding]:
    """Pods that do not even exist: refused by Pod Security, a quota, a missing runtime class or
    service account."""
    findings = []
    for event in _of(facts, "Event"):
        about = event["involvedObject"]
        if (
            event.get("reason") == "FailedCreate"
            and about["kind"] != "Pod"
            and _still_lacks(facts, about)
        ):
            message = " ".join(event.get("message", "").split())[:300]
            findings.append(
                Finding(
                    f"{about['kind']} {about['name']} cannot make its pods: {message}",
                    _refusal(message),
                )
            )
    return findings


def _still_lacks(facts: Facts, about: dict[str, Any]) -> bool:
    """Whether the owner of an old event still has fewer pods than it wants; a ReplicaSet is judged
    by its Deployment."""
    for item in facts.objects:
        name, status = item["metadata"]["name"], item.get("status", {})
        if item["kind"] == "Deployment" and about["name"].startswith(f"{name}-"):
            return bool(status.get("unavailableReplicas", 0))
        if item["kind"] == about["kind"] and name == about["name"]:
            wanted = status.get("desiredNumberScheduled", item.get("spec", {}).get("replicas", 0))
            return bool(wanted > status.get("numberReady", status.get("readyReplicas", 0)))
    return False


def _refusal(message: str) -> str:
    if "PodSecurity" in message or "violates" in message:
        return (
            "the pod must keep to `restricted`: take the change back, or move it to a namespace of "
            "its own"
        )
    if "RuntimeClass" in message:
        return "install NVIDIA's container toolkit and its RuntimeClass `nvidia`"
    if "quota" in message:
        return "raise the namespace's quota"
    return "see the message"


def _pods(facts: Facts) -> list[Finding]:
    findings = []
    for pod in _of(facts, "Pod"):
        if pod["status"].get("phase") == "Succeeded" or "deletionTimestamp" in pod["metadata"]:
            continue
        finding = _unscheduled(pod) or _container_trouble(facts, pod)
        if finding:
            findings.append(finding)
    return findings


def _unscheduled(pod: dict[str, Any]) -> Finding | None:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    message = scheduled.get("message", "")
    if "nvidia.com/gpu" in message:
        repair = (
            "no node has a free GPU of that kind: wait, or add one; the GPUs that are there go on "
            "being counted"
        )
    elif "unbound" in message:
        repair = "see the claim above: it has no volume yet"
    elif "volume" in message.lower():
        repair = (
            "its volume lies on a node that is away or cordoned: bring that node back (kubectl get "
            "nodes)"
        )
    elif "Insufficient" in message:
        repair = "add a node, or lower `requests` in your overlay"
    else:
        repair = "see the message: taints, node selectors or the spread over nodes leave no place"
    return Finding(f"pod {_name(pod)} cannot be scheduled: {message}", repair)


def _container_trouble(facts: Facts, pod: dict[str, Any]) -> Finding | None:
    name, status = _name(pod), pod["status"]
    states = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    for state in states:
        waiting = state.get("state", {}).get("waiting", {})
        reason, message = (
            waiting.get("reason", ""),
            " ".join(waiting.get("message", "").split())[:300],
        )
        if reason in _IMAGE_REASONS:
            repair = (
                "push it to a registry that the nodes reach (images: in your overlay), or make -C "
                "CA2 image-k3s"
            )
            return Finding(
                f"pod {name}: image {state['image']} cannot be had ({reason}): {message}", repair
            )
        if reason in {"CreateContainerConfigError", "CreateContainerError"}:
            return Finding(
                f"pod {name}: {message}", "make -C CA2 up (it makes missing Secrets and ConfigMaps)"
            )
        ended = state.get("lastState", {}).get("terminated", {}) or state.get("state", {}).get(
            "terminated", {}
        )
        if ended.get("reason") == "OOMKilled" and not state.get("ready"):
            return Finding(
                f"pod {name} used more memory than its limit",
                "raise `limits.memory` in your overlay",
            )
    if status.get("phase") == "Failed":
        return Finding(
            f"pod {name} failed: {status.get('reason', '')} {status.get('message', '')}".strip(),
            "see the message",
        )
    if _condition(pod, "Ready").get("status") == "True":
        return None
    return _last_words(facts, pod)


def _last_words(facts: Facts, pod: dict[str, Any]) -> Finding | None:
    """A pod that runs, or keeps ending, without being ready: what it said last decides."""
    name, words = _name(pod), facts.words.get(_name(pod), "")
    for pattern, fault, repair in _LAST_WORDS:
        if match := re.search(pattern, words):
            line = next(line for line in words.splitlines() if match[0] in line)
            return Finding(f"{fault}: pod {name} says: {line.strip()[:300]}", repair)
    restarts = sum(
        state.get("restartCount", 0) for state in pod["status"].get("containerStatuses", [])
    )
    said = next((line for line in reversed(words.splitlines()) if line.strip()), "nothing")
    why = next(iter(_events(facts, pod)), "")
    what = (
        f"pod {name} is not ready ({restarts} restarts){f': {why}' if why else ''}; it said last: "
        f"{said.strip()[:300]}"
    )
    return Finding(
        what, f"kubectl -n {pod['metadata']['namespace']} logs {pod['metadata']['name']}"
    )


def _jobs(facts: Facts) -> list[Finding]:
    return [
        Finding(
            f"job {_name(job)} gave up: {_condition(job, 'Failed').get('message', '')}",
            (
                f"kubectl -n {job['metadata']['namespace']} logs job/{job['metadata']['name']}, "
                "then make -C CA2 up"
            ),
        )
        for job in _of(facts, "Job")
        if _condition(job, "Failed").get("status") == "True"
    ]


def _topic(facts: Facts) -> list[Finding]:
    if facts.topic is None:
        return []
    status, said = facts.topic
    _, missing, repair = _LAST_WORDS[2]
    if status and re.search(_LAST_WORDS[2][0], said):
        return [Finding(f"{missing}: {said.strip()[-300:]}", repair)]
    if status and re.search(_LAST_WORDS[0][0], said):
        return [Finding(f"{_LAST_WORDS[0][1]}: {said.strip()[-300:]}", _LAST_WORDS[0][2])]
    if status:
        return [
            Finding(
                f"Kafka does not tell about the topic: {said.strip()[-300:]}",
                "see the pods kafka-0, kafka-1, ...",
            )
        ]
    if "not seeded" in said:
        return [
            Finding("partitions of the topic have no first offset for the group", _LAST_WORDS[3][2])
        ]
    return []


def _strength(facts: Facts) -> list[Finding]:
    """Stores that run with fewer members than they should: everything works, and one more fault may
    stop it."""
    return [
        Finding(
            (
                f"{item['metadata']['name']}: {item['status'].get('readyReplicas', 0)} of "
                f"{item['spec']['replicas']} are ready"
            ),
            "see its pods above; until then do not restart the others",
        )
        for item in _of(facts, "StatefulSet")
        if item["status"].get("readyReplicas", 0) < item["spec"]["replicas"]
    ]


class Cluster:
    """kubectl, as often as needed; a call that fails gives what it said."""

    def __init__(self, kubectl: str) -> None:
        self._words = shlex.split(kubectl)

    def call(self, *arguments: str) -> tuple[int, str]:
        """Exit status and output, both streams."""
        status, output, errors = self._run(*arguments)
        return status, output + errors

    def _run(self, *arguments: str) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                [*self._words, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                errors="replace",
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 124, "", str(error)
        return done.returncode, done.stdout, done.stderr

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects of a `get`. Exits with kubectl's words when it fails."""
        # Apart: a kubectl that misses one API, such as that of metrics, says so beside its answer.
        status, output, errors = self._run("get", *arguments, "-o", "json")
        if status:
            sys.exit(f"kubectl get {' '.join(arguments)}: {(output + errors).strip()}")
        items: list[dict[str, Any]] = json.loads(output)["items"]
        return items

    def facts(self) -> Facts:
        """Everything that `judge` wants to know."""
        objects = [item for namespace in NAMESPACES for item in self.items("-n", namespace, _KINDS)]
        facts = Facts(objects, self.items("nodes"))
        for pod in _of(facts, "Pod"):
            if (
                pod["status"].get("phase") != "Succeeded"
                and _condition(pod, "Ready").get("status") != "True"
            ):
                facts.words[_name(pod)] = self._said(pod)
            elif _workload(pod) in _STORES:
                facts.fill_percent[_name(pod)] = self._fill(pod)
        facts.topic = self._topic(facts)
        return facts

    def _said(self, pod: dict[str, Any]) -> str:
        at = ("-n", pod["metadata"]["namespace"])
        name, tail = pod["metadata"]["name"], f"--tail={_WORDS_LINES}"
        words = [
            self.call(*at, "logs", name, "--all-containers", "--previous", tail),
            self.call(*at, "logs", name, "--all-containers", tail),
        ]
        if _workload(pod) in {"processor", "api"}:
            words.append(self.call(*at, "exec", name, "--", "python", "-c", _ASK_READY))
        return "\n".join(text for status, text in words if status == 0)

    def _fill(self, pod: dict[str, Any]) -> int | None:
        path = _STORES[_workload(pod)]
        status, said = self.call(
            "-n",
            pod["metadata"]["namespace"],
            "exec",
            pod["metadata"]["name"],
            "--",
            "df",
            "-P",
            path,
        )
        percent = re.search(r"(\d+)%", said)
        return int(percent[1]) if status == 0 and percent else None

    def _topic(self, facts: Facts) -> tuple[int, str] | None:
        for pod in _of(facts, "Pod"):
            if _workload(pod) in {"processor", "api"} and pod["status"].get("phase") == "Running":
                return self.call(
                    "-n",
                    "gpu-tokens",
                    "exec",
                    pod["metadata"]["name"],
                    "--",
                    "gpu-tokens",
                    "topics",
                    "show",
                )
        return None


def main() -> int:
    """Prints the findings; returns the exit status."""
    cluster = Cluster(os.environ.get("KUBECTL", "kubectl"))
    facts = cluster.facts()
    if not _of(facts, "Pod"):
        print("WRONG nothing runs here -> make -C CA2 up")
        return 1
    findings = judge(facts)
    for finding in findings:
        print(finding)
    unread = [pod for pod, percent in facts.fill_percent.items() if percent is None]
    if unread:
        print(f"note  how full these volumes are could not be read: {', '.join(unread)}")
    if facts.topic is None:
        print("note  the topic was not looked at: no processor or API runs")
    pods, nodes = len(_of(facts, "Pod")), len(facts.nodes)
    print(
        f"{len(findings)} wrong"
        if findings
        else f"nothing wrong: {nodes} nodes, {pods} pods, volumes, topic and group looked at"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
