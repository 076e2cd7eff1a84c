"""A transcript from base to a target as one transaction: for a place that is empty, and is to be empty or whole."""

from __future__ import annotations

import re

from orchestrator.databases.failures import shortened
from orchestrator.databases.postgresql.script import Step
from orchestrator.migration.replay import Transcript

#: What holds to the end of its transaction: with all revisions in one, it would reach those that follow.
_TO_THE_END = re.compile(
    r"\bSET\s+(?:LOCAL|CONSTRAINTS)\b|\bset_config\s*\(|\bON\s+COMMIT\b|\bpg_advisory_xact_lock", re.IGNORECASE
)


def whole(transcript: Transcript) -> Step | str:
    """All of ``transcript`` as one step, or why that cannot be."""
    transactions = transcript.transactions
    if not transactions:
        return "two scratch tenants were migrated in different ways"
    for each in transactions:
        if each.reason is not None:
            return f"{each.step.revisions[0]}: {each.reason}"
    if len(transactions) > 1:
        for each in transactions[:-1]:
            for statement in each.step.statements:
                if _TO_THE_END.search(statement):
                    return f"{each.step.revisions[0]}: holds to the end of its transaction: {shortened(statement)}"
    steps = [each.step for each in transactions]
    return Step(
        tuple(revision for step in steps for revision in step.revisions),
        steps[0].before,
        steps[-1].after,
        tuple(statement for step in steps for statement in step.statements),
        steps[0].version_table,
    )
