"""Names of schemas and databases that are ours, beside the tenants'. Sources by pattern leave them out."""

from __future__ import annotations

import hashlib

#: Stands beside a tenant for as long as it is being restored.
RESTORE = "orchestrator_restore_"
#: Nobody's tenant, for as long as somebody looks at it.
SCRATCH = "orchestrator_scratch_"
#: A database that is being made for a new tenant.
NEW = "orchestrator_new_"
#: What new databases are copied from.
TEMPLATE = "orchestrator_template_"
#: A copy of a template that is kept for whoever comes next.
READY = "orchestrator_ready_"
#: A tenant that has been taken out and is to be dropped later.
OFFBOARDED = "orchestrator_offboarded_"

#: How the names of all of them begin.
OURS = (RESTORE, SCRATCH, NEW, TEMPLATE, READY, OFFBOARDED)


def beside(kind: str, name: str, run: str = "") -> str:
    """What stands beside the schema or database ``name`` is called while it is restored; after a kill, too.

    Args:
        kind: ``new``, ``old`` or ``kept``.
        name: the tenant's.
        run: the id of the run, where each has its own.
    """
    digest = hashlib.sha256(f"{name}\0{run}".encode()).hexdigest()[:16]
    return f"{RESTORE}{kind}_{digest}"


def offboarded(name: str, run: str) -> str:
    """What a tenant's schema, database or file is called once it is set aside; a later one of its name, otherwise.

    Args:
        name: the tenant's, or its file's path.
        run: the id of the run.
    """
    return OFFBOARDED + hashlib.sha256(f"{name}\0{run}".encode()).hexdigest()[:16]
