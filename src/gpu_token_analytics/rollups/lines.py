"""Sections of rollup documents: in the document as long as they are few lines, else in chunks.

    {model, tenant, values}                       in the document
    {ref: {token, section, chunks, lines, first}} in chunks; the document's `chunks` is their token,
                                                  `first` the names of each chunk's first line
    {pieces: [{model, tenant, values}, ...]}      as read: what unpack takes like the first

A section is `lines`, `by_model` or `by_tenant` of the document itself, of its second half, of its
places and of theirs. Chunks hold lines in the order of rows: whoever needs some of them reads the
chunks in which they are (costs/stretches.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pymongo.collection import Collection as MongoCollection

from gpu_token_analytics.cells.line_chunks import READ_TRIES, LineChunks, read_again
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.rollups.packed import cut, line_count, names_at, packed_bytes

# what holds it, under which name, and where that is in the document
Section: TypeAlias = tuple[Document, str, str]

MAX_INLINE_LINES = 1000  # of one section
MAX_INLINE_BYTES = 512 * 1024  # of all sections of a document

SECTIONS = ("lines", "by_model", "by_tenant")


def sections(document: Document) -> Iterator[Section]:
    """Every section of a document that was read or is to be written."""
    for at, part in enumerate(document.get("places", (document,))):
        where = f"places.{at}." if "places" in document else ""
        for holder, inside in ((part, ""), (part.get("second_half"), "second_half.")):
            if holder:
                for name in SECTIONS:
                    if name in holder:
                        yield holder, name, f"{where}{inside}{name}"


def take_out(document: Document) -> dict[str, Document]:
    """Replace the sections that are too many for a document by references without a token. Returns
    them by name."""
    many: dict[str, Document] = {}
    left = MAX_INLINE_BYTES
    for holder, name, where in sections(document):
        packed = holder[name]
        size = packed_bytes(packed)
        if line_count(packed) <= MAX_INLINE_LINES and size <= left:
            left -= size
            continue
        many[where] = packed
        holder[name] = {"ref": {"lines": line_count(packed)}}
        if "of" in packed:
            holder[name]["of"] = packed["of"]
    return many


def put(
    chunks: LineChunks, of: Collection, document: Document, many: Mapping[str, Document]
) -> str:
    """Store what take_out() took, and say in the document where. Returns the token."""
    first: dict[str, list[Document]] = {where: [] for where in many}
    token, refs = chunks.put(
        of,
        document["_id"],
        {where: _noted(cut(packed), first[where]) for where, packed in many.items()},
    )
    for holder, name, where in sections(document):
        if where in refs:
            holder[name]["ref"] |= refs[where] | {"first": first[where]}
    document["chunks"] = token
    return token


def _noted(pieces: Iterable[Document], first: list[Document]) -> Iterator[Document]:
    """The pieces, with the names of each one's first line noted."""
    for piece in pieces:
        first.append(names_at(piece, 0))
        yield piece


def complete(
    chunks: LineChunks,
    collection: MongoCollection[Document],
    documents: Iterable[Document],
    read_one: Callable[[Any], Document | None],
    fields: Sequence[str] = (),
    stays: Callable[[Document], bool] = lambda _: False,
) -> Iterator[Document]:
    """Documents with their lines, whatever was in chunks joined; those that vanished are left out.
    They need their `_id`.

    read_one: reads one document again as these were read. fields: of the pieces, where not all are
    needed. stays: whose references stay as they are, if they say what each chunk begins with.
    Raises StoreOutcomeUnknown where a document is swapped at every try.
    """
    for document in documents:
        joined: Document | None = document
        for _ in range(READ_TRIES):
            if joined is None or _join(chunks, joined, fields, stays=stays(joined)):
                break
            joined = read_one(document["_id"])
        else:
            raise read_again(f"{collection.name} {document['_id']}")
        if joined is not None:
            yield joined


def _join(chunks: LineChunks, document: Document, fields: Sequence[str], *, stays: bool) -> bool:
    """False when chunks of it are missing."""
    for holder, name, _ in sections(document):
        section = holder[name]
        if "ref" in section and not (stays and "first" in section["ref"]):
            pieces = chunks.read(section.pop("ref"), fields)
            if pieces is None:
                return False
            section["pieces"] = pieces
    return True
