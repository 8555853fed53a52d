"""How MongoDB keeps raw events on disk: blocks of 128 KiB compressed by zstd, and compressed
indexes.

An event is as good as its random ids when it comes to compression; what is left - names of fields,
hosts, models, times - is in its neighbours, too, so the larger the block the fewer the bytes. Half
of what mongod's own defaults take (docs/decisions/0046). Only a new collection can be made so. An
older one works as it is; `gpu-tokens backup` and `restore` write it anew.

Options: https://www.mongodb.com/docs/manual/reference/method/db.createCollection/ and
https://source.wiredtiger.com/11.0.0/struct_w_t___s_e_s_s_i_o_n.html (WT_SESSION.create)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from gpu_token_analytics.mongo.errors import Document, store_errors
from gpu_token_analytics.wire.events import KINDS

_log = logging.getLogger(__name__)

_NAMESPACE_EXISTS = 48  # another process was faster
_COMPRESSED = {"block_compressor": "zstd"}
_BLOCK = {"leaf_page_max": "128KB"}


def _engine(config: Mapping[str, str]) -> dict[str, Any]:
    return {
        "storageEngine": {
            "wiredTiger": {
                "configString": ",".join(f"{name}={value}" for name, value in config.items())
            }
        }
    }


def create_raw_collections(database: Database[Document]) -> None:
    """Create those that are missing. A server that knows no such options - another engine, a
    service that speaks MongoDB's protocol - makes them as it likes when they get their first index.
    Raises StoreUnreachable, StoreRefused."""
    with store_errors("list collections"):
        existing = {one["name"]: one.get("options", {}) for one in database.list_collections()}
        for name in (kind.collection for kind in KINDS):
            if name not in existing:
                _create(database, name)
            elif "storageEngine" not in existing[name]:
                _log.info(
                    (
                        "%s is not compressed by zstd: `gpu-tokens backup` and `restore` write it "
                        "anew in half the space"
                    ),
                    name,
                )


def _create(database: Database[Document], name: str) -> None:
    options = {**_engine(_COMPRESSED | _BLOCK), "indexOptionDefaults": _engine(_COMPRESSED)}
    try:
        database.create_collection(name, check_exists=False, **options)
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            _log.warning(
                "%s will take twice the space on disk: MongoDB does not compress by zstd here (%s)",
                name,
                error.details,
            )
