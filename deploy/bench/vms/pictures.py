"""What the documents of CA0 and CA1 show of a run: CA0's tour as a recording, its screens, and the
dashboard. (Last screens of single commands: `Operator.shown`.)"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.bench.report import NotChecked, Report, expect
from deploy.bench.sessions import Recorder, screens
from deploy.bench.shell import wait
from deploy.bench.vms.machines import Bench
from deploy.bench.vms.workstation import Operator
from deploy.flows import ROOT

TOUR = "CA0/demo/tour.sh"
QUERY = "/opt/gpu-tokens/vm2-mongo/query.sh"
# the tour's screens, in order
TOUR_SCREENS = ("topic", "processor", "document", "request", "report", "smoke-test")
_SECONDS = (40, 180)  # a tour is watched: neither a flash nor a film
_SIZE = (1440, 900)
# by stage: pictures of the dashboard, and the address of each
_PAGES = {
    "CA0": {"dashboard": "/?range=15m", "dashboard-gpus": "/gpus"},
    "CA1": {"dashboard": "/?range=15m"},
}


def tour(report: Report, bench: Bench, operator: Operator, recorder: Recorder) -> None:
    """Records CA0's tour, and draws it: moving, and each screen of it. Needs CA0's machines with
    everything running."""
    with report.check("CA0: the tour is recorded, and tells nothing of where"):
        wait(lambda: _has_a_final_request(bench), 300, "no request is two minutes old")
        cast = bench.folder / "tour.cast"
        said = recorder.record(TOUR, cast, cwd=operator.folder, env=operator.env)
        expect(", 0 failed" in said and '"price_row"' in said, said[-2000:])
        _looking, *shown = screens(cast)
        length = shown[-1] if shown else 0.0
        expect(_SECONDS[0] < length < _SECONDS[1], f"the tour took {length:.0f} s")
        expect(len(shown) == len(TOUR_SCREENS), f"{len(shown)} screens, not {len(TOUR_SCREENS)}")
        recorder.film(cast, ROOT / "CA0/demo/tour.svg")
        for name, at in zip(TOUR_SCREENS, shown, strict=True):
            recorder.still(cast, ROOT / f"CA0/docs/images/{name}.svg", at)
        shutil.copy(cast, ROOT / "CA0/demo/tour.cast")
        report.say(f"recorded: {length:.0f} s, {len(shown)} screens")


def _has_a_final_request(bench: Bench) -> bool:
    """Whether the tour would not have to wait for one."""
    code = "print(db.token_usage.countDocuments({ts: {$lt: new Date(Date.now() - 120000)}}))"
    said = bench.inside("vm2-mongo", "env", "DOCKER=docker", QUERY, code, check=False)
    return said.strip().splitlines()[-1:] not in ([], ["0"])


def dashboard(report: Report, bench: Bench, stage: str) -> None:
    """The dashboard that vm3 serves, in a browser of the operator's, with a key of `make key`."""
    with report.check(f"{stage}: the dashboard of vm3 in a browser"):
        browser = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
        if browser is None:
            raise NotChecked("this machine lacks Chromium (apt-get install chromium)")
        name = "vm3-processor"
        said = bench.ssh(name, f"make -s -C /opt/gpu-tokens/{name} key NAME=pictures")
        key = re.search(r"gta_[\w-]+", said)
        expect(key is not None, said)
        address = f"http://{bench.table.machines[name].ip}:8081"
        folder = ROOT / f"{stage}/docs/images"
        _photograph(browser, address, key[0] if key else "", _PAGES[stage], folder)


def _photograph(
    browser: str, address: str, key: str, pages: Mapping[str, str], folder: Path
) -> None:
    from playwright.sync_api import sync_playwright  # only where pictures are taken

    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu", "--no-proxy-server"]
        )
        try:
            width, height = _SIZE
            page = opened.new_page(
                viewport={"width": width, "height": height},
                reduced_motion="reduce",
                color_scheme="light",
                timezone_id="UTC",
            )
            page.goto(f"{address}/?range=15m")
            page.fill("#key-input", key)
            page.keyboard.press("Enter")
            for name, path in pages.items():
                page.wait_for_selector("#where")
                page.goto(f"{address}{path}")
                page.wait_for_selector("main[aria-busy=false]")
                page.wait_for_timeout(1_500)  # the stream's first figures
                page.screenshot(path=folder / f"{name}.png")
        finally:
            opened.close()
