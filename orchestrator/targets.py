"""What a revision may be called where one is asked for.

Below all that knows Alembic: an application asks while somebody waits for it.
"""

from __future__ import annotations

import re

from orchestrator.errors import UsageError

#: ``+1``, ``-2``, ``label@-1``, ``3f2a9c+1``: counted from where a tenant is, or from a revision.
_RELATIVE = re.compile(r"(?:.+@)?\w*[+-]\d+")


def is_relative(target: str) -> bool:
    """Whether ``target`` counts steps instead of naming where they end."""
    return _RELATIVE.fullmatch(target) is not None


def require_named(target: str) -> None:
    """Refuse what names no revision: an unset variable of a shell, which Alembic would take for the heads.

    Raises:
        UsageError: it is blank, or one of several that commas join is.
    """
    if not all(part.strip() for part in target.split(",")):
        raise UsageError(
            f"{target!r} names no revision" if target.strip() else "the revision is empty",
            hint="name one, or `heads` or `base`; a shell variable that is not set leaves it empty",
        )


def require_absolute(revision: str) -> None:
    """Refuse what is not the same revision for every tenant.

    Raises:
        UsageError: it is blank, or counted from where each tenant is.
    """
    require_named(revision)
    if is_relative(revision):
        raise UsageError(f"{revision} is another revision for each tenant", hint="name one; alembic history lists them")
