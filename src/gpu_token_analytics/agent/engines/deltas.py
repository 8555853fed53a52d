"""From looks at an engine's counters to what it counted between them.

The difference is taken of each series first, and only then summed: in a sum the fall of one series
hides in the rise of another.

    a series fell                         it began anew: what it shows is what it counted since
    it did not, but began later than      the same: `process_start_time_seconds`, or its own
    before                                `_created`
    a series that was not there in the    it began between the looks (series of engines come with
    look before                           their first token)
    a series that is gone                 it is remembered: it may come back
    the first look at an engine           where the counters stand: nothing is known of before
    looks that failed                     the next one counts for all of the time since the last
                                          good one: a gap

A counter that does not fall proves nothing: files of dead processes stay in the sums of Prometheus'
multi-process mode. Where neither time is on the page, such a restart is not seen, and nothing is
lost or doubled by that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gpu_token_analytics.agent.engines.names import Choice, Tokens
from gpu_token_analytics.agent.engines.page import MOST_SERIES, Page, SeriesKey, read_page
from gpu_token_analytics.agent.engines.target import Target
from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.counters import MAX_INTERVAL_MS, EngineCounters
from gpu_token_analytics.wire.fields import MAX_TOKENS
from gpu_token_analytics.wire.identity import new_event_id

# A start that is this much later is another process: the time of a start is computed from the time
# of boot, which NTP moves.
_LATER_SECONDS = 2.0
_GAP_INTERVALS = 1.5
_CLOCK_STEP = timedelta(minutes=1)
_LONGEST_GAP = timedelta(days=7)  # far beyond what retention keeps: a look after it is a first look
_MOST_PER_SECOND = 100_000_000  # of one series; racks of GPUs serve a hundredth of it
_LONGEST_PART = timedelta(milliseconds=MAX_INTERVAL_MS)


@dataclass(frozen=True)
class Counts:
    """What an engine counted in [start, end), by model. reset: some of its counters began anew in
    it."""

    start: datetime
    end: datetime
    models: Mapping[str, Mapping[Tokens, int]]
    reset: bool
    gap: bool


@dataclass
class EngineCounter:
    """What is remembered of one engine between looks: bounded by the number of series that are
    read."""

    target: Target
    interval_seconds: float
    _at: datetime | None = None
    _last: dict[SeriesKey, float] = field(default_factory=dict)
    _created: dict[SeriesKey, float] = field(default_factory=dict)
    _started: float | None = None
    _chosen: dict[Tokens, Choice] = field(default_factory=dict)
    _uncounted_cached: dict[str, int] = field(default_factory=dict)

    def look(self, text: str, at: datetime) -> Counts | None:
        """What was counted since the last look; None where this is the first one. Raises
        SourceUnavailable, and remembers nothing of such a page."""
        page, chosen = read_page(text, self.target, self._chosen)
        before = self._at
        if before is not None and at <= before:
            if before - at < _CLOCK_STEP:
                return None  # the next look counts for this one
            # the clock was set back: what was counted, was
            before = at - timedelta(seconds=self.interval_seconds)
        anew = self._began_anew(page)
        deltas: dict[SeriesKey, int] = {}
        reset = False
        for key, total in page.totals.items():
            earlier = self._last.get(key)
            if earlier is not None and (anew or total < earlier or self._is_younger(key, page)):
                reset, earlier = True, 0.0
            deltas[key] = round(total) - round(earlier or 0.0)
        if before is not None:
            self._check(deltas, (at - before).total_seconds())
        self._at = at
        self._remember(page, anew)
        self._chosen = chosen
        if before is None or at - before > _LONGEST_GAP:
            return None
        late = (at - before).total_seconds() > _GAP_INTERVALS * self.interval_seconds
        return Counts(before, at, self._by_model(deltas), reset, late)

    def _check(self, deltas: Mapping[SeriesKey, int], seconds: float) -> None:
        # A counter at 2^64-1 would be 184 billion events of MAX_TOKENS: the agent would end, and
        # Kafka be full.
        most = _MOST_PER_SECOND * max(seconds, self.interval_seconds)
        for key, delta in deltas.items():
            if delta > most:
                raise SourceUnavailable(
                    f"{self.target}: {key.name} grew by {delta:.3g} in {seconds:.0f} s, and no "
                    "engine counts more than "
                    f"{_MOST_PER_SECOND:,} tokens a second; look at its page"
                )

    def _began_anew(self, page: Page) -> bool:
        known = page.started is not None and self._started is not None
        return known and (page.started or 0.0) > (self._started or 0.0) + _LATER_SECONDS

    def _is_younger(self, key: SeriesKey, page: Page) -> bool:
        created, before = page.created.get(key), self._created.get(key)
        return created is not None and before is not None and created > before + _LATER_SECONDS

    def _remember(self, page: Page, anew: bool) -> None:
        if anew or len(self._last.keys() | page.totals.keys()) > MOST_SERIES:
            self._last.clear()  # of a process that is gone
            self._created.clear()
        self._last |= page.totals
        self._created |= page.created
        self._started = page.started if page.started is not None else self._started

    def _by_model(self, deltas: Mapping[SeriesKey, int]) -> dict[str, dict[Tokens, int]]:
        models: dict[str, dict[Tokens, int]] = {}
        for key, delta in deltas.items():
            counts = models.setdefault(key.model, {})
            counts[key.tokens] = counts.get(key.tokens, 0) + delta
        for model, counts in models.items():
            if Tokens.CACHED in counts:
                # Counted at another moment than the prompt it is a part of (LMDeploy: at the end):
                # the rest comes later.
                cached = counts[Tokens.CACHED] + self._uncounted_cached.pop(model, 0)
                counts[Tokens.CACHED] = min(cached, counts.get(Tokens.PROMPT, 0))
                if rest := cached - counts[Tokens.CACHED]:
                    self._uncounted_cached[model] = rest
        return models


def events_of(counts: Counts, target: Target, host: str) -> Iterator[EngineCounters]:
    """The events that say so; a long time, or very many tokens, in equal parts that add up to
    it."""
    length_us = (counts.end - counts.start) // timedelta(microseconds=1)
    for model, tokens in sorted(counts.models.items()):
        if Tokens.PROMPT not in tokens and Tokens.COMPLETION not in tokens:
            continue
        most = max(tokens.values())
        parts = max(
            -(-length_us // (_LONGEST_PART // timedelta(microseconds=1))), -(-most // MAX_TOKENS), 1
        )
        for part in range(parts):
            low_us, high_us = (length_us * edge // parts for edge in (part, part + 1))
            share = {
                kind: count * (part + 1) // parts - count * part // parts
                for kind, count in tokens.items()
            }
            yield EngineCounters(
                event_id=new_event_id(),
                ts=counts.start + timedelta(microseconds=high_us),
                host=host,
                instance=target.instance,
                engine=target.engine,
                model=model or None,
                interval_ms=max(1.0, (high_us - low_us) / 1000),
                prompt_tokens=share.get(Tokens.PROMPT),
                cached_tokens=share.get(Tokens.CACHED) if Tokens.PROMPT in share else None,
                completion_tokens=share.get(Tokens.COMPLETION),
                reset=counts.reset,
                gap=counts.gap,
            )
