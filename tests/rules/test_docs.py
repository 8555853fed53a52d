"""The documentation says what the code does: generated pages are up to date, links lead somewhere,
commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer._click.exceptions import UsageError  # of the Click that Typer brings

from gpu_token_analytics.api.routes import ROUTES
from gpu_token_analytics.cli import app
from gpu_token_analytics.settings import Settings

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
]
LINK = re.compile(r"(?<!`)\[[^\]`]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
# `-p gpu-tokens` is a project name of docker compose; "in gpu-tokens namespace" are words of
# kubectl.
COMMAND = re.compile(
    r"(?<!-n )(?<!-p )gpu-tokens (?!namespace\b)([a-z][a-z-]+)(?: ([a-z][a-z-]+))?"
)


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference_docs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [
        target
        for target in LINK.findall(page.read_text())
        if "://" not in target and not target.startswith("mailto:")
    ]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    known: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, subcommand in COMMAND.findall(page.read_text()):
        assert name in known, f"gpu-tokens has no command {name}"
        subcommands = getattr(known[name], "commands", None)
        if subcommands is not None and subcommand:
            assert subcommand in subcommands, f"gpu-tokens {name} has no command {subcommand}"


SCOPE_OF_ROUTE = re.compile(r"`(GET|POST) (/v1/[^`?]+)`[^.`]*(?:`/[^`]+`)?[^.`]*\(scope `(\w+)`\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_routes_need_the_scope_that_is_told(page: Path) -> None:
    needed = {(route.method, route.path): route.access.value for route in ROUTES}
    for method, path, scope in SCOPE_OF_ROUTE.findall(page.read_text()):
        assert needed[method, path] == scope, f"{method} {path} needs {needed[method, path]}"


def commands_of(page: Path) -> list[list[str]]:
    """The words of every `gpu-tokens` command line in the page's shell blocks, without comments and
    variables."""
    found = []
    for block in re.findall(
        r"^ *```(?:sh|bash|shell)\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL
    ):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||[|;]", re.sub(r"(^|\s)#.*", "", line)):
                match = re.match(r"^\s*(?:[A-Z_]+=\S*\s+)*gpu-tokens\s+(.*)", part)
                if match and "$(" not in part and "<" not in part and "..." not in part:
                    found.append(shlex.split(match[1].split(">")[0].rstrip("& ")))
    return found


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if commands_of(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_command_lines_are_as_the_commands_want_them(page: Path) -> None:
    """Every option and argument in a shell block is one of the command's; nothing is run."""
    for words in commands_of(page):
        command, rest, name = typer.main.get_command(app), words, "gpu-tokens"
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"{' '.join(words)}: {rest[0]} is no command"
            name, command, rest = rest[0], command.commands[rest[0]], rest[1:]
        if {"--help", "--version", "--install-completion"} & set(rest):
            continue  # these act while they are read
        try:
            command.make_context(name, list(rest))
        except UsageError as error:
            wrong = error.format_message()
        else:
            wrong = ""
        # a file of the reader's
        assert not wrong or "does not exist" in wrong, f"{' '.join(words)}: {wrong}"


def test_the_readme_is_short() -> None:
    assert 60 <= len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_does(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description, f"{name} has no description"
    assert description.endswith("."), f"{name}: a sentence, please"
