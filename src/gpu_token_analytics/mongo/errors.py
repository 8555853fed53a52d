"""The driver's errors in our words, mapped here and nowhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from pymongo.cursor import Cursor
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)

from gpu_token_analytics.errors import (
    StoreError,
    StoreOutcomeUnknown,
    StoreRefused,
    StoreUnreachable,
)

Document = dict[str, Any]
Method = TypeVar("Method", bound=Callable[..., Any])

_AUTHENTICATION_FAILED, _UNAUTHORIZED = 18, 13
# An operator has to act: repeating the operation gives the same answer. (Names: mongodb
# src/mongo/base/error_codes.yml)
_REFUSED = frozenset(
    {
        _UNAUTHORIZED,
        _AUTHENTICATION_FAILED,
        20,  # IllegalOperation
        26,  # NamespaceNotFound
        59,  # CommandNotFound
        72,  # InvalidOptions
        73,  # InvalidNamespace
        85,  # IndexOptionsConflict
        86,  # IndexKeySpecsConflict
        166,  # CommandNotSupportedOnView
        8000,  # AtlasError: quota, suspended cluster
        14031,  # OutOfDiskSpace
    }
)


@contextmanager
def store_errors(doing: str, where: str = "") -> Iterator[None]:
    """Turn the driver's errors into ours; `doing` completes "MongoDB: cannot ..."."""
    try:
        yield
    except PyMongoError as error:
        ours = _ours(error, doing, where)
        if ours is None:
            raise
        raise ours from error


def mapped(method: Method) -> Method:
    """A method whose driver errors are ours, whatever it does; its name says what it could not
    do."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with store_errors(method.__name__.replace("_", " ")):
            return method(*args, **kwargs)

    return cast("Method", call)


def each(cursor: Cursor[Document]) -> Iterator[Document]:
    """A cursor's documents, its later errors mapped like the first ones."""
    with store_errors("read on"), cursor:
        yield from cursor


def _ours(error: PyMongoError, doing: str, where: str) -> StoreError | None:
    at = f" at {where}" if where else ""
    text = (
        str(error)
        .split(", full error:")[0]
        .split(", Timeout:")[0]
        .split(" (configured timeouts:")[0]
    )
    ours: StoreError | None = None
    if isinstance(error, WTimeoutError):
        ours = StoreOutcomeUnknown(f"MongoDB{at}: {doing} is not known to be durable: {text}")
    elif isinstance(error, ConnectionFailure):  # no primary, network, timeout, not-primary answers
        ours = StoreUnreachable(
            f"MongoDB{at} does not answer ({doing}): {text}; check MONGODB_URI and that mongod runs"
        )
    elif isinstance(error, ExecutionTimeout):
        ours = StoreOutcomeUnknown(f"MongoDB{at} took too long to {doing}: {text}")
    elif isinstance(error, ConfigurationError):
        ours = StoreRefused(f"MongoDB{at} cannot be used ({doing}): {text}")
    elif isinstance(error, OperationFailure) and "writeErrors" not in (error.details or {}):
        ours = _answered_no(error, doing, at, text)
    return ours


def _answered_no(error: OperationFailure, doing: str, at: str, text: str) -> StoreError:
    if error.code == _AUTHENTICATION_FAILED:
        return StoreRefused(
            f"MongoDB{at} refused the login: check user, password and authSource in MONGODB_URI "
            f"({text})"
        )
    if error.code == _UNAUTHORIZED:
        return StoreRefused(
            f"MongoDB{at} does not allow to {doing}: give the user of MONGODB_URI the rights "
            f"({text})"
        )
    if "does not support retryable writes" in text:
        # A standalone that was away for a moment: the driver took it for a replica set. Repeating
        # the write is right.
        return StoreOutcomeUnknown(f"MongoDB{at} came back while trying to {doing}: {text}")
    if error.code in _REFUSED:
        return StoreRefused(f"MongoDB{at} refused to {doing}: {text}")
    return StoreOutcomeUnknown(f"MongoDB{at} failed to {doing}: {text}")
