"""The container images of the cluster, assembled without an engine from folders that are kept
between runs.

What is real in them: ../images/README.md. The files are those that the Dockerfiles of `make vms`
put together; the Dockerfiles themselves are not run here, because making an engine for them takes
minutes.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from deploy.bench.images import debian, servers
from deploy.bench.images.archive import Image, Layer
from deploy.bench.report import NotChecked
from deploy.bench.shell import run
from deploy.flows import ROOT

KUBE_IMAGE = "bench.local/kube:1"
PAUSE_IMAGE = "bench.local/pause:1"
_BASE_PACKAGES = [
    *(
        "base-files",
        "base-passwd",
        "bash",
        "coreutils",
        "dash",
        "debianutils",
        "findutils",
        "grep",
        "hostname",
        "mawk",
        "sed",
    ),
    *(
        "libc6",
        "libc-bin",
        "libgcc-s1",
        "libstdc++6",
        "libssl3",
        "libffi8",
        "libsqlite3-0",
        "libbz2-1.0",
        "liblzma5",
        "zlib1g",
    ),
    *(
        "libexpat1",
        "libreadline8",
        "libncursesw6",
        "libuuid1",
        "libcurl4",
        "libatomic1",
        "netbase",
        "tzdata",
        "openssl",
    ),
]
# Debian's; Kafka 4 wants 17 or newer
_JAVA = ("openjdk-21-jre-headless", "openjdk-17-jre-headless")
_PROGRAMS = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}
_COMMITS_BACK = 20
# Databases of images from before this decision are refused at start, on purpose: there is nothing
# to upgrade from.
DATA_FORMAT_SINCE = "docs/decisions/0027-events-belong-to-their-tenant.md"
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def build(kube: Path, cache: Path) -> tuple[list[Image], str]:
    """The images, and a hash of all that they are made of. `kube` is the folder with the binary and
    the sandbox.

    Takes about two minutes the first time (half of it downloads of pip, npm and Maven), seconds
    after that. Raises NotChecked when this machine lacks something.
    """
    if lacks := [*servers.lacking(), *_lacking()]:
        raise NotChecked(f"images cannot be built, this machine lacks: {'; '.join(lacks)}")
    names = servers.versions()
    layers = _Layers(cache, servers.contexts(names["KAFKA_IMAGE"].partition(":")[2]))
    images = [
        Image(
            PAUSE_IMAGE,
            [layers.of_program(kube / "pause")],
            {"Entrypoint": ["/pause"], "User": "65535:65535"},
        ),
        Image(
            KUBE_IMAGE,
            [layers.of_program(kube / "kube")],
            {"Entrypoint": ["/kube"], "User": "65532:65532"},
        ),
        Image(names["KAFKA_IMAGE"], [layers.base(), layers.java(), layers.kafka()], _KAFKA),
        Image(names["MONGO_IMAGE"], [layers.base(), layers.mongo()], _MONGO),
        _product(layers, names["GPU_TOKENS_IMAGE"], ROOT),
    ]
    images += [
        Image(
            tag,
            [layers.base(), layers.debian_program(program, name)],
            {"User": "65534:65534", "Env": [f"PATH={_PATH}"]},
        )
        for name, program, tag in _monitoring()
    ]
    if earlier := _previous(layers, previous_tag(), cache):
        images.append(earlier)
    return images, layers.identity()


def _previous(layers: _Layers, tag: str, scratch: Path) -> Image | None:
    """The product as an earlier commit would have built it, for upgrades; None when git has no
    history here."""
    commit = previous_commit()
    if commit is None:
        return None
    checkout = scratch / "previous"
    shutil.rmtree(checkout, ignore_errors=True)
    checkout.mkdir(parents=True)
    archived = checkout / "source.tar"
    content = ["pyproject.toml", "README.md", "LICENSE", "src", "requirements"]
    run(["git", "-C", str(ROOT), "archive", "-o", str(archived), commit, *content])
    run(["tar", "-C", str(checkout), "-xf", str(archived)])
    return _product(layers, tag, checkout)


def previous_tag() -> str:
    """The tag of the earlier image."""
    return f"{servers.versions()['GPU_TOKENS_IMAGE'].partition(':')[0]}:previous"


def previous_commit() -> str | None:
    """The oldest of the last twenty commits that changed the product, and whose data this one can
    read.

    None when git has no such here: a clone without history has nothing to upgrade from.
    """
    git = ["git", "-C", str(ROOT)]
    commits = [
        "rev-list",
        "--first-parent",
        f"--max-count={_COMMITS_BACK + 1}",
        "HEAD",
        "--",
        "src",
    ]
    history = run([*git, *commits], check=False).stdout.split()
    for commit in reversed(history[1:]):
        if (
            run([*git, "cat-file", "-e", f"{commit}:{DATA_FORMAT_SINCE}"], check=False).returncode
            == 0
        ):
            return commit
    return None


_KAFKA = {
    "User": "1000:1000",
    "Cmd": ["/etc/kafka/docker/run"],
    "Env": [f"PATH={_PATH}"],
    "WorkingDir": "/",
}
_MONGO = {
    "Entrypoint": ["docker-entrypoint.sh"],
    "Cmd": ["mongod"],
    "Env": [f"PATH={_PATH}", "HOME=/data/db"],
}


def _product(layers: _Layers, tag: str, source: Path) -> Image:
    # The environment of the repository's Dockerfile.
    environment = [
        f"PATH=/opt/gpu-tokens/bin:{_PATH}", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1",
        "HOME=/tmp",
        "HTTP_HOST=0.0.0.0", "HTTP_PORT=8080", "LOG_FORMAT=json",
    ]  # fmt: skip
    config = {
        "User": "10001:10001", "WorkingDir": "/var/empty", "Env": environment,
        "Entrypoint": ["gpu-tokens"],
        "Cmd": ["processor"], "StopSignal": "SIGTERM", "ExposedPorts": {"8080/tcp": {}},
    }  # fmt: skip
    return Image(
        tag,
        [layers.base(), layers.python(), layers.packages(source), layers.product(source)],
        config,
    )


def _monitoring() -> list[tuple[str, str, str]]:
    """CA3's Prometheus and Alertmanager: name in the manifests, Debian's package, reference tag."""
    known = yaml.safe_load((ROOT / "CA3/observability/kustomization.yaml").read_text())["images"]
    tags = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in known}
    return [(name, program, tags[name]) for name, program in _PROGRAMS.items()]


def _lacking() -> list[str]:
    lacks = (
        []
        if shutil.which("dpkg-query")
        else ["dpkg: the images' base is copied from this machine's Debian packages"]
    )
    lacks += [
        f"{program} (apt-get install {program})"
        for program in _PROGRAMS.values()
        if shutil.which(program) is None
    ]
    if shutil.which("dpkg-query") and not debian.closure(_JAVA):
        lacks.append("Java 17 (apt-get install openjdk-17-jre-headless)")
    return lacks


class _Layers:
    """Folders by the hash of their sources, below `cache/layers`; made when they are missing."""

    def __init__(self, cache: Path, contexts: Path) -> None:
        self.cache = cache
        self.contexts = contexts
        self._used: list[str] = []

    def identity(self) -> str:
        """A hash of the names of all layers that were asked for: each name holds the hash of its
        own sources."""
        return hashlib.sha256("\n".join(sorted(set(self._used))).encode()).hexdigest()[:16]

    def _folder(self, name: str, sources: Sequence[object], make: Callable[[Path], None]) -> Path:
        path = (
            self.cache
            / "layers"
            / f"{name}.{hashlib.sha256(repr(sources).encode()).hexdigest()[:12]}"
        )
        self._used.append(path.name)
        if not path.exists():
            part = path.with_name(f"{path.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            make(part)
            part.rename(path)
        return path

    def of_program(self, program: Path) -> Layer:
        """One static program and /tmp."""

        def make(root: Path) -> None:
            shutil.copy2(program, root / program.name)
            (root / "tmp").mkdir(mode=0o1777)

        return Layer(self._folder(program.name, [program.parent.name], make))

    def base(self) -> Layer:
        """What a slim Debian image has, from this machine's own packages."""
        packages = debian.closure(_BASE_PACKAGES)

        def make(root: Path) -> None:
            debian.copy(packages, root)
            debian.alternatives(["awk", "sh"], root)

        return Layer(self._folder("base", debian.versions(packages), make))

    def java(self) -> Layer:
        """Debian's Java, without what its graphical parts would need."""
        package = (debian.closure(_JAVA[:1]) and _JAVA[0]) or _JAVA[1]
        packages = sorted({package, *_JAVA_NEEDS} & set(debian.closure([package])))

        def make(root: Path) -> None:
            debian.copy(packages, root)
            debian.alternatives(["java"], root)

        return Layer(self._folder("java", debian.versions(packages), make))

    def debian_program(self, package: str, name: str) -> Layer:
        """One of this machine's packages, all its files: a server reads more than its program,
        which becomes /bin/NAME."""

        def make(root: Path) -> None:
            debian.copy([package], root)
            (root / "usr/bin" / package).rename(root / "usr/bin" / name)

        return Layer(self._folder(name, debian.versions([package]), make))

    def kafka(self) -> Layer:
        """Kafka's jars and the scripts, at the places and with the owners of the reference
        image."""
        context = self.contexts / "kafka"

        def make(root: Path) -> None:
            for folder in (
                "opt/kafka/config",
                "opt/kafka/logs",
                "var/lib/kafka/data",
                "etc/kafka/secrets",
                "mnt/shared/config",
            ):
                (root / folder).mkdir(parents=True)
            for source, target in (
                ("libs", "opt/kafka/libs"),
                ("bin", "opt/kafka/bin"),
                ("defaults", "etc/kafka/docker"),
            ):
                shutil.copytree(context / source, root / target)
            for script in [*(root / "opt/kafka/bin").glob("*.sh"), root / "etc/kafka/docker/run"]:
                script.chmod(0o755)

        owners = dict.fromkeys(
            (
                "opt/kafka/config",
                "opt/kafka/logs",
                "var/lib/kafka",
                "etc/kafka",
                "mnt/shared/config",
            ),
            1000,
        )
        return Layer(self._folder("kafka", _contents(context), make), owners)

    def mongo(self) -> Layer:
        """mongod, mongosh and the entry point."""
        context = self.contexts / "mongo"

        def make(root: Path) -> None:
            for folder in ("data/db", "data/configdb", "docker-entrypoint-initdb.d", "usr/local"):
                (root / folder).mkdir(parents=True)
            shutil.copytree(context / "bin", root / "usr/local/bin")
            shutil.copytree(context / "mongosh", root / "opt/mongosh", symlinks=True)
            for program in (root / "usr/local/bin").iterdir():
                program.chmod(0o755)
            (root / "usr/local/bin/mongosh").symlink_to("/opt/mongosh/node_modules/.bin/mongosh")

        return Layer(self._folder("mongo", _contents(context / "bin"), make), {"data": 999})

    def python(self) -> Layer:
        """This machine's CPython 3.12, its library compiled."""
        python = servers.python312()
        assert python is not None  # servers.lacking() says so first

        def make(root: Path) -> None:
            shutil.copytree(self.contexts / "python/cpython", root / "usr/local", symlinks=True)
            for name in ("python", "python3"):
                link = root / "usr/local/bin" / name
                link.unlink(missing_ok=True)
                link.symlink_to("python3.12")
            # Where the loader looks by itself: there is no `ldconfig` run in this image.
            libraries = root / "usr/lib/x86_64-linux-gnu"
            libraries.mkdir(parents=True)
            for library in (root / "usr/local/lib").glob("libpython3*.so*"):
                (libraries / library.name).symlink_to(f"/usr/local/lib/{library.name}")
            _compile(root / "usr/local/lib/python3.12")

        return Layer(self._folder("python", [str(python)], make))

    def packages(self, source: Path) -> Layer:
        """What the image holds of a checkout's requirements, hash-checked."""
        requirements = source / "requirements/grpc.txt"

        def make(root: Path) -> None:
            site = root / "opt/gpu-tokens/lib/python3.12/site-packages"
            install = [
                "install",
                "-q",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "--no-compile",
            ]
            run(
                [*self._pip(), *install, "--target", str(site), "-r", str(requirements)],
                timeout_seconds=600,
            )
            shutil.rmtree(site / "bin", ignore_errors=True)
            (root / "opt/gpu-tokens/bin").mkdir()
            (root / "opt/gpu-tokens/bin/python").symlink_to("/usr/local/bin/python3.12")
            (root / "opt/gpu-tokens/pyvenv.cfg").write_text(
                "home = /usr/local/bin\ninclude-system-site-packages = false\n"
            )
            (root / "var/empty").mkdir(parents=True)
            _compile(site)

        return Layer(self._folder("packages", [requirements.read_text()], make))

    def product(self, source: Path) -> Layer:
        """The wheel of a checkout, installed."""

        def make(root: Path) -> None:
            site = root / "opt/gpu-tokens/lib/python3.12/site-packages"
            wheels = root / "wheels"
            build = [
                sys.executable,
                "-m",
                "pip",
                "wheel",
                "-q",
                "--no-index",
                "--no-deps",
                "--no-build-isolation",
            ]
            run([*build, "--wheel-dir", str(wheels), str(source)], timeout_seconds=120)
            wheel = next(wheels.glob("*.whl"))
            run(
                [
                    *self._pip(),
                    "install",
                    "-q",
                    "--no-index",
                    "--no-deps",
                    "--no-compile",
                    "--target",
                    str(site),
                    str(wheel),
                ]
            )
            shutil.rmtree(wheels)
            program = root / "opt/gpu-tokens/bin/gpu-tokens"
            program.parent.mkdir()
            shutil.move(site / "bin/gpu-tokens", program)
            shutil.rmtree(site / "bin")
            # pip names the interpreter that it ran in itself.
            program.write_text(
                "#!/opt/gpu-tokens/bin/python\n" + program.read_text().partition("\n")[2]
            )
            _compile(site)

        return Layer(self._folder("product", _contents(source / "src"), make))

    def _pip(self) -> list[str]:
        tools = self.cache / "pip312"
        if not (tools / "bin/pip").exists():
            run(
                [str(servers.python312()) + "/bin/python3.12", "-m", "venv", "--clear", str(tools)],
                timeout_seconds=120,
            )
        return [str(tools / "bin/pip"), "--disable-pip-version-check"]


# Of Java's dependencies those without which a server does not start.
_JAVA_NEEDS = ("ca-certificates-java", "java-common", "libnss3", "libnspr4")


def _compile(library: Path) -> None:
    """Compiled modules that ignore their source's time, which a layer does not keep; a read-only
    root could not renew them."""
    python = str(servers.python312()) + "/bin/python3.12"
    run([python, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash",
    str(library)], check=False,
        timeout_seconds=300)  # fmt: skip


def _contents(folder: Path) -> list[tuple[str, str]]:
    """Names and SHA-256 of all files below a folder, without what Python and npm keep for
    themselves."""
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )
    return [
        (str(path.relative_to(folder)), hashlib.file_digest(path.open("rb"), "sha256").hexdigest())
        for path in files
    ]
