"""CA2's doctor names each fault and its repair, says nothing of a cluster that is well, and reads
one through kubectl."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deploy.flows import ROOT

_PATH = ROOT / "CA2/doctor.py"
_SPEC = importlib.util.spec_from_file_location("ca2_doctor", _PATH)
assert _SPEC
assert _SPEC.loader
doctor: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["ca2_doctor"] = doctor  # dataclasses look their module up there
_SPEC.loader.exec_module(doctor)

Item = dict[str, Any]
READY = {
    "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
    "phase": "Running",
}


def pod(name: str, status: Item, app: str = "processor") -> Item:
    labels = {"app.kubernetes.io/name": app}
    return {
        "kind": "Pod",
        "metadata": {"namespace": "gpu-tokens", "name": name, "labels": labels, "uid": name},
        "status": status,
    }


def node(**spec: Any) -> Item:
    return {
        "metadata": {"name": "n1"},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def waiting(reason: str, message: str = "") -> Item:
    state = {
        "image": "gpu-token-analytics:9",
        "state": {"waiting": {"reason": reason, "message": message}},
    }
    return {
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [state],
    }


CRASHING = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "False"}],
    "containerStatuses": [
        {"image": "x", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    ],
}
PENDING_CLAIM = {
    "kind": "PersistentVolumeClaim",
    "metadata": {"namespace": "gpu-tokens", "name": "data-kafka-0", "uid": "c"},
    "spec": {"resources": {"requests": {"storage": "100Gi"}}},
    "status": {"phase": "Pending"},
}
CLAIM_EVENT = {
    "kind": "Event",
    "type": "Warning",
    "reason": "ProvisioningFailed",
    "message": "no volume plugin matched",
    "involvedObject": {"kind": "PersistentVolumeClaim", "name": "data-kafka-0", "uid": "c"},
}


def unscheduled(message: str) -> Item:
    return {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": message}],
    }


def said(words: str) -> Any:
    return doctor.Facts([pod("p", CRASHING)], [node()], words={"gpu-tokens/p": words})


def of(*objects: Item) -> Any:
    return doctor.Facts(list(objects), [node()])


CASES = {
    "wrong MongoDB password": (
        said(
            "gpu-tokens: MongoDB at mongo-0 refused the login: check user, password and authSource "
            "in MONGODB_URI"
        ),
        "wrong secret",
        "kafka-user",
    ),
    "wrong Kafka password": (
        said(
            "Kafka at kafka:9092 does not answer: SASL authentication error: Authentication failed "
            "during authentication"
        ),
        "wrong secret",
        "old files back",
    ),
    "keyfile of another database": (
        said('{"msg":"SCRAM","error":"AuthenticationFailed: key"}'),
        "wrong secret",
        "old files back",
    ),
    "missing topic": (
        said(
            "gpu-tokens: Kafka cannot find topic tokens; create the topics with `gpu-tokens topics "
            "create`"
        ),
        "missing topic",
        "make -C CA2 up",
    ),
    "volume full, server dead": (
        said("java.io.IOException: No space left on device"),
        "full volume",
        "edit pvc",
    ),
    "another cluster's volume": (
        said("Invalid cluster.id in: /var/lib/kafka/data/log/meta.properties"),
        "another cluster",
        "secrets.env",
    ),
    "unknown words": (
        said("Traceback\nValueError: what"),
        "it said last: ValueError: what",
        "kubectl -n gpu-tokens logs p",
    ),
    "volume nearly full": (
        doctor.Facts(
            [pod("kafka-0", READY, "kafka")], [node()], fill_percent={"gpu-tokens/kafka-0": 91}
        ),
        "gpu-tokens/kafka-0 is 91 % full",
        "edit pvc",
    ),
    "topic asked and missing": (
        doctor.Facts(
            [pod("p", READY)],
            [node()],
            topic=(1, "cannot find topic tokens; create the topics with ..."),
        ),
        "missing topic",
        "make -C CA2 up",
    ),
    "offsets not seeded": (
        doctor.Facts([pod("p", READY)], [node()], topic=(0, "0 0 0 not seeded 0")),
        "no first offset",
        "make -C CA2 up",
    ),
    "image": (
        of(pod("p", waiting("ImagePullBackOff", "not found"))),
        "gpu-token-analytics:9 cannot be had",
        "image-k3s",
    ),
    "secret missing": (
        of(pod("p", waiting("CreateContainerConfigError", 'secret "x" not found'))),
        'secret "x"',
        "make -C CA2 up",
    ),
    "no room": (
        of(pod("p", unscheduled("0/3 nodes: Insufficient cpu"))),
        "cannot be scheduled",
        "lower `requests`",
    ),
    "no GPU": (
        of(pod("p", unscheduled("Insufficient nvidia.com/gpu"))),
        "cannot be scheduled",
        "free GPU",
    ),
    "its disk is elsewhere": (
        of(pod("p", unscheduled("node had volume node affinity conflict"))),
        "cannot be",
        "bring that node back",
    ),
    "its disk is not there": (
        of(pod("p", unscheduled("pod has unbound immediate PersistentVolumeClaims"))),
        "cannot",
        "see the claim",
    ),
    "claim": (
        of(PENDING_CLAIM, CLAIM_EVENT),
        "not bound: no volume plugin matched",
        "default storage class",
    ),
    "cordoned": (doctor.Facts([], [node(unschedulable=True)]), "cordoned", "uncordon n1"),
    "memory": (
        of(
            pod(
                "p",
                {
                    "phase": "Running",
                    "containerStatuses": [
                        {"image": "x", "lastState": {"terminated": {"reason": "OOMKilled"}}}
                    ],
                },
            )
        ),
        "more memory",
        "limits.memory",
    ),
    "refused by Pod Security": (
        of(
            {
                "kind": "Deployment",
                "metadata": {"namespace": "gpu-tokens", "name": "api"},
                "spec": {"replicas": 2},
                "status": {"unavailableReplicas": 1},
            },
            {
                "kind": "Event",
                "type": "Warning",
                "reason": "FailedCreate",
                "message": 'violates PodSecurity "restricted:latest"',
                "involvedObject": {"kind": "ReplicaSet", "name": "api-7d"},
            },
        ),
        "cannot make its pods",
        "restricted",
    ),
    "job": (
        of(
            {
                "kind": "Job",
                "metadata": {"namespace": "gpu-tokens", "name": "topics"},
                "status": {
                    "conditions": [{"type": "Failed", "status": "True", "message": "backoff limit"}]
                },
            }
        ),
        "job gpu-tokens/topics gave up",
        "logs job/topics",
    ),
    "a broker away": (
        of(
            {
                "kind": "StatefulSet",
                "metadata": {"namespace": "gpu-tokens", "name": "kafka"},
                "spec": {"replicas": 3},
                "status": {"readyReplicas": 2},
            }
        ),
        "2 of 3 are ready",
        "do not restart the others",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_named_with_its_repair(case: str) -> None:
    facts, what, repair = CASES[case]
    findings = doctor.judge(facts)
    assert len(findings) == 1, findings
    assert what in findings[0].what
    assert repair in findings[0].repair


def test_a_cluster_that_is_well_has_no_findings() -> None:
    old_trouble = {
        **CLAIM_EVENT,
        "reason": "FailedCreate",
        "involvedObject": {"kind": "ReplicaSet", "name": "api-7d"},
    }
    deployment = {
        "kind": "Deployment",
        "metadata": {"namespace": "gpu-tokens", "name": "api"},
        "spec": {},
        "status": {},
    }
    done = pod(
        "topics",
        {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]},
        "topics",
    )
    bound = {**PENDING_CLAIM, "status": {"phase": "Bound"}}
    facts = of(pod("p", READY), done, bound, deployment, old_trouble)
    facts.topic, facts.fill_percent = (0, "lag in all: 0"), {"gpu-tokens/kafka-0": 40}
    assert doctor.judge(facts) == []


def test_repairs_are_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "CA2/Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make -C CA2 ([a-z0-9-]+)(?: ([a-z0-9-]+) )?", _PATH.read_text()))
    assert {word for words in named for word in words if word and word != "it"} <= targets


def fake_kubectl(folder: Path, answers: dict[str, Any]) -> str:
    """A kubectl that answers by the first key found among its arguments."""
    program = folder / "kubectl.py"
    program.write_text(
        f"import json, sys\nanswers = json.loads({json.dumps(json.dumps(answers))})\nline = ' "
        "'.join(sys.argv[1:])\n"
        "print('Warning: the API metrics.k8s.io cannot be had', file=sys.stderr)\n"
        "for key, answer in answers.items():\n"
        "    if key in line:\n"
        "        print(answer if isinstance(answer, str) else json.dumps(answer)); sys.exit(0)\n"
        "print('no answer to', line, file=sys.stderr); sys.exit(1)\n"
    )
    return f"{sys.executable} {program}"


def test_it_reads_the_cluster_through_kubectl_and_exits_with_its_judgement(tmp_path: Path) -> None:
    by_hand = pod("debugger", READY)
    del by_hand["metadata"]["labels"]
    pods = [pod("kafka-0", READY, "kafka"), pod("processor-1", CRASHING), by_hand]
    answers: dict[str, Any] = {
        "logs processor-1": "gpu-tokens: MongoDB at mongo-0 refused the login",
        "exec kafka-0 -- df": "Filesystem 1 2 3 Capacity\n/dev/x 1 1 1 99% /var/lib/kafka/data",
        "gpu-tokens topics show": "lag in all: 0",
        "-n gpu-tokens-agents": {"items": []},
        "-n gpu-tokens pods": {"items": pods},
        "get -n gpu-tokens ": {"items": pods},
        "nodes": {"items": [node()]},
    }

    def run() -> subprocess.CompletedProcess[str]:
        env = {"KUBECTL": fake_kubectl(tmp_path, answers), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [sys.executable, _PATH], env=env, capture_output=True, text=True, check=False
        )

    ill = run()
    assert ill.returncode == 1, ill.stderr
    assert "WRONG wrong secret: pod gpu-tokens/processor-1" in ill.stdout
    assert "WRONG full volume: gpu-tokens/kafka-0 is 99 % full" in ill.stdout
    pods[1]["status"] = READY
    answers["exec kafka-0 -- df"] = "Filesystem 1 2 3 Capacity\n/dev/x 1 1 1 9% /var/lib/kafka/data"
    well = run()
    assert (well.returncode, well.stdout) == (
        0,
        "nothing wrong: 1 nodes, 3 pods, volumes, topic and group looked at\n",
    )
