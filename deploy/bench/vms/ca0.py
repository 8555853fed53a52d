"""CA0 on the bench: its README followed step by step, then what it promises about reachability,
logins and containers."""

from __future__ import annotations

import json
import time

from deploy.bench.checks import matrix
from deploy.bench.report import Report, expect
from deploy.bench.shell import run
from deploy.bench.vms import reachability as reach
from deploy.bench.vms.machines import Bench
from deploy.bench.vms.workstation import Operator, authentication_methods

_BYPASS_PORT = 9393
_HOME = "/opt/gpu-tokens"


def follow_readme(report: Report, bench: Bench, operator: Operator) -> None:
    """The steps of CA0's README, as they stand there. Needs fresh machines that have the reference
    images of Kafka and MongoDB loaded."""
    with report.check(
        "CA0: before hardening, passwords are accepted (so that the check below means something)"
    ):
        for machine in bench.table.machines.values():
            offered = authentication_methods(machine.ip, "ubuntu")
            expect("password" in offered, f"{machine.name} offers {offered}")
    steps = operator.steps("CA0/README.md", "Steps")
    for number, step in enumerate(steps, 1):
        with report.check(f"CA0 README step {number}: {step}"):
            output = operator.do(step, timeout_seconds=420)
            report.say(_last(output))


def run_checks(report: Report, bench: Bench, operator: Operator, image_name: str) -> None:
    """What CA0 promises of machines that its README made."""
    logins(report, bench, "CA0")
    reachability(report, bench, "CA0, containers running")
    containers(report, bench)
    firewall_drift(report, bench, operator)
    published_port(report, bench, operator, image_name)
    secrets(report, bench)
    sasl(report, bench, operator)


def logins(report: Report, bench: Bench, stage: str) -> None:
    """SSH keys only, no root."""
    with report.check(f"{stage}: password login refused on all four, for the user and for root"):
        for machine in bench.table.machines.values():
            for user in ("ubuntu", "root"):
                offered = authentication_methods(machine.ip, user)
                expect(offered == ["publickey"], f"{machine.name} offers {user} {offered}")
    with report.check(f"{stage}: root login refused even with a key"):
        for name, machine in bench.table.machines.items():
            public = bench.key.with_suffix(".pub").read_text()
            bench.inside(
                name,
                "sh",
                "-c",
                (
                    f"mkdir -p /root/.ssh && echo '{public}' > /root/.ssh/authorized_keys && chmod "
                    "-R go= /root/.ssh"
                ),
            )
            said = run(["ssh", *bench.ssh_options, f"root@{machine.ip}", "id"], check=False).stdout
            expect("Permission denied" in said, f"{name}: {said}")
            bench.inside(name, "rm", "-r", "/root/.ssh")


def reachability(report: Report, bench: Bench, when: str) -> None:
    """The flow table against real connections, with a listener on every port that has no
    service."""
    with report.check(f"{when}: exactly the flow table's flows are open"):
        ports = [*bench.table.ports, *reach.CLOSED_PORTS]
        with reach.listeners(bench, ports):
            seen = reach.observe(bench, ports)
        report.say(f"{len(seen)} connections tried; open:\n{reach.draw(bench.table, seen)}")
        wrong = matrix.differences(bench.table.allowed, seen)
        expect(not wrong, "; ".join(wrong))


def containers(report: Report, bench: Bench) -> None:
    """Every container: not root, nothing writable but volumes and tmpfs, no capabilities, no
    published port."""
    with report.check(
        "CA0: containers are non-root, read-only, without capabilities, and publish no port"
    ):
        for name in bench.table.machines:
            ids = bench.inside(name, "docker", "ps", "-q").split()
            expect(bool(ids), f"{name} runs no container")
            for facts in json.loads(bench.inside(name, "docker", "inspect", *ids)):
                host, what = facts["HostConfig"], f"{name} {facts['Name']}"
                expect(host["ReadonlyRootfs"], f"{what}: root file system is writable")
                expect(
                    host["CapDrop"] == ["ALL"] and not host["CapAdd"],
                    f"{what}: capabilities {host['CapDrop']} {host['CapAdd']}",
                )
                expect(
                    not host["PortBindings"] and host["NetworkMode"] == "host",
                    f"{what}: publishes {host['PortBindings']}",
                )
                expect(host["Memory"] > 0, f"{what}: no memory limit")
                status = bench.inside(name, "cat", f"/proc/{facts['State']['Pid']}/status")
                fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
                expect("0" not in fields["Uid"].split(), f"{what}: runs as uid {fields['Uid']}")
                expect(
                    int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"] == "1",
                    f"{what}: CapEff {fields['CapEff']}",
                )
                report.say(
                    f"{what}: uid {fields['Uid'].split()[0]}, no capabilities, read-only, "
                    f"{host['Memory'] >> 20} MiB"
                )


