"""How much each kind of hazard weighs for ``lint``, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.history.hazards import HazardKind
from orchestrator.statuses import Severity

#: Beginning of the name of a rule of squawk's.
SQUAWK_RULE = f"{HazardKind.SQUAWK}/"

#: Rules of squawk's that are looked at only where tenants.yaml says so, because something else sees to it.
_SEEN_TO = frozenset(
    {
        # Every session has both timeouts (policy in tenants.yaml).
        "require-lock-timeout",
        "require-statement-timeout",
        # A revision that fails is rolled back, and IF NOT EXISTS takes whatever is there for what was meant.
        "prefer-robust-stmts",
        # unguarded_autocommit
        "ban-concurrent-index-creation-in-transaction",
        # upgrade_loses_data
        "ban-drop-column",
        "ban-drop-table",
    }
)
#: How squawk calls what is a matter of style.
_STYLE = "prefer-"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of ``lint``."""

    #: Unless tenants.yaml says otherwise.
    severity: Severity
    #: What to do about a finding.
    hint: str


_OFF, _WARNING, _ERROR = Severity.OFF, Severity.WARNING, Severity.ERROR

RULES: Mapping[HazardKind, Rule] = {
    HazardKind.NO_DOWNGRADE: Rule(_ERROR, "write downgrade(), or let it raise and say why there is no way back"),
    HazardKind.EMPTY_DOWNGRADE: Rule(
        _ERROR, "write downgrade(): Alembic would move the version back and leave what upgrade() has made"
    ),
    HazardKind.IRREVERSIBLE: Rule(_WARNING, "rollback and downgrade will leave tenants alone that have this revision"),
    HazardKind.UPGRADE_LOSES_DATA: Rule(
        _ERROR, "back up first (upgrade --backup DIR), or drop it a release after nothing reads it any more"
    ),
    # Nearly every downgrade() does: `downgrade` and `rollback` tell it with the sizes of the tables, and ask.
    HazardKind.DOWNGRADE_LOSES_DATA: Rule(_OFF, "keep what it throws away, or take a backup first: --backup DIR"),
    HazardKind.READS_WITH_DDL: Rule(
        _WARNING, "put the reading into a revision of its own: this one holds its locks meanwhile, and is not replayed"
    ),
    HazardKind.GLOBAL_STATE: Rule(_WARNING, "keep nothing between tenants: this revision runs one tenant at a time"),
    HazardKind.NO_MESSAGE: Rule(_WARNING, "begin the file with a docstring that says what the revision is for"),
    HazardKind.SEVERAL_HEADS: Rule(_ERROR, "join them: alembic merge -m 'merge heads' heads"),
    HazardKind.ENUM_LEAK: Rule(
        _ERROR, "drop the type in downgrade(): upgrade() would find it there the next time, and fail"
    ),
    # Told by plan; a block that has a revision to itself is as it should be.
    HazardKind.AUTOCOMMIT: Rule(_OFF, "a failure in the block leaves the tenant partial"),
    HazardKind.UNGUARDED_AUTOCOMMIT: Rule(
        _ERROR, "give it a revision of its own: with op.get_context().autocommit_block(): ..., and nothing else"
    ),
    HazardKind.PUBLIC_NAME: Rule(
        _ERROR, "leave the schema out of the name, or give tenants databases of their own (isolation: database)"
    ),
    HazardKind.CONCURRENT_IF_NOT_EXISTS: Rule(
        _ERROR, "take IF NOT EXISTS out: an index that a failed try left INVALID would count as built"
    ),
    HazardKind.EDITED: Rule(_ERROR, "put the file back, and write a new revision"),
    HazardKind.BAD_IGNORE: Rule(_ERROR, "write it as `# orchestrator: ignore RULE: reason`"),
    HazardKind.NOT_LINTED: Rule(
        _ERROR, "read it yourself, then say so in the file: # orchestrator: ignore not_linted: reason"
    ),
    HazardKind.SQUAWK: Rule(_ERROR, "see https://squawkhq.com/docs/rules"),
}

#: What no comment in a revision's file can excuse.
NOT_IGNORED = frozenset({HazardKind.BAD_IGNORE, HazardKind.EDITED, HazardKind.SEVERAL_HEADS})


def is_rule(name: str) -> bool:
    """Whether ``name`` is a rule's, as far as that can be told: those of squawk's only it knows."""
    return name in RULES or (name.startswith(SQUAWK_RULE) and name != SQUAWK_RULE)


def severity_of(rule: str, chosen: Mapping[str, Severity]) -> Severity:
    """How much a rule weighs.

    Args:
        rule: one of :class:`HazardKind`, or ``squawk/`` and squawk's own name of it.
        chosen: what tenants.yaml says, by the same names; ``squawk`` is all of its rules.
    """
    if rule in chosen:
        return chosen[rule]
    if not rule.startswith(SQUAWK_RULE):
        return RULES[HazardKind(rule)].severity
    own = rule.removeprefix(SQUAWK_RULE)
    if own in _SEEN_TO:
        return _OFF
    return chosen.get(HazardKind.SQUAWK) or (_WARNING if own.startswith(_STYLE) else _ERROR)
