"""Published formats and files by a column mapping: exact figures, and bad rows named by line, field
and value."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpu_token_analytics.errors import SettingsError, TraceUnreadable
from gpu_token_analytics.simulate.replay import Assumptions, replay
from gpu_token_analytics.simulate.trace import BadRow, Trace, TraceRow
from gpu_token_analytics.simulate.trace_layout import Field, read_mapping
from gpu_token_analytics.wire.times import from_us, to_us
from gpu_token_analytics.wire.usage import TokenUsage

SHARED = Path(
    os.environ.get("GPU_TOKENS_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data"
)
MOONCAKE = SHARED / "traces" / "mooncake_synthetic_first1000.jsonl"
START = datetime(2026, 10, 1, tzinfo=UTC)
BURST = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
)
MAP = "ts=started_at,input_tokens=prompt,output_tokens=completion"


def read(
    tmp_path: Path,
    text: str,
    *pairs: str,
    unit: str | None = None,
    gpus: tuple[str, ...] = (),
    now: datetime | None = None,
) -> tuple[list[TraceRow], list[BadRow]]:
    path = tmp_path / "trace"
    path.write_text(text)
    bad: list[BadRow] = []
    trace = Trace(
        path, read_mapping(pairs, unit, gpus), to_us(START), None if now is None else to_us(now)
    )
    return list(trace.rows(bad.append)), bad


def seconds(row: TraceRow) -> float:
    return (row.arrival_us - to_us(START)) / 1e6


def test_burstgpt_with_durations(tmp_path: Path) -> None:
    rows, bad = read(
        tmp_path,
        f"{BURST}5,1,3.25,ChatGPT,472,18,490,Conversation log\n"
        "45.5,2,0.5,GPT-4,100,0,100,API log\n",
    )
    assert not bad
    assert [(seconds(row), row.latency_ms, row.model) for row in rows] == [
        (5, 3250, "ChatGPT"),
        (45.5, 500, "GPT-4"),
    ]
    assert [(row.context_tokens, row.generated_tokens) for row in rows] == [(472, 18), (100, 0)]
    assert [row.finish_reason for row in rows] == [None, "error"], (
        "no response tokens: the request failed"
    )


def test_older_burstgpt_has_no_durations(tmp_path: Path) -> None:
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    path = tmp_path / "trace"
    path.write_text(f"{header}5,ChatGPT,472,18,490,Conversation log\n")
    facts = Trace(path, start_us=to_us(START)).survey()
    assert (facts.rows, facts.layout.name, facts.layout.has_durations) == (1, "BurstGPT", False)


def test_mooncake_counts_in_milliseconds_and_blocks_that_were_there_before(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 0, "input_length": 1300, "output_length": 5, "hash_ids": [1, 2, 3]},
        {"timestamp": 2500, "input_length": 1200, "output_length": 5, "hash_ids": [1, 2, 4]},
        # all known: one is computed
        {"timestamp": 2500, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]},
        # known, but not from the start
        {"timestamp": 3000, "input_length": 1100, "output_length": 5, "hash_ids": [9, 2, 3]},
        {"timestamp": 4000, "input_length": 0, "output_length": 0, "hash_ids": []},
    ]
    rows, bad = read(tmp_path, "\n".join(map(json.dumps, lines)))
    assert not bad
    assert [seconds(row) for row in rows] == [0, 2.5, 2.5, 3, 4]
    assert [row.cached_tokens for row in rows] == [0, 1024, 1023, 0, 0]


def test_qwen_bailian_counts_in_seconds_and_blocks_of_16(tmp_path: Path) -> None:
    line = {
        "chat_id": 159,
        "parent_chat_id": -1,
        "timestamp": 61.114,
        "input_length": 33,
        "output_length": 132,
        "type": "text",
    }
    blocks = ([1, 2, 3], [1, 2, 4])
    rows, bad = read(
        tmp_path, "\n".join(json.dumps(line | {"turn": 1, "hash_ids": one}) for one in blocks)
    )
    assert not bad
    assert [(seconds(row), row.cached_tokens, row.request_id) for row in rows] == [
        (61.114, 0, "159"),
        (61.114, 32, "159"),
    ]


@pytest.mark.skipif(
    not MOONCAKE.exists(), reason=f"{MOONCAKE.name} is not here (GPU_TOKENS_SHARED_DATA)"
)
def test_a_thousand_requests_of_mooncake() -> None:
    facts = Trace(MOONCAKE, start_us=to_us(START)).survey()
    rows = list(Trace(MOONCAKE, start_us=to_us(START)).rows(lambda row: pytest.fail(str(row))))
    assert sum(row.context_tokens for row in rows) == 11_851_558
    assert sum(row.generated_tokens for row in rows) == 196_039
    # Capped at the input alone it would be 2,046,169: 13 requests have only blocks that are known.
    assert sum(row.cached_tokens for row in rows) == facts.cached_tokens == 2_046_156
    assert all(row.cached_tokens < row.context_tokens for row in rows)
    events = [
        event
        for event in replay(rows, Assumptions("0" * 64, layout=facts.layout))
        if isinstance(event, TokenUsage)
    ]
    assert sum(event.cached_tokens for event in events) == 2_046_156
    assert len({event.event_id for event in events}) == 1000, "times repeat, ids do not"


@pytest.mark.parametrize(
    "text", ['{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1]}', BURST]
)
def test_times_that_count_from_0_need_a_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(TraceUnreadable, match="--start 2026-10-01T00:00:00Z"):
        Trace(path).survey()


def test_any_csv_by_a_mapping_needs_no_model_of_anything(tmp_path: Path) -> None:
    columns = "prompt;completion;cached;think;secs;wait;first;llm;team;gpu;call;why;started_at;uid"
    row = (
        "1200;80;1024;16;2.5;0.25;1;llama;acme;node1/0, "
        "node1/1;c-1;stop;2026-10-03T12:00:00+02:00;u-1"
    )
    pairs = (
        f"{MAP},cached_tokens=cached,reasoning_tokens=think,latency_seconds=secs",
        (
            "queue_seconds=wait,ttft_seconds=first,model=llm,tenant=team,gpus=gpu,request_id=call,"
            "finish_reason=why,id=uid"
        ),
    )
    rows, bad = read(tmp_path, f"{columns}\n{row}\n", *pairs)
    assert not bad
    path = tmp_path / "trace"
    facts = Trace(path, read_mapping(pairs, None, ())).survey()
    (event,) = replay(rows, Assumptions(facts.sha256, layout=facts.layout).check().needed())
    assert isinstance(event, TokenUsage)
    assert event == TokenUsage(
        event_id=event.event_id,
        ts=datetime(2026, 10, 3, 10, 0, 2, 500_000, tzinfo=UTC),
        host="node1",
        model="llama",
        request_id="c-1",
        prompt_tokens=1200,
        completion_tokens=80,
        gpu_uuids=["node1/0", "node1/1"],
        tenant="acme",
        cached_tokens=1024,
        reasoning_tokens=16,
        latency_ms=2500,
        queue_ms=250,
        ttft_ms=1000,
        finish_reason="stop",
    )
    others = Assumptions(
        facts.sha256,
        seed=9,
        gpus=7,
        models=("x",),
        tenants=("y",),
        concurrency=1,
        layout=facts.layout,
    ).needed()
    assert list(replay(rows, others)) == [event], "what is not used changes nothing, ids included"


@pytest.mark.parametrize(
    ("pairs", "cells", "latency_ms"),
    [
        ("ts=a,end=b", "2026-10-03 10:00:00,2026-10-03 10:00:02.5", 2500),
        ("end=a,latency_ms=b", "2026-10-03 10:00:02.5,2500", 2500),
        ("ts=a,latency_ms=b", "2026-10-03 10:00:00,", None),
        ("ts=a,latency_seconds=b", "1791021600,0.5", 500),
        ("ts=a,end=b", "1791021600000,1791021600250.5", 250.5),
    ],
    ids=["start-end", "end-latency", "unknown", "epoch-seconds", "epoch-ms"],
)
def test_times_of_a_mapping(
    tmp_path: Path, pairs: str, cells: str, latency_ms: float | None
) -> None:
    unit = "ms" if "000," in cells else None
    rows, bad = read(
        tmp_path, f"a,b,i,o\n{cells},1,2\n", f"{pairs},input_tokens=i,output_tokens=o", unit=unit
    )
    assert not bad
    assert (rows[0].latency_ms, from_us(rows[0].arrival_us)) == (
        latency_ms,
        datetime(2026, 10, 3, 10, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("pairs", "cells", "named"),
    [
        ("latency_ms=x", "abc", "x='abc' is not a number of milliseconds"),
        ("latency_ms=x", "-1", "x='-1' is not a number of milliseconds"),
        ("latency_seconds=x", "99999", "more than 6 hours: is its unit right?"),
        ("end=x", "2026-10-03 09:59:59", "x='2026-10-03 09:59:59' is before started_at"),
        ("model=x", "", "x is empty: give a name"),
        ("gpus=x", " ", "x is empty: name the GPUs"),
        ("gpus=x", "GPU-1 node1/0", "gpu_uuids="),
        ("cached_tokens=x", "11", "cached_tokens=11"),
        ("reasoning_tokens=x", "3", "reasoning_tokens=3"),
        ("cached_tokens=x", "many", "x='many' is not a whole number of tokens"),
        ("tenant=x", "a\x07b", "x='a\\x07b' has characters that are no text"),
        ("tenant=x", "y" * 257, "has 257 characters; a name has at most 256"),
    ],
)
def test_a_bad_value_of_a_mapping_is_named(
    tmp_path: Path, pairs: str, cells: str, named: str
) -> None:
    good = "2026-10-03 10:00:00,10,2,"
    fine = {"end": "2026-10-03 10:00:01", "gpus": "node1/0"}.get(pairs.partition("=")[0], "1")
    rows, bad = read(
        tmp_path,
        f"started_at,prompt,completion,x\n{good}{fine}\n{good}{cells}\n{good}{fine}\n",
        f"{MAP},{pairs}",
    )
    assert [row.line for row in rows] == [2, 4]
    assert [row.line for row in bad] == [3]
    assert named in bad[0].problem


def test_what_has_not_happened_yet_is_a_bad_row(tmp_path: Path) -> None:
    text = "started_at,prompt,completion\n2062-10-03 10:00:00,1,1\n2026-10-03 10:00:00,1,1\n"
    rows, bad = read(tmp_path, text, MAP, now=datetime(2026, 11, 1, tzinfo=UTC))
    assert [row.line for row in rows] == [3]
    assert "2062-10-03T10:00:00Z, after now" in bad[0].problem


def test_a_relative_time_without_a_start_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("started_at,prompt,completion\n0,1,1\n1791021600,1,1\n")
    bad: list[BadRow] = []
    rows = list(Trace(path, read_mapping([MAP], None, ())).rows(bad.append))
    assert [row.line for row in rows] == [3]
    assert "say when that was (--start)" in bad[0].problem


def test_a_value_may_have_line_feeds_and_a_stray_quote_costs_one_row(tmp_path: Path) -> None:
    good = "2026-10-03 10:00:00,10,2,hello\n"
    quoted = '2026-10-03 10:00:00,10,2,"a\nb, ""c""\nd"\n'
    stray = '2026-10-03 10:00:00,1,2,"stray\n'
    text = f"started_at,prompt,completion,said\n{quoted}{good}{stray}{good}{good}"
    rows, bad = read(tmp_path, text, MAP)
    assert [row.line for row in rows] == [2, 5, 7, 8]
    assert [row.line for row in bad] == [6]


@pytest.mark.parametrize(
    "line", ["{", "[1]", "3", '{"timestamp": 1}', '{"timestamp": 1, "input_length": true}']
)
def test_a_line_that_is_no_request_costs_no_other(tmp_path: Path, line: str) -> None:
    good = '{"timestamp": 1, "input_length": 3, "output_length": 2, "hash_ids": [1]}'
    rows, bad = read(tmp_path, f"{good}\n{line}\n\n{good}\n")
    assert [row.line for row in rows] == [1, 4]
    assert [row.line for row in bad] == [2]


@pytest.mark.parametrize("blocks", [[1], [1, 2, 3], "x", [1, "x"], None])
def test_blocks_that_do_not_fit_the_input_are_named(tmp_path: Path, blocks: object) -> None:
    line = {"timestamp": 1, "input_length": 600, "output_length": 2, "hash_ids": blocks}
    good = {"timestamp": 1, "input_length": 600, "output_length": 2, "hash_ids": [1, 2]}
    rows, bad = read(tmp_path, f"{json.dumps(good)}\n{json.dumps(line)}\n")
    assert len(rows) == 1
    assert "hash_ids" in bad[0].problem


@pytest.mark.parametrize(
    ("pairs", "unit", "gpus", "named"),
    [
        (["ts"], None, (), "'ts' cannot be used; give FIELD=COLUMN"),
        (["when=a"], None, (), "'when=a' cannot be used"),
        (["hash_ids=a"], None, (), "'hash_ids=a' cannot be used"),
        (["ts=a"], None, (), "lacks input_tokens, output_tokens"),
        (["input_tokens=a,output_tokens=b"], None, (), "lacks ts"),
        (["end=c,input_tokens=a,output_tokens=b"], None, (), "lacks ts"),
        ([f"{MAP},prompt_tokens=b"], None, (), "input_tokens twice"),
        ([f"{MAP},latency_ms=b,latency_seconds=c"], None, (), "which say the same"),
        ([f"{MAP},latency_ms=b,end=c"], None, (), "two say the third"),
        ([MAP], "h", (), "--time-unit 'h'"),
        ([], "ms", (), "give --map, too"),
        ([f"{MAP},gpus=g"], None, ("node1/0",), "--gpu"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_named(
    pairs: list[str], unit: str | None, gpus: tuple[str, ...], named: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        read_mapping(pairs, unit, gpus)
    assert named in str(raised.value)


def test_a_column_may_have_a_comma_and_is_meant_by_its_exact_name(tmp_path: Path) -> None:
    columns = read_mapping(["ts=a, b,input_tokens=In,output_tokens=in_"], None, ()).columns
    assert columns == {Field.TS: "a, b", Field.INPUT: "In", Field.OUTPUT: "in_"}
    rows, _ = read(
        tmp_path,
        '"a, b",In,in_\n2026-10-03 10:00:00,3,4\n',
        "ts=a, b,input_tokens=In,output_tokens=in_",
    )
    assert (rows[0].context_tokens, rows[0].generated_tokens) == (3, 4)


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        TraceUnreadable, match="no column 'completion'; its columns are started_at, prompt"
    ):
        read(tmp_path, "started_at,prompt\n", MAP)


def test_an_id_is_the_request_in_whatever_file(tmp_path: Path) -> None:
    found = []
    for name, rows in (
        ("month", "2026-10-03 10:00:00,1,1,u-1\n2026-10-04 10:00:00,2,1,u-2\n"),
        ("day", "2026-10-04 10:00:00,2,1,u-2\n"),
    ):
        path = tmp_path / name
        path.write_text(f"started_at,prompt,completion,uid\n{rows}")
        trace = Trace(path, read_mapping([f"{MAP},id=uid"], None, ("node1/0",)))
        facts = trace.survey()
        assumed = Assumptions(facts.sha256, layout=facts.layout).check().needed()
        found.append(
            {
                event.event_id
                for event in replay(trace.rows(lambda row: pytest.fail(str(row))), assumed)
            }
        )
    month, day = found
    assert len(month) == 2
    assert day < month


@pytest.mark.parametrize("change", [{"start_us": 0}, {"layout": Trace}], ids=["start", "columns"])
def test_another_start_or_mapping_is_other_events(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "trace"
    path.write_text("started_at,prompt,completion,ms\n2026-10-03 10:00:00,1,1,5\n")
    layout = Trace(path, read_mapping([MAP], None, ())).survey().layout
    other = Trace(path, read_mapping([f"{MAP},latency_ms=ms"], None, ())).survey().layout
    values = {name: other if name == "layout" else value for name, value in change.items()}
    first = Assumptions("0", layout=layout)
    second = Assumptions("0", **({"layout": layout} | values))  # type: ignore[arg-type]
    assert first.namespace != second.namespace
