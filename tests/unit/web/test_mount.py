"""How the dashboard's files are served: types, caching, compression, what the browser may do with
them."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.serving import serving

from gpu_token_analytics import web
from gpu_token_analytics.api import errors
from gpu_token_analytics.web import assets as web_assets
from gpu_token_analytics.web.assets import digest, load

STATIC = Path(web.__file__).parent / "static"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    app = FastAPI()
    web.mount(app)
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False) as found:
        yield found


def _links(html: str) -> list[str]:
    return re.findall(r'(?:href|src)="(assets/[^"]+)"', html)


@pytest.mark.parametrize("path", web.PAGES)
def test_every_page_is_the_document_with_its_policy(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == web.CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


def test_the_policy_lets_nothing_in_from_elsewhere_and_no_inline_script() -> None:
    rules = dict(rule.split(" ", 1) for rule in web.CONTENT_SECURITY_POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["style-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in web.CONTENT_SECURITY_POLICY


def test_all_files_that_the_page_names_are_there_under_the_digest(client: httpx.Client) -> None:
    links = _links(client.get("/").text)
    version = digest(load())
    assert len(links) > 20
    for link in links:
        assert link.startswith(f"assets/{version}/")
        answer = client.get(f"/{link}")
        assert answer.status_code == 200, link
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        if link.endswith(".js"):
            assert answer.headers["content-type"].startswith("text/javascript")


def test_every_module_is_preloaded_and_every_import_exists() -> None:
    modules = {path for path in load() if path.startswith("js/")}
    for path in modules:
        for target in re.findall(r"from '([^']+)'", (STATIC / path).read_text()):
            resolved = (
                (STATIC / path).parent.joinpath(target).resolve().relative_to(STATIC.resolve())
            )
            assert str(resolved) in modules, f"{path} imports {target}"


def test_an_unchanged_file_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/")
    again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/", headers={"If-None-Match": 'W/"another"'})
    assert other.status_code == 200


def test_compressed_when_asked_and_equal_to_the_plain_one(client: httpx.Client) -> None:
    link = next(link for link in _links(client.get("/").text) if link.endswith("main.js"))
    plain = client.get(f"/{link}", headers={"Accept-Encoding": "identity"})
    packed = client.get(f"/{link}", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert packed.content == plain.content == (STATIC / "js/main.js").read_bytes()
    assert gzip.decompress(load()["js/main.js"].gzipped) == plain.content


def test_a_replica_of_another_version_is_served_but_not_cached(client: httpx.Client) -> None:
    answer = client.get("/assets/0000000000000000/js/main.js")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/x/js/none.js",
        "/assets/x/../mount.py",
        "/assets/x/%2e%2e/mount.py",
        "/assets/x/index.html",
        "/assets/x/",
    ],
)
def test_what_is_no_asset_is_not_found(client: httpx.Client, path: str) -> None:
    assert client.get(path, follow_redirects=True).status_code == 404


def test_head_has_the_headers_and_no_body(client: httpx.Client) -> None:
    answer = client.head("/models")
    assert (answer.status_code, answer.content) == (200, b"")
    assert "etag" in answer.headers


def test_the_digest_changes_with_any_file() -> None:
    files = load()
    before = digest(files)
    files["js/main.js"] = web_assets.Asset("js/main.js", b"changed", files["js/main.js"].media_type)
    assert digest(files) != before


def test_nothing_refers_to_another_origin_or_builds_markup_from_text() -> None:
    for path, asset in load().items():
        text = asset.body.decode()
        origins = set(re.findall(r"https?://[^\s'\"]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not origins, f"{path} names {origins}"
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", code
        ), path


def test_the_whole_dashboard_is_small() -> None:
    """What a first visit loads, compressed; a chart library alone would be ten times this."""
    assert sum(len(asset.gzipped) for asset in load().values()) < 100_000


@pytest.fixture
def with_problems() -> Iterator[httpx.Client]:
    """As in the api process: problems for programs, a page for people."""
    app = FastAPI()
    errors.install(app)
    web.mount(app)
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False) as found:
        yield found


@pytest.mark.parametrize("path", ["/modles", "/models/x", "/a/b/c"])
def test_a_wrong_page_in_the_browser_is_a_page_with_a_way_back(
    with_problems: httpx.Client, path: str
) -> None:
    answer = with_problems.get(
        path, headers={"accept": "text/html,application/xhtml+xml"}, follow_redirects=False
    )
    assert answer.status_code == 404
    assert answer.headers["content-security-policy"] == web.CONTENT_SECURITY_POLICY
    links = re.findall(r'(?:href|src)="([^"]+)"', answer.text)
    assert "{{" not in answer.text
    for link in links:
        assert with_problems.get(str(httpx.URL(path).join(link))).status_code == 200, link
    assert any(httpx.URL(path).join(link).path == "/" for link in links)


@pytest.mark.parametrize(
    ("path", "accept"),
    [("/v1/cost", "text/html"), ("/modles", "application/json"), ("/modles", "*/*")],
)
def test_a_program_gets_a_problem(with_problems: httpx.Client, path: str, accept: str) -> None:
    answer = with_problems.get(path, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
