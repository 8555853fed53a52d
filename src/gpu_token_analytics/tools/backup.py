"""A copy of the whole store as files: what `mongodump --gzip` writes, plus a manifest; encrypted
with age on request.

    DIR/<database>/<collection>.bson.gz     BSON documents in order of _id; `.age` behind it when
                                            encrypted
    DIR/manifest.json                       documents, bytes and SHA-256 of each; written last, so a
                                            backup that was interrupted has none and is refused

`mongorestore --gzip --dir DIR` reads the files, `age --decrypt` opens the encrypted ones
(https://age-encryption.org/v1).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pyrage

from gpu_token_analytics import __version__
from gpu_token_analytics.errors import BackupUnusable, SettingsError
from gpu_token_analytics.mongo.client import COMMAND_CONNECT_MS, open_store
from gpu_token_analytics.mongo.copies import (
    COPIED,
    Copy,
    copy_of,
    prepare,
    put_back,
    refuse_unless_empty,
)
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.settings import Settings

FORMAT = 1
MANIFEST = "manifest.json"
_AGE = ".age"
_GZIP = 31  # zlib's wbits for a gzip header and trailer
_LEVEL = 1  # BSON compresses well at the least effort, and a backup competes with ingest
_HEADER_BYTES = 4  # every BSON document begins with its length: https://bsonspec.org/spec.html

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Part:
    """One collection in a backup: size before compression, digest of the BSON in order of `_id`."""

    documents: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup holds, and what is known about its moment."""

    format: int
    product: str
    made_at: str
    database: str
    consistency: str
    parts: dict[str, Part]

    @property
    def documents(self) -> int:
        """In all collections."""
        return sum(part.documents for part in self.parts.values())


def back_up(
    settings: Settings, folder: Path, recipients: Sequence[str], progress: Progress
) -> Manifest:
    """Writes a backup into a new or empty `folder`, readable by its owner only.

    recipients: age public keys (`age1...`); none: not encrypted. Raises SettingsError for a folder
    or a key that cannot be used, StoreRefused and StoreUnreachable.
    """
    keys = [_recipient(text) for text in recipients]
    _refuse_used(folder)
    parts = {}
    with copy_of(settings) as copy:
        _make(folder)  # not before: a database that does not answer left an empty folder
        (folder / settings.mongodb_database).mkdir(mode=0o700)
        for name in COPIED:
            parts[name] = _write(copy, name, folder / settings.mongodb_database, keys)
            progress(name, parts[name].documents)
        consistency = copy.consistency.value
    manifest = Manifest(
        FORMAT,
        __version__,
        datetime.now(UTC).isoformat(timespec="seconds"),
        settings.mongodb_database,
        consistency,
        parts,
    )
    text = json.dumps(asdict(manifest), indent=2).encode() + b"\n"
    _pour(io.BytesIO(text), folder / MANIFEST, keys)
    return manifest


def restore(
    settings: Settings, folder: Path, identity_file: Path | None, progress: Progress
) -> Manifest:
    """Puts a backup into the empty database of the settings, compares every document with the
    manifest, makes the indexes.

    Raises BackupUnusable when files are missing, damaged or encrypted for somebody else;
    StoreRefused when the database is not empty. What an interrupted restore left has to be dropped
    first.
    """
    identities = _identities(identity_file)
    manifest = read_manifest(folder, identities)
    refuse_unless_empty(settings)
    prepare(settings)
    for name, part in manifest.parts.items():
        path = folder / manifest.database / f"{name}.bson.gz"
        put_back(settings, name, _documents(path, identities, name, part))
        progress(name, part.documents)
    with copy_of(settings) as copy:
        for name, part in manifest.parts.items():
            stored = _measured(copy.documents(name))
            if stored != part:
                raise BackupUnusable(
                    f"{name} in the database is not what the backup holds: {stored}, not {part}"
                )
    store = open_store(settings, "gpu-tokens-restore", connect_ms=COMMAND_CONNECT_MS)
    try:
        # Afterwards: faster, and the retention of old raw events must not begin before they were
        # compared.
        ensure_indexes(store, settings)
    finally:
        store.close()
    return manifest


def read_manifest(folder: Path, identities: Sequence[Any]) -> Manifest:
    """The manifest of a backup. Raises BackupUnusable when there is none, or one of another
    format."""
    if not (folder / MANIFEST).exists() and not (folder / f"{MANIFEST}{_AGE}").exists():
        raise BackupUnusable(
            f"{folder} has no {MANIFEST}: it is no backup, or one that did not come to its end"
        )
    text = io.BytesIO()
    _open_into(folder / MANIFEST, identities, text)
    try:
        raw = json.loads(text.getvalue())
        if raw["format"] != FORMAT:
            raise BackupUnusable(
                f"{folder} is of format {raw['format']}, this version reads {FORMAT}: use "
                f"{raw['product']}"
            )
        return Manifest(
            **{**raw, "parts": {name: Part(**part) for name, part in raw["parts"].items()}}
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BackupUnusable(f"{folder / MANIFEST} cannot be read: {error}") from None


def new_key(path: Path) -> str:
    """Writes a new age key to a file of its owner's; returns its public half, for --recipient.
    Raises SettingsError."""
    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"# public key: {recipient}\n{identity}\n")
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written ({error.strerror}); a key never replaces a file"
        ) from None
    return recipient


