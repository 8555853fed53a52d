"""Text that others wrote - names of models, tenants, hosts, messages that quote them - on its way
to people: one function for each kind of output. Stored and answered as JSON it stays as it came.

Characters that do something instead of showing something become escapes in words: a line feed
`\\n`, ESC `\\x1b`, a change of the writing direction `\\u202e`. So no name moves a cursor, sets a
title, forges a line of a log, or reads other than it is.
"""

from __future__ import annotations

import re

# C0, DEL and C1 controls; separators of lines and paragraphs; marks and overrides of direction; the
# byte-order mark; halves of surrogate pairs; what has no width and no part in any script (spaces,
# soft hyphens, fillers, invisible operators, annotations, tags): two names that look alike are two.
# Zero-width joiners stay: scripts and emoji are written with them.
_ACTS = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_ACTING = re.compile(f"[{_ACTS}]")
_ACTING_NOT_LINES = re.compile(f"(?![\n\t])[{_ACTS}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# A spreadsheet runs a text that starts like this as a formula (OWASP: CSV injection), full-width
# forms included.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")


def visible(text: str) -> str:
    """A name as it is shown: on one line, every character either itself or an escape that can be
    seen."""
    return _ACTING.sub(_escape, text)


def visible_lines(text: str) -> str:
    """A message of several lines, such as a traceback: its lines stay lines."""
    return _ACTING_NOT_LINES.sub(_escape, text)


def in_csv(text: str) -> str:
    """A cell of a CSV file: visible, and never a formula."""
    shown = visible(text)
    return f"'{shown}" if _FORMULA.match(text) or text.startswith(("\t", "\r", "\n")) else shown


def in_json_text(document: str) -> str:
    """JSON that is printed: what JSON lets stand in a string (DEL, C1, directions) as JSON's own
    escapes. The same document."""
    return _ACTING_NOT_LINES.sub(_escape_in_json, document)


def _escape_in_json(match: re.Match[str]) -> str:
    units = memoryview(match[0].encode("utf-16-be", "surrogatepass"))
    return "".join(f"\\u{int.from_bytes(units[at : at + 2]):04x}" for at in range(0, len(units), 2))


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
