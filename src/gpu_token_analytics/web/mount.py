"""Adds the dashboard to the application: one page under several addresses, and its assets under the
digest of their content."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gpu_token_analytics.web.assets import Asset, digest, load

# One level deep each: relative links then work behind any proxy prefix. The page decides by its
# address what it shows.
PAGES = (
    "/",
    "/models",
    "/tenants",
    "/gpus",
    "/request",
    "/idle",
    "/budgets",
    "/break-even",
    "/prices",
    "/quality",
)
ASSETS_PATH = "/assets/{version}/{path:path}"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # addresses of pages hold request ids and tenants
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REVALIDATE = "no-cache"
_FOREVER = "public, max-age=31536000, immutable"


def mount(app: FastAPI) -> None:
    """Serve the dashboard from `app`. The pages and assets are public: they hold no data; /v1 asks
    for the key."""
    assets = load()
    version = digest(assets)
    page = _page(assets, version)

    async def index(request: Request) -> Response:
        return _answer(request, page, _REVALIDATE)

    def not_found(request: Request) -> Response:
        # Relative, as everywhere: out of as many folders as the address seems to be in.
        root = "../" * (request.url.path.count("/") - 1) or "./"
        text = (
            assets["not-found.html"]
            .body.decode()
            .replace("{{version}}", version)
            .replace("{{root}}", root)
        )
        return Response(
            text, 404, {**_HEADERS, "Cache-Control": "no-store"}, "text/html; charset=utf-8"
        )

    async def asset(request: Request) -> Response:
        shown = assets.get(request.path_params["path"])
        if shown is None or shown.path.endswith(".html"):
            raise HTTPException(404, "no such asset")
        # During a rolling upgrade a page of one version may ask a replica of another. It gets what
        # is there, uncached.
        return _answer(
            request, shown, _FOREVER if request.path_params["version"] == version else "no-store"
        )

    app.state.not_found_page = not_found
    for path in PAGES:
        app.add_route(path, index, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_route(ASSETS_PATH, asset, methods=["GET", "HEAD"], include_in_schema=False)


def _page(assets: dict[str, Asset], version: str) -> Asset:
    """index.html with the addresses of this version, and all modules named at once so that they
    load in one round trip."""
    source = assets["index.html"]
    modules = "\n".join(
        f'<link rel="modulepreload" href="assets/{version}/{path}">'
        for path in sorted(assets)
        if path.startswith("js/") and path != "js/theme.js"
    )
    text = source.body.decode().replace("{{version}}", version).replace("<!-- modules -->", modules)
    return Asset(source.path, text.encode(), source.media_type)


def _answer(request: Request, asset: Asset, caching: str) -> Response:
    headers = {**_HEADERS, "ETag": asset.etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    known = request.headers.get("if-none-match", "")
    if known == "*" or asset.etag in {tag.strip() for tag in known.split(",")}:
        return Response(status_code=304, headers=headers)
    body = asset.body
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = asset.gzipped
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=asset.media_type)