# Out


def _write(copy: Copy, name: str, folder: Path, keys: Sequence[Any]) -> Part:
    meter = _Meter()
    chunks = _compressed(meter.passing(copy.documents(name)))
    _pour(io.BufferedReader(_Chunks(chunks), 1 << 20), folder / f"{name}.bson.gz", keys)
    return meter.part


def _pour(source: IO[bytes], path: Path, keys: Sequence[Any]) -> None:
    """A stream into a file of the owner's, encrypted when there are keys, on the disk when it
    returns."""
    target = path.with_name(path.name + _AGE) if keys else path
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if keys:
            pyrage.encrypt_io(source, file, list(keys))
        else:
            shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def _compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()


class _Chunks(io.RawIOBase):
    """An iterator of bytes as a stream to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class _Meter:
    """Counts and digests BSON on its way."""

    def __init__(self) -> None:
        self._documents = self._bytes = 0
        self._digest = hashlib.sha256()

    def passing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._documents += sum(1 for _ in _lengths(chunk))
            self._bytes += len(chunk)
            self._digest.update(chunk)
            yield chunk

    @property
    def part(self) -> Part:
        return Part(self._documents, self._bytes, self._digest.hexdigest())


def _measured(chunks: Iterable[bytes]) -> Part:
    meter = _Meter()
    for _ in meter.passing(chunks):
        pass
    return meter.part


def _lengths(chunk: bytes) -> Iterator[int]:
    at = 0
    while at + _HEADER_BYTES <= len(chunk):
        length = int.from_bytes(chunk[at : at + _HEADER_BYTES], "little")
        if length <= _HEADER_BYTES or at + length > len(chunk):
            return
        yield length
        at += length


# In


def _documents(path: Path, identities: Sequence[Any], name: str, part: Part) -> Iterator[bytes]:
    """Whole documents of a file; its digest is known at the end only, so restore compares what
    arrived as well."""
    with closing(_Unpacked()) as unpacked:
        _open_into(path, identities, unpacked)
        yield from unpacked.chunks()
        if unpacked.broken or unpacked.part != part:
            raise BackupUnusable(
                f"{path.name} is damaged: {unpacked.part} of {name}, the manifest says {part}"
            )


class _Unpacked(io.RawIOBase):
    """Takes gzip, keeps whole BSON documents. Spooled to disk past 64 MB: the decrypting library
    pushes, MongoDB pulls."""

    def __init__(self) -> None:
        self._spool = tempfile.SpooledTemporaryFile(max_size=64 * 1024 * 1024)  # noqa: SIM115 - close() closes it
        self._unpacker = zlib.decompressobj(_GZIP)
        self._meter = _Meter()
        self.broken = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            self._spool.write(self._unpacker.decompress(bytes(data)))
        except zlib.error:
            self.broken = True
        return len(data)

    @property
    def part(self) -> Part:
        return self._meter.part

    def chunks(self) -> Iterator[bytes]:
        self.broken = self.broken or not self._unpacker.eof
        self._spool.seek(0)
        yield from self._meter.passing(self._whole_documents())

    def close(self) -> None:
        self._spool.close()
        super().close()

    def _whole_documents(self) -> Iterator[bytes]:
        left = b""
        while chunk := self._spool.read(4 * 1024 * 1024):
            left += chunk
            whole = sum(_lengths(left))
            if whole:
                yield left[:whole]
                left = left[whole:]
        self.broken = self.broken or bool(left)


def _open_into(path: Path, identities: Sequence[Any], target: Any) -> None:
    """A file's content into a stream, decrypted when it is encrypted."""
    encrypted = path.with_name(path.name + _AGE)
    try:
        if not encrypted.exists():
            with path.open("rb") as file:
                shutil.copyfileobj(file, target, 1 << 20)
            return
        if not identities:
            raise BackupUnusable(
                f"{encrypted.name} is encrypted: give the file of the key with --identity"
            )
        with encrypted.open("rb") as file:
            pyrage.decrypt_io(file, target, list(identities))
    except pyrage.DecryptError as error:
        raise BackupUnusable(
            f"{encrypted.name} does not open with that key, or is damaged ({error})"
        ) from None
    except OSError as error:
        raise BackupUnusable(
            f"{error.filename or path} cannot be read: {error.strerror or error}"
        ) from None


# Keys and folders


def _recipient(text: str) -> Any:
    try:
        return pyrage.x25519.Recipient.from_str(text.strip())
    except pyrage.RecipientError as error:
        raise SettingsError(
            f"--recipient {text!r} is no age public key ({error}); it begins with `age1`"
        ) from None


def _identities(path: Path | None) -> list[Any]:
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
        return [
            pyrage.x25519.Identity.from_str(line)
            for line in lines
            if line and not line.startswith("#")
        ]
    except OSError as error:
        raise SettingsError(f"--identity {path}: {error.strerror}") from None
    except (pyrage.IdentityError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--identity {path} holds no age key ({error}); a line begins with `AGE-SECRET-KEY-1`"
        ) from None


def _refuse_used(folder: Path) -> None:
    try:
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(f"{folder} is not empty: a backup gets a folder of its own")
    except OSError as error:
        raise SettingsError(f"{folder} cannot be used: {error.strerror}") from None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be used: {error.strerror}") from None
