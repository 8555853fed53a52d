"""The generated part of docs/api.md: `python -m gpu_token_analytics.api.reference` rewrites it; a
test keeps it current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_token_analytics.api.errors import CODES
from gpu_token_analytics.api.route import Access
from gpu_token_analytics.api.routes import ROUTES

BEGIN, END = "<!-- generated: routes -->", "<!-- end of generated -->"


def generated(document: dict[str, Any]) -> str:
    """Routes with their parameters, and the error codes, as Markdown. document: the OpenAPI
    document."""
    lines = [BEGIN, "", "| route | scope | tenant keys | answers |", "|---|---|---|---|"]
    for route in ROUTES:
        scope = (
            "none"
            if route.access is Access.PUBLIC
            else "any key"
            if route.access is Access.ANY_KEY
            else route.access
        )
        tenant = "yes" if route.tenant_keys or route.access is Access.PUBLIC else "403"
        lines.append(f"| `{route.method} {route.path}` | {scope} | {tenant} | {route.summary} |")
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        parameters = operation.get("parameters", [])
        lines += [
            "",
            f"### {route.method} {route.path}",
            "",
            *_paragraph(operation.get("description", route.summary)),
        ]
        if parameters:
            lines += ["", "| parameter | | meaning |", "|---|---|---|"]
            lines += [_parameter(parameter) for parameter in parameters]
    lines += ["", "## Errors", "", "| code | status | title |", "|---|---|---|"]
    lines += [f"| `{code}` | {status} | {title} |" for code, (status, title) in CODES.items()]
    return "\n".join([*lines, "", END])


def _paragraph(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    default = schema.get("default")
    need = "optional" if default in (None, []) else f"default `{default}`"
    need = "required" if parameter["required"] else need
    meaning = parameter.get("description") or schema.get("description", "")
    return f"| `{parameter['name']}` | {need} | {' '.join(meaning.split())} |"


def replaced(page: str, document: dict[str, Any]) -> str:
    """`page` with its generated part made anew. Raises ValueError when the markers are missing."""
    head, _, rest = page.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise ValueError(f"docs/api.md lacks {BEGIN} ... {END}")
    return head + generated(document) + tail


def main() -> None:
    """Rewrite docs/api.md of this checkout."""
    from gpu_token_analytics.api.app import document

    path = Path(__file__).parents[3] / "docs" / "api.md"
    path.write_text(replaced(path.read_text(), document()))


if __name__ == "__main__":
    main()
