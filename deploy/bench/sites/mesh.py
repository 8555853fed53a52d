"""The mesh: who may call what as whom, and what happens when certificates, configurations and
servers change under traffic.

Stand-in servers answer here, so that a wrong gateway cannot hide behind a server that refuses;
drill.py has the real ones.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.bench.report import Report, expect
from deploy.bench.shell import run, wait
from deploy.bench.sites import identity, network
from deploy.bench.sites.gateways import Gateways
from deploy.bench.sites.processes import Processes
from deploy.sites.envoy import API_CLUSTER
from deploy.sites.table import LOOPBACK, ROOT, SERVER_IDENTITY, Kind, Service, Site, SiteTable
from deploy.sites.written import as_yaml

_PEER = [sys.executable, "-m", "deploy.bench.sites.peer"]
_SPARE_PORT = 18_999


@dataclass(frozen=True)
class Caller:
    """Somebody with a certificate, or without; `at` is the site whose namespace he calls from."""

    name: str
    at: str
    certificate: tuple[Path, Path] | None = None


class Mesh:
    """The gateways of a running bench, with stand-in servers behind them."""

    def __init__(
        self, table: SiteTable, folder: Path, processes: Processes, gateways: Gateways
    ) -> None:
        self.table = table
        self.folder = folder
        self.processes = processes
        self.gateways = gateways
        self.authorities = gateways.authorities

    def run_checks(self, report: Report) -> None:
        """Everything; the gateways are as before when it is over."""
        with self._stand_ins():
            with report.check("mesh: who may call what as whom: the whole matrix"):
                self._matrix(report)
            with report.check(
                "mesh: no certificate, a foreign domain, an expired one, one that another site's "
                "authority forged"
            ):
                self._strangers(report)
            with report.check(
                "mesh: one bundle of all authorities lets a site forge another's identity: bundles "
                "per domain do not"
            ):
                self._one_bundle(report)
            with report.check("mesh: certificates rotate under traffic, no connection ends"):
                self._rotation(report)
            with report.check(
                "mesh: a new listener is taken without a restart, a broken file is refused and "
                "traffic goes on"
            ):
                self._reload(report)
            with report.check(
                "mesh: an API that answers 500 is ejected, one that is gone is passed over, both "
                "take part again"
            ):
                self._api(report)

    @contextmanager
    def _stand_ins(self) -> Iterator[None]:
        names = {site: f"stand-ins-{site}" for site in self.table.sites}
        try:
            for site, name in names.items():
                self._serve(site, name)
            yield
        finally:
            for name in names.values():
                self.processes.kill(name)

    def _serve(self, site: str, name: str) -> None:
        self.processes.start(
            name,
            site,
            [*_PEER, "serve", site, str(self.folder)],
            cwd=ROOT,
            ready=lambda log: "serving" in log,
            timeout_seconds=60,
        )

    # Who may call what

    def _matrix(self, report: Report) -> None:
        allowed = refused = 0
        wrong = []
        for site in self.table.sites.values():
            callers = [self._caller(site, name) for name in [*self.table.identities, "intruder"]]
            cases = [
                (caller, service) for caller in callers for service in self.table.services.values()
            ]
            for (caller, service), result in zip(cases, self._call(site.name, cases), strict=True):
                may = site.identity(caller.name) in self.table.callers(service.name)
                answered = service.name in result.get("answer", "")
                allowed, refused = allowed + answered, refused + ("refused" in result)
                if may is not answered:
                    wrong.append(
                        f"{site.identity(caller.name)} to {service.name}: {result}, the table says "
                        f"{may}"
                    )
        report.say(f"{allowed} calls answered, {refused} refused, of {allowed + refused}")
        expect(not wrong, "; ".join(wrong[:5]))
        expect(
            allowed == len(self.table.calls),
            f"{allowed} answered, the table has {len(self.table.calls)} calls",
        )
        denied = self.gateways.stat("a", "kafka-a.rbac.denied")
        expect(denied > 0, "site A's gateway counted no denied caller of kafka-a")

    def _strangers(self, report: Report) -> None:
        """Each with an id that is allowed, so that only the certificate can be what is refused."""
        wrong, tried = [], 0
        for service in self.table.services.values():
            call = next((c for c in self.table.calls if c.service == service.name), None)
            if call is None:
                continue
            victim = self.table.sites[call.source]
            home = self.table.sites[service.site]
            spiffe_id = victim.identity(call.identity)
            foreign = Site(**{**vars(victim), "trust_domain": "elsewhere.example"})
            name = f"stranger-{service.name}"
            expired = self.authorities.sign(victim, spiffe_id, f"{name}-x", days=-1)
            elsewhere = self._sign(victim, foreign.identity(call.identity), f"{name}-f")
            forged = self._sign(home, spiffe_id, f"{name}-o")
            borrowed = self._sign(victim, home.identity(SERVER_IDENTITY), f"{name}-i")
            cases = [
                (Caller("no certificate", victim.name), service),
                (Caller("expired", victim.name, expired), service),
                (Caller("foreign domain", victim.name, elsewhere), service),
                (Caller(f"forged by {home.name}'s authority", victim.name, forged), service),
                (Caller("another's id, own authority", victim.name, borrowed), service),
            ]  # fmt: skip
            for (caller, _), result in zip(cases, self._call(victim.name, cases), strict=True):
                tried += 1
                if "refused" not in result:
                    wrong.append(f"{caller.name} to {service.name}: {result}")
        report.say(f"{tried} strangers tried, {tried - len(wrong)} refused")
        expect(not wrong, "; ".join(wrong[:5]))

    def _one_bundle(self, report: Report) -> None:
        a, b = self.table.sites["a"], self.table.sites["b"]
        service = self.table.services["mongo-1"]
        real = Caller("real", "b", self._sign(b, b.identity("store"), "real-b"))
        forged = Caller("forged", "b", self._sign(a, b.identity("store"), "forged-b"))
        at = self.gateways.folder("a")

        def answered(caller: Caller) -> bool:
            return "answer" in self._call("b", [(caller, service)])[0]

        expect(
            answered(real) and not answered(forged),
            "before: the real one is refused, or the forged one believed",
        )
        identity.replace_peers(at, self.authorities.peers_in_one_bundle())
        try:
            wait(
                lambda: answered(forged),
                30,
                "with one bundle the forged identity is still refused: this check shows nothing",
            )
            report.say(
                "one bundle of all authorities: a certificate that A's authority made out to B is "
                "believed"
            )
        finally:
            identity.replace_peers(at, self.authorities.peers())
        wait(
            lambda: not answered(forged),
            30,
            "with a bundle per domain the forged identity is believed",
        )
        expect(answered(real), "with a bundle per domain the real identity is refused")

    # Changes under traffic

    def _rotation(self, report: Report) -> None:
        service = self.table.services["kafka-a"]
        a, b = self.table.sites["a"], self.table.sites["b"]
        (self.folder / "stop").unlink(missing_ok=True)
        self.processes.start(
            "keep", "b", [*_PEER, "keep", str(service.port), str(self.folder)], cwd=ROOT
        )
        asking = [(self._caller(b, "mirror"), service)]
        before = self._call("b", asking)[0].get("shown")
        began = time.monotonic()
        self.authorities.rotate(a, SERVER_IDENTITY, self.gateways.folder("a"))
        self.authorities.rotate(b, "mirror", self.gateways.folder("b"))
        wait(
            lambda: self._call("b", asking)[0].get("shown") not in (None, before),
            30,
            "the old certificate is still shown",
        )
        report.say(
            f"the new certificate is shown {time.monotonic() - began:.1f} s after the file was "
            "renamed, asking included"
        )
        time.sleep(1)
        expect(
            self.processes.running("keep"),
            f"the open connection ended: {self.processes.tail('keep')}",
        )
        (self.folder / "stop").touch()
        wait(lambda: not self.processes.running("keep"), 20, "the open connection hangs")
        used = self.processes.log("keep").strip().splitlines()[-1]
        expect(used.isdigit() and int(used) > 5, f"the open connection: {used}")
        report.say(f"one connection from B to A was used {used} times meanwhile")

    def _reload(self, report: Report) -> None:
        listeners = yaml.safe_load((self.gateways.folder("b") / "listeners.yaml").read_text())
        spare = next(item for item in listeners["resources"] if item["name"] == "kafka-a")
        more = json.loads(json.dumps(spare)) | {"name": "spare"}
        more["address"]["socket_address"]["port_value"] = _SPARE_PORT
        expect(
            self._says("b", _SPARE_PORT) == "", "the spare port answers before there is a listener"
        )
        try:
            self.gateways.replace(
                "b", "listeners.yaml", as_yaml({"resources": [*listeners["resources"], more]})
            )
            wait(
                lambda: "kafka-a" in self._says("b", _SPARE_PORT),
                30,
                "the new listener does not answer",
            )
            nonsense = more | {"filter_chains": [{"filters": [{"name": "no.such.filter"}]}]}
            for what, text, counter in (
                (
                    "a filter that does not exist",
                    as_yaml({"resources": [*listeners["resources"], nonsense]}),
                    "rejected",
                ),
                ("half a file", as_yaml(listeners)[:2000] + "\n  {", "failure"),
            ):
                self._refused(report, what, text, f"listener_manager.lds.update_{counter}")
        finally:
            self.gateways.restore("b", "listeners.yaml")
        wait(lambda: self._says("b", _SPARE_PORT) == "", 30, "the spare listener is still there")

    def _refused(self, report: Report, what: str, text: str, counter: str) -> None:
        before = self.gateways.stat("b", counter)
        self.gateways.replace("b", "listeners.yaml", text)
        wait(lambda: self.gateways.stat("b", counter) > before, 30, f"{what} was not refused")
        report.say(f"{what}: {counter} went from {before} to {self.gateways.stat('b', counter)}")
        for port in (_SPARE_PORT, self.table.services["kafka-a"].port):
            expect(
                "kafka-a" in self._says("b", port), f"traffic on port {port} stopped with {what}"
            )

    def _api(self, report: Report) -> None:
        here = f"{LOOPBACK}:{self.table.the('a', Kind.API).port}"
        self._await_api("a", "api-a")
        failing = self.folder / "fail-a"
        failing.touch()
        try:
            answers = [self._ask_api_beside_healthy("a", here) for _ in range(12)]
            ok = sum("200" in answer for answer in answers)
            expect(
                ok == len(answers),
                f"{ok} of {len(answers)} were 200 while A's API answers 500: {answers}",
            )
            expect(all("api-b" in answer for answer in answers), f"answered by {answers}")
            wait(
                lambda: self.gateways.hosts_of("a", API_CLUSTER)[here] == "ejected",
                20,
                "the failing API is not ejected",
            )
        finally:
            failing.unlink()
        report.say("A's API answers 500: 12 of 12 calls were 200 (from B), and it was ejected")
        self._await_api("a", "api-a")
        self.processes.kill("stand-ins-a")
        began = time.monotonic()
        self._await_api("a", "api-b")
        report.say(f"A's API gone: B answers after {time.monotonic() - began:.1f} s")
        self._serve("a", "stand-ins-a")
        began = time.monotonic()
        self._await_api("a", "api-a")
        report.say(f"A's API back: A answers after {time.monotonic() - began:.1f} s")

    def _ask_api_beside_healthy(self, site: str, here: str) -> str:
        """One call, made when the site's Envoy holds the other site's API for healthy.

        On a busy machine a health check may time out; with no healthy host at all Envoy asks any
        (its panic mode).
        """
        wait(
            lambda: all(
                health == "healthy"
                for address, health in self.gateways.hosts_of(site, API_CLUSTER).items()
                if address != here
            ),
            30,
            f"the other site's API is not healthy for {site}",
        )
        return self._ask_api(site)

    def _await_api(self, site: str, service: str) -> None:
        wait(lambda: service in self._ask_api(site), 40, f"{service} does not answer at {site}")

    def _ask_api(self, site: str) -> str:
        url = f"http://{LOOPBACK}:{self.table.api.port}/v1/any"
        return run(
            network.inside(site, "curl", "-s", "-m", "8", "-w", " %{http_code}", url), check=False
        ).stdout

    def _says(self, site: str, port: int) -> str:
        """What a loopback port of a site answers; empty when nothing does."""
        script = f"exec 3<>/dev/tcp/{LOOPBACK}/{port} && echo hello >&3 && timeout 5 head -1 <&3"
        done = run(network.inside(site, "bash", "-c", script), check=False)
        return done.stdout if done.returncode == 0 else ""

    # Calls with any certificate

    def _caller(self, site: Site, name: str) -> Caller:
        return Caller(
            name, site.name, self._sign(site, site.identity(name), f"caller-{site.name}-{name}")
        )

    def _sign(self, site: Site, spiffe_id: str, name: str) -> tuple[Path, Path]:
        if (self.authorities.folder / f"{name}.pem").exists():
            return self.authorities.folder / f"{name}.pem", self.authorities.folder / f"{name}.key"
        return self.authorities.sign(site, spiffe_id, name)

    def _call(self, site: str, cases: list[tuple[Caller, Service]]) -> list[dict[str, str]]:
        lines = [json.dumps(self._case(caller, service)) for caller, service in cases]
        done = run(
            network.inside(site, *_PEER, "call"),
            stdin="\n".join(lines) + "\n",
            cwd=ROOT,
            timeout_seconds=60 + 12 * len(cases),
        )
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def _case(self, caller: Caller, service: Service) -> dict[str, Any]:
        certificate, key = caller.certificate or (None, None)
        return {
            "address": self.table.sites[service.site].host_ip,
            "port": self.table.mesh.gateway_port,
            "server_name": self.table.mesh.server_name(service.name),
            "certificate": str(certificate) if certificate else None,
            "key": str(key) if key else None,
            "http": service.kind is Kind.API,
        }
