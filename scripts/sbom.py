"""The product's image as a CycloneDX 1.6 bill of materials, on stdout: every pinned package with
its version and file hashes.

    python scripts/sbom.py > sbom.cdx.json

It is made of requirements/grpc.txt, which the Dockerfile installs with --require-hashes: nothing
else can get into the image's Python environment. The base image's own packages are listed by its
vendor.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(text: str) -> list[dict[str, Any]]:
    """The packages of a requirements file with hashes. Raises ValueError for one that is not pinned
    or has no hash."""
    found: list[dict[str, Any]] = []
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        lines = "\n".join(
            line for line in entry.splitlines() if not line.lstrip().startswith("#")
        ).strip()
        if not lines:
            continue
        requirement, hashes = _REQUIREMENT.match(lines), _HASH.findall(lines)
        if not requirement or not hashes:
            raise ValueError(
                f"not pinned by version and hash: {lines.splitlines()[0]!r}; run make lock"
            )
        name, version = requirement.groups()
        purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
        found.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
                # One of these files is installed, by platform; pip refuses any other.
                "externalReferences": [
                    {
                        "type": "distribution",
                        "url": purl,
                        "hashes": [{"alg": "SHA-256", "content": digest} for digest in hashes],
                    }
                ],
            }
        )
    return found


def bill(requirements: str, image: str) -> dict[str, Any]:
    """The whole document; the same input gives the same bytes, so that two builds can be
    compared."""
    name, _, version = image.partition(":")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "bom-ref": image, "name": name, "version": version}
        },
        "components": components(requirements),
    }


def main() -> int:
    """Prints the bill; returns the exit status."""
    image = re.search(
        r"^GPU_TOKENS_IMAGE=(\S+)$", (ROOT / ".env.example").read_text(), re.MULTILINE
    )
    if image is None:
        print(".env.example names no GPU_TOKENS_IMAGE", file=sys.stderr)
        return 2
    json.dump(bill((ROOT / "requirements/grpc.txt").read_text(), image[1]), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
