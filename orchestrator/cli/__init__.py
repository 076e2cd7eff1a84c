"""The command line: one file per command, results rendered for people or as JSON."""

from __future__ import annotations


def main() -> None:
    """The ``orchestrator`` command."""
    from orchestrator.cli import lifetime

    lifetime.begin()
    from orchestrator.cli.group import run

    try:
        run()
    except SystemExit as end:
        lifetime.end(end.code)
        raise
