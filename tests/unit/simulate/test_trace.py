"""Reading a trace: the real format, its variants, and rows that cannot be read."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpu_token_analytics.errors import TraceUnreadable
from gpu_token_analytics.simulate.trace import BadRow, TraceRow, read_trace, survey
from gpu_token_analytics.wire.times import from_us

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
SHARED = Path(
    os.environ.get("GPU_TOKENS_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data"
)
CONVERSATIONS = SHARED / "traces" / "AzureLLMInferenceTrace_conv.csv"


def read(tmp_path: Path, text: str | bytes) -> tuple[list[TraceRow], list[BadRow]]:
    path = tmp_path / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    bad: list[BadRow] = []
    return list(read_trace(path, bad.append)), bad


def test_azure_format(tmp_path: Path) -> None:
    """Seven fractional digits, no zone (UTC), CRLF, no newline at the end."""
    rows, bad = read(
        tmp_path,
        f"{HEADER}\r\n2023-11-16 18:15:46.6805907,374,44\r\n2023-11-16 18:15:50.9951690,396,109",
    )
    assert not bad
    assert [(row.number, row.line, row.context_tokens, row.generated_tokens) for row in rows] == [
        (1, 2, 374, 44),
        (2, 3, 396, 109),
    ]
    assert from_us(rows[0].arrival_us) == datetime(2023, 11, 16, 18, 15, 46, 680590, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "\ufefftimestamp, context_tokens, Generated Tokens\n2023-11-16 18:15:46,1,2\n",
        "GeneratedTokens,model,ContextTokens,TIMESTAMP\n2,x,1,2023-11-16T18:15:46Z\n",
        f'\n\n{HEADER}\n\n"2023-11-16 18:15:46.000"," 1 ","2"\n \n',
        f"{HEADER}\n2023-11-16 19:15:46.0+01:00,1,2\n",
        (
            '"TIMESTAMP","ContextTokens","GeneratedTokens","note"\n2023-11-16 18:15:46,1,2,"a, b '
            '""c"""\n'
        ),
        f"{HEADER}\n2023-11-16 18:15:46.123,1.0,2.0\n".replace(".123", ""),
    ],
    ids=[
        "names-and-bom",
        "order-and-more-columns",
        "blank-lines-and-quotes",
        "zone",
        "quoted-comma",
        "whole-floats",
    ],
)
def test_variants_read_the_same(tmp_path: Path, text: str) -> None:
    rows, bad = read(tmp_path, text)
    assert not bad
    assert [
        (from_us(row.arrival_us), row.context_tokens, row.generated_tokens) for row in rows
    ] == [(datetime(2023, 11, 16, 18, 15, 46, tzinfo=UTC), 1, 2)]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("2023-11-16 18:15:46", "1 columns, 3 expected"),
        ("yesterday,1,2", "TIMESTAMP='yesterday'"),
        ("2023-13-16 18:15:46,1,2", "TIMESTAMP='2023-13-16 18:15:46'"),
        ("1970-01-01 00:00:00,1,2", "outside 2015"),
        ("2023-11-16 18:15:46,-1,2", "ContextTokens='-1'"),
        ("2023-11-16 18:15:46,1,NaN", "GeneratedTokens='NaN'"),
        ("2023-11-16 18:15:46,1,", "GeneratedTokens=''"),
        ("2023-11-16 18:15:46,999999999,2", "ContextTokens=999999999 is more than"),
        ("2023-11-16 18:15:46,1.5,2", "ContextTokens='1.5'"),
        ('"2023-11-16 18:15:46,\0,2', "not CSV"),
        ("2023-11-16 18:15:46,9799600,1,2", "4 columns, 3 expected"),
        ('"2023-11-16 18:15:46,9799600",1,2', "TIMESTAMP='2023-11-16 18:15:46,9799600'"),
        ("2023-11-16 18:15:46,1,024,2", "4 columns, 3 expected"),
        ('2023-11-16 18:15:46,"1,24",2', "ContextTokens='1,24'"),
        ('2023-11-16 18:15:46,"1.024",2', "ContextTokens='1.024'"),
        ("2023-11-16 18:15:46,1 024,2", "ContextTokens='1 024'"),
        ("2023-11-16 18:15:46,1,2,", "4 columns, 3 expected"),
        ("2023-11-16 18:15:46,1,024", "GeneratedTokens='024'"),
        ('2023-11-16 18:15:46,"0,024",2', "ContextTokens='0,024'"),
        ("2023-11-16 18:15:46,1e3,2", "ContextTokens='1e3'"),
        ("2023-11-16 18:15:46;1;2", "1 columns, 3 expected"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_costs_no_other(
    tmp_path: Path, row: str, named: str
) -> None:
    rows, bad = read(
        tmp_path, f"{HEADER}\n2023-11-16 18:15:40,1,2\n{row}\n2023-11-16 18:15:50,3,4\n"
    )
    assert [item.line for item in bad] == [3]
    assert named in bad[0].problem
    assert [(item.number, item.line, item.context_tokens) for item in rows] == [
        (1, 2, 1),
        (2, 4, 3),
    ]


@pytest.mark.parametrize(
    ("count", "tokens"), [('"1,024"', 1024), ('"12,345,678"', 12_345_678), ('"1,024.0"', 1024)]
)
def test_a_quoted_count_may_have_thousands_separators(
    tmp_path: Path, count: str, tokens: int
) -> None:
    rows, bad = read(tmp_path, f"{HEADER}\n2023-11-16 18:15:46,{count},10\n")
    assert not bad
    assert [(row.context_tokens, row.generated_tokens) for row in rows] == [(tokens, 10)]


@pytest.mark.parametrize(
    ("name", "tokens", "bad_rows"),
    [("trace-thousands-separator.csv", [(1024, 10)], 0), ("trace-comma-in-seconds.csv", [], 1)],
)
def test_the_cases_of_commas(name: str, tokens: list[tuple[int, int]], bad_rows: int) -> None:
    path = SHARED / "cases" / name
    if not path.exists():
        pytest.skip(f"{name} is not here (GPU_TOKENS_SHARED_DATA)")
    bad: list[BadRow] = []
    rows = list(read_trace(path, bad.append))
    assert ([(row.context_tokens, row.generated_tokens) for row in rows], len(bad)) == (
        tokens,
        bad_rows,
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n \n",
        b"a,b\n1,2\n",
        b"TIMESTAMP,ContextTokens,GeneratedTokens,Context Tokens\n2023-11-16 18:15:46,1,2,3\n",
        b"\x1f\x8b\x08\x00\xff\xfe",
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(TraceUnreadable, match="TIMESTAMP,ContextTokens,GeneratedTokens"):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceUnreadable, match="no-such"):
        survey(tmp_path / "no-such.csv")


def test_survey_identifies_the_content(tmp_path: Path) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.write_text(f"{HEADER}\n2023-11-16 18:15:46,1,2\nbad\n")
    first, second = (survey(path) for path in paths)
    assert first == second
    assert (first.rows, first.bad_rows) == (1, 1)


@pytest.mark.skipif(
    not CONVERSATIONS.exists(), reason=f"{CONVERSATIONS.name} is not here (GPU_TOKENS_SHARED_DATA)"
)
def test_the_whole_conversation_trace() -> None:
    bad: list[BadRow] = []
    rows = list(read_trace(CONVERSATIONS, bad.append))
    assert not bad
    assert len(rows) == 19_366
    assert sum(row.context_tokens for row in rows) == 22_361_870
    assert sum(row.generated_tokens for row in rows) == 4_088_665
