"""A run as Markdown for a ticket: what is in it, and that nothing in it is taken for Markdown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from orchestrator.journal.records import Actor, AttemptRecord, RunRecord
from orchestrator.rollout.markdown import block, code, table
from orchestrator.rollout.report import report
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.waves import WaveRecord, WaveState
from orchestrator.statuses import RunStatus, TenantStatus

MOMENT = datetime(2026, 11, 22, 21, 53, 7, tzinfo=UTC)
MARKDOWN = MarkdownIt("commonmark").enable("table")


def an_attempt(tenant: str, status: TenantStatus, wave: str, **more: object) -> AttemptRecord:
    """A tenant that took a second for each letter of its name."""
    ended = MOMENT + timedelta(seconds=len(tenant))
    attempt = AttemptRecord(
        "r", tenant, wave, status, ("a",), ("b",), 1, len(tenant) * 1000.0, "alembic", None, MOMENT, ended
    )
    return replace(attempt, **more)  # type: ignore[arg-type]


def a_result() -> RunResult:
    """Two waves; the second failed on two tenants for one cause, and was taken back."""
    run = RunRecord(
        "20261122-215307-k7m2p", "upgrade", ("b",), "heads", RunStatus.FAILED, MOMENT, MOMENT + timedelta(seconds=90),
        Actor("alice", "ops-1", 1, None, "0123abc"),
    )  # fmt: skip
    error = {
        "type": "UndefinedTable",
        "sqlstate": "42P01",
        "message": 'relation "a|b" does not exist\n```\n# no heading\n| no | table |',
        "revision": "b",
        "statement": "SELECT `x` FROM a|b",
        "hint": "mend <b>it</b>",
    }
    tenants = (
        an_attempt("canary", TenantStatus.SUCCEEDED, "first"),
        an_attempt("pi|pe", TenantStatus.FAILED, "se`cond", error=error),
        an_attempt("pipes", TenantStatus.FAILED, "se`cond", error=error),
        AttemptRecord("r", "late", "third", TenantStatus.NOT_STARTED, ("a",), ("a",)),
    )
    waves = (
        WaveRecord("first", WaveState.DONE),
        WaveRecord("se`cond", WaveState.FAILED, reason="2 of 2 | failed\nall", rolled_back="20261122-215400-bbbbb"),
    )
    backup = {"tenant": "canary", "file": "/b/canary.dump", "bytes": 1024, "sha256": "f" * 64, "heads": ["a"]}
    return RunResult(run, tenants, waves, (backup,))


def cells(text: str) -> list[list[str]]:
    """What the tables in ``text`` have in their rows, as a reader sees it."""
    rows: list[list[str]] = []
    for token in MARKDOWN.parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 3:
            rows[-1].append(seen(token))
    return rows


def seen(token: Token) -> str:
    """An inline's text, without its tags."""
    return "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))


def test_report_has_what_a_ticket_needs() -> None:
    """Waves with durations and what took them back, causes with example and retry, the slowest, the backups."""
    text = report(a_result())
    assert text.startswith("# Run 20261122-215307-k7m2p: upgrade\n")
    assert "- status: **failed**: 2 failed, 1 not_started, 1 succeeded\n" in text
    assert "- took: 90.0 s\n- by: `alice@ops-1`\n- commit: `0123abc`\n" in text
    rows = cells(text)
    assert rows[1] == ["first", "done", "1 succeeded", "6.0 s", ""]
    assert rows[2][:4] == ["se`cond", "failed", "2 failed", "5.0 s"]
    assert rows[2][4] == "2 of 2 | failed all; taken back by run 20261122-215400-bbbbb"
    assert rows[3] == ["third", "", "1 not_started", "", ""]
    assert "2 tenants, 1 cause" in text
    assert "- again: `orchestrator resume 20261122-215307-k7m2p`" in text
    assert [row[0] for row in rows if row[1:2] in (["6.0 s"], ["5.0 s"])] == ["canary", "pipes", "pi|pe"]
    assert ["canary", "/b/canary.dump", "1024", "ffffffffffff"] in rows


def test_what_was_said_is_shown_as_it_is() -> None:
    """A message with a fence, a heading and a table in it is one block of code."""
    tokens = MARKDOWN.parse(report(a_result()))
    headings = [seen(after) for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert headings == [
        "Run 20261122-215307-k7m2p: upgrade",
        "Waves",
        "Failures",
        "1. 2 tenants, for example pi|pe (failed)",
        "Slowest tenants",
        "Backups",
    ]
    fences = [token.content for token in tokens if token.type == "fence"]
    assert fences[0] == 'relation "a|b" does not exist\n```\n# no heading\n| no | table |\n'
    assert fences[1:] == ["SELECT `x` FROM a|b\n", "mend <b>it</b>\n"]


def test_a_run_without_waves_or_failures_is_short() -> None:
    """Nothing is headed that is not there."""
    result = a_result()
    plain = RunResult(replace(result.run, status=RunStatus.SUCCEEDED), result.tenants[:1])
    assert [line for line in report(plain).splitlines() if line.startswith("## ")] == ["## Slowest tenants"]


#: What CommonMark takes out or replaces wherever it stands (NUL), and what only a parser's own idea of blanks decides.
_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), whitelist_characters=" \n"))


@given(_TEXT)
@pytest.mark.parametrize("wrapped", [lambda text: text, lambda text: f"`{text}|\\"])
def test_any_text_is_one_cell(wrapped: object, text: str) -> None:
    """Whatever is in it, a table's cell shows it and the table stays whole."""
    text = wrapped(text)  # type: ignore[operator]
    rows = cells(table(("one", "two"), [(code(text), "end")]))
    assert len(rows) == 2
    assert rows[1][1] == "end"
    assert " ".join(rows[1][0].split()) == " ".join(text.split())


@given(_TEXT)
def test_any_text_is_one_block(text: str) -> None:
    """A block of code ends where it is meant to."""
    tokens = MARKDOWN.parse(f"{block(text)}\n\nafter\n")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content.rstrip() == text.rstrip()
