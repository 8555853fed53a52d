"""The case usage-names-as-markup.ndjson through the whole product: every name is shown as it is,
and nothing in it acts."""

from __future__ import annotations

import csv
import io
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect
from tests.e2e.dashboard_support import watched
from tests.integration.ledger_support import Pipeline, sample
from tests.serving import serving
from typer.testing import CliRunner

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.cli import app
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.settings import load
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.usage import TokenUsage

SHARED = (
    Path(os.environ.get("GPU_TOKENS_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
    / "cases"
)
FROM, TO = "2026-11-29T07:00Z", "2026-11-29T08:00Z"
MODELS = ("[/INST]", "org/[exp]-model", "llama3:key:1", "m", "<img src=x onerror=alert(1)>", "=1+1")
TENANT = "x\\x1b[2J\\x1b]0;title\\x07"  # as it is shown
REQUEST_ID = "a\nb"


@dataclass
class Shown:
    """The ledger of the case, and who shows it."""

    url: str
    environment: dict[str, str]

    def command(self, *arguments: str) -> str:
        """What a command prints."""
        found = CliRunner().invoke(
            app, [*arguments, "--from", FROM, "--to", TO], env=self.environment
        )
        assert found.exit_code == 0, (found.output, found.exception)
        return found.stdout


@pytest.fixture(scope="module")
def shown(mongod: EmbeddedMongod) -> Iterator[Shown]:
    path = SHARED / "usage-names-as-markup.ndjson"
    if not path.is_file():
        pytest.skip(f"{path} is not there; GPU_TOKENS_SHARED_DATA names the folder it is in")
    name = f"test_{uuid.uuid4().hex[:16]}"
    one = Pipeline(mongod.uri, name, silent_gpu_owned_minutes=0)
    try:
        events = [decode(line) for line in path.read_bytes().splitlines()]
        first = next(event for event in events if isinstance(event, TokenUsage))
        own = {"event_id": "own", "model": MODELS[-2]}, {"event_id": "formula", "model": MODELS[-1]}
        values = {field: getattr(first, field) for field in first.__struct_fields__}
        events += [TokenUsage(**{**values, **each}) for each in own]
        one.ingest([*events, sample(1, first.ts, host=first.host, source="replay")])
        one.close()
        rollups = Rollups(RollupStore(one.store.database))
        while rollups.step_now():
            pass
        settings = load(
            mongodb_uri=mongod.uri, mongodb_database=name, api_allow_anonymous_loopback=True
        )
        with serving(create_app(Services.of(one.store, settings, loopback_only=True))) as url:
            yield Shown(
                url, {"MONGODB_URI": mongod.uri, "MONGODB_DATABASE": name, "COLUMNS": "250"}
            )
    finally:
        one.store.client.drop_database(name)
        one.store.close()


def test_a_terminal_shows_every_name_and_none_acts(shown: Shown) -> None:
    for group, names in (("model", MODELS), ("tenant", (TENANT, "default"))):
        text = shown.command("report", "--by", group)
        for name in names:
            assert name in text
        assert all(character.isprintable() or character == "\n" for character in text)


def test_a_csv_has_every_name_and_no_formula(shown: Shown) -> None:
    rows = list(csv.DictReader(io.StringIO(shown.command("export", "--by", "model,tenant"))))
    assert {row["model"] for row in rows if row["model"]} == {*MODELS[:-1], "'=1+1"}
    assert TENANT in {row["tenant"] for row in rows}


@pytest.mark.browser
def test_a_page_shows_every_name_and_none_acts(browser: Browser, shown: Shown) -> None:
    span = f"from={FROM}&to={TO}"
    with watched(browser, shown.url) as dashboard:
        dashboard.page.on(
            "dialog", lambda dialog: dashboard.troubles.append(f"a dialog opened: {dialog.message}")
        )
        for path, names in (("/models", MODELS), ("/tenants", (TENANT,))):
            page = dashboard.open(f"{path}?{span}")
            for name in names:
                expect(page.locator("main")).to_contain_text(name)
            assert page.locator("main img").count() == 0
            assert "title" not in page.title()
            raw = page.locator("main").inner_text()
            assert not [
                character for character in raw if ord(character) < 32 and character not in "\n\t"
            ]
        page = dashboard.open(f"/request?id={quote(REQUEST_ID, safe='')}&{span}")
        # its id has a line feed in it, and opens
        expect(page.locator("#cost-0")).to_contain_text("$0.000337")
