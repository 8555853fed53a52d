"""Every file that comes from the table, with the text it must have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.sites import documents, envoy, kubernetes, stores, terraform
from deploy.sites.table import ROOT, Role, SiteTable

_NOTE = "# Written by `make sites-files` from deploy/sites.yaml: change it there.\n"
STAGE = ROOT / "CA4"


class _Plain(yaml.SafeDumper):
    """No anchors: whoever reads a generated file should not have to look things up in it."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def as_yaml(document: Any) -> str:
    """A document as block YAML, in its own order."""
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120)


def files(table: SiteTable) -> Iterator[tuple[Path, str]]:
    """Path and text of each file."""
    for site in table.sites.values():
        folder = STAGE / "envoy" / site.name
        yield folder / "envoy.yaml", _NOTE + as_yaml(envoy.bootstrap(table, site))
        for kind, resources in (
            ("listeners", envoy.listeners(table, site)),
            ("clusters", envoy.clusters(table, site)),
        ):
            yield folder / f"{kind}.yaml", _NOTE + as_yaml(envoy.discovery(kind, resources))
        objects = "---\n".join(as_yaml(manifest) for manifest in kubernetes.manifests(table, site))
        yield (
            STAGE / "kubernetes" / f"istio-{site.name}.yaml",
            _NOTE + "# Checked by schema, not run.\n" + objects,
        )
        if site.role is not Role.VOTER:
            lines = "".join(
                f"{name}={value}\n" for name, value in stores.settings(table, site).items()
            )
            yield STAGE / f"site-{site.name}.env", _NOTE + lines
    yield (
        STAGE / "mirror" / "active-passive.properties",
        _NOTE + stores.mirror(table, both_ways=False),
    )
    yield (
        STAGE / "mirror" / "active-active.properties",
        _NOTE + stores.mirror(table, both_ways=True),
    )
    yield STAGE / "mongodb" / "replica-set.json", stores.replica_set(table)
    yield STAGE / "terraform" / "sites.tf", _NOTE + terraform.configuration(table)
    by_name = documents.tables(table)
    for path in sorted(STAGE.rglob("*.md")):
        text = path.read_text()
        if documents.BLOCK.search(text):
            yield path, documents.with_tables(text, by_name)


def stale(table: SiteTable) -> list[Path]:
    """The files that differ from what the table says."""
    return [path for path, text in files(table) if not path.exists() or path.read_text() != text]


def write(table: SiteTable) -> list[Path]:
    """Writes what differs; returns it."""
    changed = stale(table)
    for path, text in files(table):
        if path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return changed
