"""Devices of dynamic resource allocation by the ResourceSlices of a node (resource.k8s.io, v1;
v1beta1 before Kubernetes 1.34).

    GET /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName=NODE
    spec.driver, spec.pool.name, spec.devices[].name, .attributes.uuid.string      (v1beta1:
    .basic.attributes)

Asked with the pod's own account, and only when a device is claimed that is not known yet.
"""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from gpu_token_analytics.agent.pods.kubelet import ClaimedDevice
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.errors import SourceUnavailable

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
VERSIONS = ("v1", "v1beta1")
TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
ASK_AGAIN_SECONDS = 30.0


class ResourceSlices:
    """Looks devices up, and remembers the slices of this node."""

    def __init__(self, node: str, clock: Clock, url: str = "", account: Path = ACCOUNT) -> None:
        """node: as Kubernetes calls it. url: of the API server; '' where the pod's environment says
        it."""
        self._node, self._clock, self._account = node, clock, account
        self._url = url or _server_url()
        self._uuids: dict[ClaimedDevice, str] = {}
        self._asked = float("-inf")
        self.problem: str | None = None  # why nothing is known, of the last time that was asked

    def look_up(self, device: ClaimedDevice) -> str | None:
        """The UUID of a device; None where nobody says."""
        if device not in self._uuids and self._clock.monotonic() - self._asked >= ASK_AGAIN_SECONDS:
            self._asked = self._clock.monotonic()
            try:
                self._uuids = self._ask()
                self.problem = None
            except SourceUnavailable as error:
                self.problem = str(error)
        return self._uuids.get(device)

    def _ask(self) -> dict[ClaimedDevice, str]:
        if not self._url:
            raise SourceUnavailable(
                "a pod has a claimed GPU, and this is no pod: KUBERNETES_SERVICE_HOST is not set"
            )
        for version in VERSIONS:
            answer = self._get(
                f"/apis/resource.k8s.io/{version}/resourceslices?fieldSelector=spec.nodeName%3D{quote(self._node)}"
            )
            if answer is not None:
                return read_slices(answer)
        raise SourceUnavailable(
            "the API server has no resourceslices of resource.k8s.io, v1 or v1beta1"
        )

    def _get(self, path: str) -> bytes | None:
        """The answer; None: 404. Raises SourceUnavailable."""
        try:
            token = (self._account / "token").read_text().strip()
            context = (
                ssl.create_default_context(cafile=str(self._account / "ca.crt"))
                if self._url.startswith("https")
                else None
            )
        except OSError as error:
            raise SourceUnavailable(
                f"no account to ask for ResourceSlices with: {self._account} ({error.strerror})"
            ) from None
        request = urllib.request.Request(
            self._url + path, headers={"Authorization": f"Bearer {token}"}
        )
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        try:
            with urllib.request.build_opener(*handlers).open(
                request, timeout=TIMEOUT_SECONDS
            ) as answer:
                body: bytes = answer.read(MAX_ANSWER_BYTES + 1)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            fix = "; let its account list resourceslices" if error.code in (401, 403) else ""
            raise SourceUnavailable(
                f"ResourceSlices: the API server answers {error.code}{fix}"
            ) from None
        except OSError as error:
            raise SourceUnavailable(
                f"ResourceSlices: {self._url} cannot be asked ({type(error).__name__})"
            ) from None
        if len(body) > MAX_ANSWER_BYTES:
            raise SourceUnavailable(f"ResourceSlices: more than {MAX_ANSWER_BYTES:,} bytes")
        return body


def read_slices(answer: bytes) -> dict[ClaimedDevice, str]:
    """The UUIDs in a ResourceSliceList. Raises SourceUnavailable."""
    try:
        items = msgspec.json.decode(answer)["items"]
        return {
            ClaimedDevice(spec["driver"], spec["pool"]["name"], device["name"]): uuid
            for spec in (item["spec"] for item in items)
            for device in spec.get("devices") or ()
            if (uuid := _uuid(device))
        }
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise SourceUnavailable(
            f"ResourceSlices: the answer is no ResourceSliceList ({type(error).__name__})"
        ) from None


def _uuid(device: Mapping[str, Any]) -> str | None:
    attributes = device.get("attributes") or (device.get("basic") or {}).get("attributes") or {}
    uuid = (attributes.get("uuid") or attributes.get("gpu.nvidia.com/uuid") or {}).get("string")
    return uuid if isinstance(uuid, str) and uuid else None


def _server_url() -> str:
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if not host:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
