"""The closed sets of /v1 and of the commands' options. Light to import: `--help` needs them."""

from __future__ import annotations

from enum import StrEnum


class Dimension(StrEnum):
    """What rows can be grouped by."""

    MODEL = "model"
    TENANT = "tenant"
    GPU = "gpu"
    HOST = "host"
    GPU_NAME = "gpu_name"
    CLASS = "class"
    TEAM = "team"
    OWNER = "owner"
    COST_CENTRE = "cost_centre"


class Bucket(StrEnum):
    """Length of a row in time. Hours and days are those of `time_zone`."""

    NONE = "none"
    MINUTE = "1m"
    HOUR = "1h"
    DAY = "1d"


class MoneyClassName(StrEnum):
    """A class as a filter."""

    ATTRIBUTED = "attributed"
    UNMETERED_WORK = "unmetered_work"
    WARM_IDLE = "warm_idle"
    COLD_IDLE = "cold_idle"
    UNOBSERVED = "unobserved"


class ExportFormat(StrEnum):
    """Kind of file."""

    CSV = "csv"
    PARQUET = "parquet"


class ExportLayout(StrEnum):
    """Columns of the file: those of /v1/costs, or FOCUS 1.2."""

    COSTS = "costs"
    FOCUS = "focus"


class ShareRule(StrEnum):
    """How idle money is shared out."""

    BY_USE = "by_use"
    EVENLY = "evenly"
    TO_OWNER = "to_owner"