def firewall_drift(report: Report, bench: Bench, operator: Operator) -> None:
    """A rule that someone added by hand is found and removed; a second bootstrap changes
    nothing."""
    with report.check("CA0: a second bootstrap changes nothing"):
        output = operator.do("make -C CA0 bootstrap")
        expect("changed:" not in output, output)
    with report.check(
        "CA0: a firewall rule added by hand, and one removed, are found by doctor and repaired by "
        "bootstrap"
    ):
        bench.inside("vm2-mongo", "ufw", "allow", "27017/tcp")
        bench.inside(
            "vm1-kafka",
            "ufw",
            "--force",
            "delete",
            "allow",
            "from",
            "10.0.1.14",
            "to",
            "any",
            "port",
            "9092",
            "proto",
            "tcp",
        )
        for name in ("vm2-mongo", "vm1-kafka"):
            said = operator.do(f"make -C CA0 doctor-{name}", check=False)
            expect("WRONG not so: UFW holds exactly" in said, said)
        output = operator.do("make -C CA0 bootstrap")
        expect(output.count("changed:") >= 2, output)
        said = operator.do("make -C CA0 doctor")
        expect("WRONG" not in said, said)
    reachability(report, bench, "CA0, after the repair")


def published_port(report: Report, bench: Bench, operator: Operator, image_name: str) -> None:
    """Why these compose files use host networking: a port that Docker publishes is reachable
    although UFW denies it."""
    name, ip = "vm3-processor", bench.table.machines["vm3-processor"].ip
    serve = [
        "--name",
        "bypass",
        "--entrypoint",
        "python",
        image_name,
        "-m",
        "http.server",
        str(_BYPASS_PORT),
    ]

    def reachable() -> bool:
        from_neighbour = [
            "nsenter",
            "--net=/run/netns/gtv-outsider",
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-m",
            "2",
            f"http://{ip}:{_BYPASS_PORT}/",
        ]
        for _ in range(5):
            if run(from_neighbour, check=False).returncode == 0:
                return True
            time.sleep(1)  # the server may not listen yet
        return False

    with report.check(
        "CA0: a published Docker port would bypass UFW, and doctor says so; with host networking "
        "it cannot"
    ):
        try:
            bench.inside(
                name,
                "docker",
                "run",
                "-d",
                "--rm",
                "-p",
                f"{ip}:{_BYPASS_PORT}:{_BYPASS_PORT}",
                *serve,
            )
            expect(reachable(), "the published port was not reachable: is this check still needed?")
            said = operator.do(f"make -C CA0 doctor-{name}", check=False)
            expect("publish ports around UFW" in said, said)
        finally:
            bench.inside(name, "docker", "rm", "-f", "bypass", check=False)
        try:
            bench.inside(name, "docker", "run", "-d", "--rm", "--network", "host", *serve)
            expect(not reachable(), "with host networking a neighbour reached the port")
        finally:
            bench.inside(name, "docker", "rm", "-f", "bypass", check=False)


def secrets(report: Report, bench: Bench) -> None:
    """No machine holds a secret that it does not use."""
    with report.check("CA0: each machine's .env is private and holds only what its containers use"):
        allowed = {
            "vm1-kafka": {"KAFKA_CLIENT_PASSWORD"},
            "vm2-mongo": {"MONGO_ROOT_PASSWORD", "MONGO_APP_PASSWORD"},
            "vm3-processor": {"MONGO_APP_PASSWORD"},
            "vm4-producers": set(),
        }
        for name, may_hold in allowed.items():
            pairs = [
                line.partition("=")
                for line in bench.ssh(name, f"cat {_HOME}/{name}/.env").splitlines()
            ]
            held = {variable for variable, _, value in pairs if "PASSWORD" in variable and value}
            expect(held == may_hold, f"{name} holds {sorted(held)}")
            mode = bench.ssh(name, f"stat -c %a {_HOME}/{name}/.env").strip()
            expect(mode == "600", f"{name}: .env has mode {mode}")


def sasl(report: Report, bench: Bench, operator: Operator) -> None:
    """Kafka with user and password: one setting, and the pipeline goes on; a wrong password gets
    nothing."""
    with report.check(
        "CA0: Kafka with SASL (SCRAM-SHA-512) switched on, wrong password refused, pipeline "
        "verified again"
    ):
        settings = operator.folder / "CA0/settings.env"
        settings.write_text(settings.read_text() + "KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT\n")
        operator.do("make -C CA0 sync up", timeout_seconds=420)
        command = (
            "sudo docker compose -p gpu-tokens run --rm -T --no-deps -e KAFKA_SASL_PASSWORD=wrong "
            "topics topics create"
        )
        said = bench.ssh(
            "vm3-processor",
            f"cd {_HOME}/vm3-processor && timeout 40 {command}; echo exit $?",
            check=False,
        )
        expect("exit 0" not in said, f"a wrong password was accepted: {said}")
        broker = bench.inside("vm1-kafka", "docker", "logs", "--tail", "500", "gpu-tokens-kafka-1")
        expect(
            "Failed authentication with /10.0.1.13" in broker,
            f"refused, but not for its password: {said}",
        )
        report.say(_last(operator.do("make -C CA0 verify", timeout_seconds=420)))


def down(report: Report, bench: Bench, operator: Operator) -> None:
    """`make down` leaves no container, and the data."""
    with report.check("CA0: make down stops everything and keeps the data"):
        operator.do("make -C CA0 down")
        for name in bench.table.machines:
            left = bench.inside(name, "docker", "ps", "-aq").split()
            expect(not left, f"{name}: containers left: {left}")
        volumes = bench.inside("vm2-mongo", "docker", "volume", "ls", "-q")
        expect("gpu-tokens_data" in volumes, volumes)


def _last(output: str, lines: int = 12) -> str:
    return "\n".join(["", *(f"    {line}" for line in output.strip().splitlines()[-lines:])])
