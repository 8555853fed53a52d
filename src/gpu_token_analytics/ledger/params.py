"""The numbers the ledger depends on besides events and prices, with one version that every cell
carries."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b

from gpu_token_analytics.documents import US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.settings import Settings

# Raise it when the computation itself changes, so that the audit can tell older cells from wrong
# ones.
LEDGER_VERSION = 6

# Work rates span many orders of magnitude as it is; weights outside of this would only add to that.
MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6


@dataclass(frozen=True)
class WorkWeights:
    """Work per token, relative to one uncached prompt token: W = input*(prompt-cached) +
    cached*cached + output*completion."""

    input: float = 1.0
    cached: float = 0.1
    output: float = 4.0


@dataclass(frozen=True)
class LedgerParams:
    """Parameters of the ledger. `version` changes when any of them does."""

    gap_us: int = 30 * US_PER_SECOND
    model_loaded_mb: float = 1024.0
    # Where the memory is not known, a model counts as loaded for this long after the end of a
    # request (ledger/classes.py).
    model_kept_us: int = US_PER_HOUR
    silent_owned_us: int = 1440 * US_PER_MINUTE
    cell_us: int = US_PER_MINUTE
    default_weights: WorkWeights = WorkWeights()
    model_weights: dict[str, WorkWeights] = field(default_factory=dict)

    def weights(self, model: str) -> WorkWeights:
        """The weights of `model`, or the default."""
        return self.model_weights.get(model, self.default_weights)

    @property
    def version(self) -> str:
        """Eight hex digits over all parameters: cells of one version are comparable."""
        shape = {
            "ledger": LEDGER_VERSION,
            "gap_us": self.gap_us,
            "loaded_mb": self.model_loaded_mb,
            "kept_us": self.model_kept_us,
            "silent_us": self.silent_owned_us,
            "cell_us": self.cell_us,
            "weights": {
                name: [w.input, w.cached, w.output]
                for name, w in sorted({**self.model_weights, "*": self.default_weights}.items())
            },
        }
        return blake2b(json.dumps(shape, sort_keys=True).encode(), digest_size=4).hexdigest()


def params_of(settings: Settings) -> LedgerParams:
    """The ledger parameters in `settings`. Raises SettingsError for a weight that is unknown,
    negative or all zero."""
    weights = {model: _weights(model, given) for model, given in settings.work_weights.items()}
    return LedgerParams(
        gap_us=settings.sample_gap_limit_seconds * US_PER_SECOND,
        model_loaded_mb=settings.model_loaded_mb,
        silent_owned_us=settings.silent_gpu_owned_minutes * US_PER_MINUTE,
        default_weights=weights.pop("*", WorkWeights()),
        model_weights=weights,
    )


def _weights(model: str, given: object) -> WorkWeights:
    allowed = {"input", "cached", "output"}
    if not isinstance(given, dict) or not set(given) <= allowed:
        raise SettingsError(
            f"WORK_WEIGHTS[{model!r}]={given!r}: give an object with {', '.join(sorted(allowed))}"
        )
    for key, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (value == 0 or MIN_WEIGHT <= value <= MAX_WEIGHT):
            raise SettingsError(
                f"WORK_WEIGHTS[{model!r}][{key!r}]={value!r}: a weight is 0 or from 0.000001 to "
                "1,000,000"
            )
    weights = WorkWeights(**{key: float(value) for key, value in given.items()})
    if weights.input == weights.output == 0:
        raise SettingsError(
            f"WORK_WEIGHTS[{model!r}]={given!r}: no token would be work; give input or output a "
            "weight"
        )
    return weights
