"""Measure: ``python -m benchmarks.run [--quick] [--rows NAME...] [--out results.json]``.

Exit code 1 where a goal is not reached, 2 where nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, peers_directory
from benchmarks.machine import machine
from benchmarks.measuring import measure
from benchmarks.rows import ROWS
from benchmarks.server import running
from benchmarks.verdicts import Figure, RowResult


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows that are asked for, and say how each ended."""
    options = _parse(arguments)
    peers = peers_directory()
    with running() as server, tempfile.TemporaryDirectory(prefix="orc-bench-") as directory:
        bench = Bench(server, peers, Path(directory), options.quick, _narrate)
        document: dict[str, Any] = {
            "quick": options.quick,
            "repetitions": bench.repetitions,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_before": os.getloadavg()[0],
            "machine": machine(bench),
            "rows": [],
        }
        _warm_up(bench)
        results = []
        for name in options.rows:
            _narrate(f"{name} ...")
            started = time.monotonic()
            results.append(ROWS[name](bench))
            document["rows"].append({**results[-1].as_json(), "took_s": round(time.monotonic() - started, 1)})
            for line in lines(results[-1]):
                print(line, flush=True)
            if options.out:
                # After each row: what was found is not lost with what comes after.
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0 if all(result.ok for result in results) else 1


def lines(result: RowResult) -> list[str]:
    """One line for each figure of a row, and one for each who failed."""
    failed = [f"{result.name:<17} {each.name} failed" for each in result.subjects if each.problem]
    return [*(_line(result.name, figure) for figure in result.figures), *failed]


def _line(row: str, figure: Figure) -> str:
    value = "-" if figure.value is None else f"{figure.value:.2f}"
    bound = "at most" if figure.at_most else "at least"
    return f"{row:<17} {figure.what:<48} {value:>8} {figure.unit:<2} {bound} {figure.goal:g}  {figure.verdict}"


def _warm_up(bench: Bench) -> None:
    """Have everybody's modules compiled and in memory before the first measurement."""
    measure([bench.ours / "orchestrator", "upgrade", "--help"], bench.directory)
    measure([bench.peers / "alembic", "--help"], bench.directory)


def _narrate(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller counts, extrapolated; about two minutes")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--out", type=Path, help="file for the results, which benchmarks.report reads")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
