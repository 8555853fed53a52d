"""What CA2's manifests take from elsewhere: versions of images (.env.example) and settings
(gpu_token_analytics.settings).

    python -m deploy.manifests write     after a change of either (`make manifests`)
    python -m deploy.manifests check     exit 1 and the stale files when something written differs

A settings file sets what a cluster needs otherwise than the code's defaults, and names every other
setting in a comment with its default: a new image brings its own defaults with it. Settings that
are secret, and what a pod knows of itself, are not there: see CA2/components/secrets, and `env` of
the pods.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from deploy import flows
from deploy.flows import ROOT
from gpu_token_analytics.settings import Settings

_SETTINGS_SOURCE = "names and defaults stand in settings.py, values in deploy/manifests.py"
_GENERATED = "Written by `make manifests`; {source}: change it there."
IMAGES = ROOT / "CA2/components/images/kustomization.yaml"
SETTINGS = ROOT / "CA2/base/configuration.env"
AGENT_SETTINGS = ROOT / "CA2/producers/agent/configuration.env"

# Names that the manifests use for an image, and the variable of .env.example that says which it is.
IMAGE_NAMES = {"kafka": "KAFKA_IMAGE", "mongo": "MONGO_IMAGE", "gpu-tokens": "GPU_TOKENS_IMAGE"}
# Set per pod (`env`), by a Secret, or only where files of certificates are mounted.
PER_POD = {
    "MONGODB_URI",
    "HOST_NAME",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "PLACEMENTS_API_KEY",
}
_KAFKA = {
    "KAFKA_BOOTSTRAP": "kafka.gpu-tokens.svc:9092",
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
}
_PROCESS = {"HTTP_HOST": "0.0.0.0", "HTTP_PORT": "8080", "LOG_FORMAT": "json"}
_CLUSTER = {**_KAFKA, **_PROCESS}
_PODS = {
    "KUBELET_PODS_SOCKET": "/var/lib/kubelet/pod-resources/kubelet.sock",
    "PLACEMENTS_URL": "http://api.gpu-tokens.svc:8080",
}
_AGENT = {
    **_KAFKA,
    "HTTP_HOST": "0.0.0.0",
    "LOG_FORMAT": "json",
    "GPU_METRICS_SOURCE": "nvml",
    **_PODS,
}
_AGENT_READS = (
    "KAFKA_",
    "SAMPLE_INTERVAL",
    "NVIDIA_SMI",
    "GPU_METRICS_SOURCE",
    "GPU_EXPORTER_URL",
    "GPU_SEED_FILE",
    "ENGINE",
    "HTTP_HOST",
    "LOG_",
    "SITE",
)
# Of .env.example's pipeline settings; where GPU samples come from is the agents' business.
_NOT_SHARED = {"GPU_METRICS_SOURCE"}


def example_values() -> dict[str, str]:
    """.env.example as name and value."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return {
        name: value
        for name, sep, value in (line.partition("=") for line in lines)
        if sep and not name.startswith("#")
    }


def images() -> str:
    """The component that turns the manifests' names of images into the images of .env.example."""
    values = example_values()
    lines = [f"# {_GENERATED.format(source='versions stand in .env.example')}"]
    lines += ["apiVersion: kustomize.config.k8s.io/v1alpha1", "kind: Component", "images:"]
    for name, variable in IMAGE_NAMES.items():
        image, _, digest = values[variable].partition("@")
        repository, _, tag = image.rpartition(":")
        version = f"digest: {digest}" if digest else f'newTag: "{tag}"'
        lines.append(f"  - {{name: {name}, newName: {repository}, {version}}}")
    return "\n".join(lines) + "\n"


def settings_env(values: Mapping[str, str], reads: tuple[str, ...] = ("",)) -> str:
    """`values` first, then every other setting whose name begins with one of `reads`, as a comment
    with its default."""
    lines = [
        "# " + _GENERATED.format(source=_SETTINGS_SOURCE),
    ]
    lines += [f"{name}={value}" for name, value in values.items()]
    lines += [
        "",
        "# Not set here, with the defaults of the image. Set what you need in your overlay "
        "(merge).",
    ]
    for name, field in Settings.model_fields.items():
        variable = name.upper()
        if variable not in {*values, *PER_POD} and variable.startswith(reads):
            lines.append(
                f"# {variable}={_text(field.get_default(call_default_factory=True))}  "
                f"{field.description}"
            )
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(value) if isinstance(value, bool | dict) else str(value)


def rendered() -> Iterator[tuple[Path, str]]:
    """Every file that is written, with the text it must have."""
    known = {name.upper() for name in Settings.model_fields}
    shared = {
        name: value for name, value in example_values().items() if name in known - _NOT_SHARED
    }
    yield IMAGES, images()
    yield SETTINGS, settings_env({**_CLUSTER, **shared})
    agent = {name: value for name, value in shared.items() if name.startswith(_AGENT_READS)}
    yield AGENT_SETTINGS, settings_env({**_AGENT, **agent}, _AGENT_READS)


def main(arguments: list[str]) -> int:
    """`write` or `check`; returns the exit status."""
    if arguments not in (["write"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    return flows.write_or_check(rendered(), arguments == ["write"], "make manifests")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
