"""The dashboard: static files that read /v1 in the browser, served by the `api` process.

May import nothing of the package: what it shows it asks for over HTTP, as everybody does.

    mount(app)    adds the pages (PAGES, each one level deep, so the whole works under any path
                  prefix) and their assets

Nothing here reads data: the page has no private door. It is plain HTML, CSS and ES modules without
a build step: what is served is what is read here, and nothing has to be installed to change it
(decision 10).
"""

from gpu_token_analytics.web.mount import ASSETS_PATH, CONTENT_SECURITY_POLICY, PAGES, mount

__all__ = ["ASSETS_PATH", "CONTENT_SECURITY_POLICY", "PAGES", "mount"]
