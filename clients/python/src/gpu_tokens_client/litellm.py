"""LiteLLM callback: every call that LiteLLM's proxy or SDK hands to an engine of one's own becomes
one event.

    litellm_settings:
      callbacks: [gpu_tokens_client.litellm.callback]

Address and key are those of `UsageClient()` (GPU_TOKENS_URL, GPU_TOKENS_API_KEY,
GPU_TOKENS_SPOOL_DIR); GPU_TOKENS_LITELLM_TENANT may name where the tenant stands. With other wishes
make a `LiteLLMUsage` in a module of your own and name that.

Counted once: retries and fallbacks (their failures have no tokens), calls that are told twice. Not
counted: answers from LiteLLM's response cache, which take no GPU time, and calls to providers
(HOSTED of litellm_calls.py). A stream that its caller cut off is counted as LiteLLM estimates it,
with `finish_reason` `abort`.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import Any

from gpu_tokens_client.client import UsageClient
from gpu_tokens_client.litellm_calls import HOSTED, TENANT, call_of, is_from_cache, is_hosted

try:
    from litellm.integrations.custom_logger import CustomLogger
except ImportError as error:
    raise ImportError("gpu_tokens_client.litellm needs LiteLLM: pip install litellm") from error

_log = logging.getLogger("gpu_tokens_client")
_REMEMBERED = 10_000  # calls told last: the second word about one comes within seconds
_WARN_SECONDS = 60.0


class LiteLLMUsage(CustomLogger):  # type: ignore[misc]  # LiteLLM is not there where types are checked
    """Emits one event per call. Never raises into LiteLLM and never waits for the network."""

    def __init__(
        self,
        client: UsageClient,
        *,
        tenant: Sequence[str] = TENANT,
        hosted: Sequence[str] = HOSTED,
        places_itself: bool = False,
    ) -> None:
        """client: where events go.

        tenant: names of the metadata, or of the record, that say whose a call is; the first that
        says anything holds. hosted: domains of providers, whose calls are left out.
        places_itself: the client's own host and GPUs are those of every engine; else the server
        looks up on which GPUs the address that answered runs (`gpu-tokens placements`).
        """
        super().__init__()
        self.from_cache = self.from_providers = self.unread = 0
        self._client, self._tenant, self._hosted, self._places_itself = (
            client,
            tuple(tenant),
            tuple(hosted),
            places_itself,
        )
        self._told: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()
        self._warned_at = -_WARN_SECONDS

    # LiteLLM calls these by keyword: the names of the parameters are its own.
    async def async_log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """A call that succeeded, or whose caller hung up."""
        self._take(kwargs)

    def log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """The same, of the SDK's synchronous calls."""
        self._take(kwargs)

    def _take(self, kwargs: Mapping[str, Any]) -> None:
        record = kwargs.get("standard_logging_object")
        if not isinstance(record, Mapping):
            return  # a chunk of a stream: the record comes with its end
        try:
            self._emit(record)
        except (TypeError, ValueError, KeyError, OverflowError, OSError) as error:
            self.unread += 1
            if time.monotonic() - self._warned_at >= _WARN_SECONDS:
                self._warned_at = time.monotonic()
                _log.warning(
                    "a call of LiteLLM cannot be read and was left out (%d so far): %r",
                    self.unread,
                    error,
                )

    def _emit(self, record: Mapping[str, Any]) -> None:
        if is_from_cache(record):
            self.from_cache += 1
            return
        if is_hosted(record, self._hosted):
            self.from_providers += 1
            return
        call = call_of(record, self._tenant)
        if call is None or not self._is_new(call.event_id):
            return
        self._client.emit(
            prompt_tokens=call.prompt_tokens,
            completion_tokens=call.completion_tokens,
            model=call.model,
            tenant=call.tenant,
            cached_tokens=call.cached_tokens,
            reasoning_tokens=call.reasoning_tokens,
            latency_ms=call.latency_ms,
            ttft_ms=call.ttft_ms,
            finish_reason=call.finish_reason,
            request_id=call.request_id,
            event_id=call.event_id,
            ended_at=call.ended_at,
            host=None if self._places_itself else call.instance,
            gpu_uuids=None if self._places_itself else [f"instance:{call.instance}"],
        )

    def _is_new(self, event_id: str) -> bool:
        with self._lock:
            if event_id in self._told:
                return False
            self._told[event_id] = None
            if len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
            return True


def __getattr__(name: str) -> Any:
    """`callback`, made when LiteLLM first asks for it. Raises ValueError where GPU_TOKENS_URL is
    not set."""
    if name != "callback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    said = os.environ.get("GPU_TOKENS_LITELLM_TENANT", "")
    names = [part.strip() for part in said.split(",") if part.strip()]
    globals()["callback"] = made = LiteLLMUsage(UsageClient(), tenant=names or TENANT)
    return made
