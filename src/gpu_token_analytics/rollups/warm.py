"""Who the warm idle money of a GPU is for, and how whole nano-USD are shared out to very many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import add

import numpy as np

from gpu_token_analytics.ledger.money import split_exactly
from gpu_token_analytics.rollups.vectors import LineKey

MAX_INT64 = 2**63 - 1
MANY_WEIGHTS = 256  # above this many, cells are shared one after the other
FEW_AMOUNTS = 8  # below this many, plain integers are faster than arrays


def share_out_each(amounts: Sequence[int], weights: Sequence[int]) -> list[list[int]]:
    """`split_exactly` of each amount; the result by weight: [weight][amount]."""
    if len(weights) == 1:
        return [list(amounts)]
    if len(amounts) < FEW_AMOUNTS or max(amounts) * max(weights) > MAX_INT64:
        return [
            list(shares)
            for shares in zip(*(split_exactly(amount, weights) for amount in amounts), strict=True)
        ]
    whole = np.array(amounts, np.int64)
    products = whole[:, None] * np.array(weights, np.int64)
    total = sum(weights)
    shares = products // total
    rests = products - shares * total
    left = whole - shares.sum(axis=1)
    more = np.zeros_like(shares)
    order = np.argsort(-rests, axis=1, kind="stable")  # stable: ties stay in order
    np.put_along_axis(more, order, np.arange(len(weights)) < left[:, None], axis=1)
    by_weight: list[list[int]] = (shares + more).T.tolist()
    return by_weight


def share_out_quickly(amount: int, weights: Sequence[int]) -> list[int]:
    """`split_exactly` for many weights: the same result from arrays, where their products fit."""
    if len(weights) < FEW_AMOUNTS or amount * max(weights) > MAX_INT64:
        return split_exactly(amount, weights)
    products = np.array(weights, np.int64) * amount
    shares, rests = np.divmod(products, sum(weights))
    left = amount - int(shares.sum())
    if left:
        shares[np.argsort(-rests, kind="stable")[:left]] += 1  # stable: ties stay in order
    parts: list[int] = shares.tolist()
    return parts


class WarmShares:
    """Who a GPU's warm idle money is for, in one UTC hour.

    Each cell's warm idle nano-USD are shared among the models attributed on that GPU in that UTC
    hour in proportion to their attributed nano-USD of the hour (largest remainder, ties by model
    name), then within a model among its tenants likewise. Cell by cell, so that any bucket finer or
    coarser than the hour adds up to the same figures. Where nothing was attributed in the hour,
    nobody gets it.
    """

    def __init__(self, attributed: Mapping[LineKey, int]) -> None:
        by_model: dict[str, list[tuple[str, int]]] = {}
        for (model, tenant), cost in sorted(attributed.items()):
            if cost > 0:
                by_model.setdefault(model, []).append((tenant, cost))
        self._weights = [sum(cost for _, cost in tenants) for tenants in by_model.values()]
        self._within = [[cost for _, cost in tenants] for tenants in by_model.values()]
        self._keys = [
            [(model, tenant) for tenant, _ in tenants] for model, tenants in by_model.items()
        ]

    def of_all(
        self, amounts_nusd: Sequence[int], *, by_tenant: bool = True
    ) -> Iterator[tuple[tuple[str, str | None], int]]:
        """The shares of several cells, each shared by itself, as sums; those of 0 are left out.
        by_tenant false: by model."""
        if not amounts_nusd or not self._keys:
            return
        if len(self._weights) > MANY_WEIGHTS:
            yield from self._of_each(amounts_nusd, by_tenant=by_tenant)
            return
        for keys, within, parts in zip(
            self._keys, self._within, share_out_each(amounts_nusd, self._weights), strict=True
        ):
            if not by_tenant:
                shared: Iterable[tuple[tuple[str, str | None], int]] = [
                    ((keys[0][0], None), sum(parts))
                ]
            elif len(within) <= MANY_WEIGHTS:
                shared = zip(keys, map(sum, share_out_each(parts, within)), strict=True)
            else:
                shared = zip(keys, _summed(parts, within), strict=True)
            yield from ((key, nusd) for key, nusd in shared if nusd)

    def _of_each(
        self, amounts_nusd: Sequence[int], *, by_tenant: bool
    ) -> Iterator[tuple[tuple[str, str | None], int]]:
        """The same one cell after the other: with weights x cells in one array, a hundred thousand
        models took a gigabyte."""
        several = (
            [index for index, keys in enumerate(self._keys) if len(keys) > 1] if by_tenant else []
        )
        sums = [0] * len(self._keys)
        within = {index: [0] * len(self._keys[index]) for index in several}
        for amount in amounts_nusd:
            parts = share_out_quickly(amount, self._weights)
            sums = list(map(add, sums, parts))
            for index in several:
                if parts[index]:
                    within[index] = list(
                        map(
                            add, within[index], share_out_quickly(parts[index], self._within[index])
                        )
                    )
        for index, keys in enumerate(self._keys):
            if not by_tenant:
                shared: Iterable[tuple[tuple[str, str | None], int]] = [
                    ((keys[0][0], None), sums[index])
                ]
            else:
                shared = zip(keys, within.get(index, [sums[index]]), strict=True)
            yield from ((key, nusd) for key, nusd in shared if nusd)


def _summed(amounts: Sequence[int], weights: Sequence[int]) -> list[int]:
    """The sums by weight of `split_exactly` of each amount."""
    total = [0] * len(weights)
    for amount in amounts:
        if amount:
            total = list(map(add, total, share_out_quickly(amount, weights)))
    return total
