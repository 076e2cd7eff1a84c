"""Running use cases on an event loop."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cli.running import read


@dataclass(repr=False)
class Report:
    """A result that notes when it is made into text."""

    #: Times that happened.
    told: int = 0

    def __repr__(self) -> str:
        self.told += 1
        return "a long text"


def test_result_is_not_made_into_text() -> None:
    """A report on ten thousand tenants is handed over, not spelled out by the way."""

    async def work() -> Report:
        return Report()

    assert read(work()).told == 0
