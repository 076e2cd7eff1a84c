"""The page that the benchmarks write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks import report
from benchmarks.charts import bars
from benchmarks.verdicts import Figure, RowResult, Sample, Subject


def results(**more: Any) -> dict[str, Any]:
    """What a run writes: one row, with one goal reached and one not."""
    ours = Subject("orchestrator", 100, (Sample(1.0, 0.5, 1024), Sample(3.0, 0.5, 1024)))
    shell = Subject("shell loop", 20, (Sample(10.0, 9.0, 1024),))
    gone = Subject("psql", 100, problem="there is no psql on this machine")
    figures = (
        Figure("shell loop : orchestrator", 25.0, 20, at_most=False),
        Figure("o : psql", None, 1.5, at_most=True),
    )
    subjects = (ours, shell, gone)
    row = RowResult("one-revision", "1 revision x 100 schemas", 100, subjects, figures, ("a {note}",))
    return {
        "quick": False,
        "repetitions": 5,
        "started_at": "2026-01-02T03:04:05+00:00",
        "machine": {"processor": "a fast one"},
        "rows": [{**row.as_json(), "took_s": 600.0}],
        **more,
    }


def test_page_has_every_number() -> None:
    """Goals, medians, where they come from, the machine, what was tried; and no place left unfilled."""
    page = report.page(results(), "performance")
    assert "Measured on 2026-01-02: 1 of 2 goals reached.\nNot reached: one-revision, o : psql (-)." in page
    assert "| 1 revision x 100 schemas | shell loop : orchestrator | 25.00 x | at least 20 x | ok |" in page
    assert "| 1 revision x 100 schemas | o : psql | - | at most 1.5 x | missing |" in page
    assert "| orchestrator | 2.00 | 20.00 ms | 1.00 to 3.00 | 2 |  |" in page
    assert "| shell loop | 50.00 | 500.00 ms | 10.00 to 10.00 | 1 | extrapolated from 20 (10.00 s) |" in page
    assert "| psql | - | - | - | 0 | there is no psql on this machine |" in page
    assert "| processor | a fast one |" in page
    assert "20 tenants, extrapolated" in page
    assert "about 10 minutes" in page
    assert "- a {note}" in page
    assert "{" not in page.replace("{note}", "")


def test_a_quick_run_says_so() -> None:
    """Nobody takes extrapolated numbers for measured ones."""
    assert "From a quick run" in report.page(results(quick=True), "performance")
    assert "From a quick run" not in report.page(results(), "performance")


def test_files_are_written(tmp_path: Path) -> None:
    """The page, and beside it the pictures that it shows."""
    source, page = tmp_path / "results.json", tmp_path / "docs" / "performance.md"
    source.write_text(json.dumps(results()), encoding="utf-8")
    assert report.main([str(source), "--page", str(page)]) == 0
    assert "](performance/one-revision.svg)" in page.read_text(encoding="utf-8")
    assert (tmp_path / "docs" / "performance" / "one-revision.svg").is_file()


def test_bars_are_as_long_as_their_values() -> None:
    """Twice the seconds, twice the width; ours is marked; text is escaped."""
    image = ElementTree.fromstring(bars("a < b", [("ours", 2.0, True), ("peer & co", 4.0, False)], "s"))
    drawn = [(each.get("class"), float(each.get("width"))) for each in image.iter() if each.tag.endswith("rect")]
    assert [kind for kind, _ in drawn] == ["ours", "peer"]
    assert drawn[1][1] == 2 * drawn[0][1]
    assert {"a < b", "peer & co", "4.00 s"} <= {each.text for each in image.iter() if each.tag.endswith("text")}


def test_a_bar_that_would_hide_the_others_is_told_instead() -> None:
    """A loop a hundred times as slow would leave nothing of the others to see."""
    row = RowResult.from_json(results()["rows"][0])
    slow = Subject("shell loop", 100, (Sample(1000.0, 1.0, 1),))
    picture = report.chart(RowResult("one-revision", "work", 100, (*row.subjects[:1], slow), ()))
    assert picture.count("<rect") == 1
    assert "Not drawn: shell loop 1000 s" in picture
