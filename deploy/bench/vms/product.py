"""The product's own compose.yaml, on one of the machines: everything healthy, and events go
through."""

from __future__ import annotations

from pathlib import Path

from deploy.bench.images import servers
from deploy.bench.report import Report, expect
from deploy.bench.shell import CommandFailed, run
from deploy.bench.vms.machines import Bench
from deploy.flows import ROOT

_MACHINE = "vm3-processor"
_FOLDER = "/srv/product"


def run_checks(report: Report, bench: Bench, images_by_name: dict[str, Path]) -> None:
    """Needs a machine with nothing running on it."""
    compose = [
        "docker",
        "compose",
        "--project-directory",
        _FOLDER,
        "-p",
        "product",
        "--profile",
        "demo",
    ]
    with report.check(
        "compose.yaml: the whole product on one machine, every container healthy, marked events "
        "stored and accounted"
    ):
        for variable in ("KAFKA_IMAGE", "MONGO_IMAGE"):
            bench.load(_MACHINE, images_by_name[servers.versions()[variable]])
        target = bench.folder / _MACHINE / "root" / _FOLDER.lstrip("/")
        (target / "CA0").mkdir(parents=True)
        run(["cp", "-r", str(ROOT / "compose.yaml"), str(target)])
        run(
            ["cp", "-r", str(ROOT / "CA0/common"), str(ROOT / "CA0/vm2-mongo"), str(target / "CA0")]
        )
        env = (ROOT / ".env.example").read_text()
        for secret in ("MONGO_ROOT_PASSWORD", "MONGO_APP_PASSWORD"):
            expect(f"\n{secret}=\n" in f"{env}\n", f".env.example must leave {secret} empty")
            env = env.replace(f"{secret}=", f"{secret}=for-this-run-only")
        (target / ".env").write_text(env)
        try:
            bench.inside(
                _MACHINE,
                *compose,
                "up",
                "-d",
                "--no-build",
                "--wait",
                "--wait-timeout",
                "240",
                timeout_seconds=300,
            )
            said = bench.inside(
                _MACHINE,
                *compose,
                "exec",
                "-T",
                "processor",
                "gpu-tokens",
                "verify",
                timeout_seconds=180,
            )
            expect("verified" in said, said)
            report.say(
                "\n".join(
                    ["", *(f"    {line}" for line in said.splitlines() if "CONFWARN" not in line)]
                )
            )
            report.say(
                bench.inside(
                    _MACHINE, *compose, "ps", "-a", "--format", "table {{.Service}}\t{{.Status}}"
                )
            )
        except CommandFailed as error:
            logs = bench.inside(_MACHINE, *compose, "logs", "--tail", "15", check=False)
            raise CommandFailed(f"{error}\n{logs}") from None
        finally:
            bench.inside(_MACHINE, *compose, "down", "-v", check=False)
