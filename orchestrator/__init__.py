"""Apply one shared Alembic versions directory to every tenant of a SaaS.

Importing this package is cheap: names are looked up when they are first used, so that ``orchestrator --help`` waits for
neither SQLAlchemy nor Alembic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.actions.backup import backup
    from orchestrator.actions.check import check
    from orchestrator.actions.doctor import doctor
    from orchestrator.actions.downgrade import downgrade
    from orchestrator.actions.drift import drift
    from orchestrator.actions.execution import Execution, Watch
    from orchestrator.actions.lint import lint
    from orchestrator.actions.offboard import offboard
    from orchestrator.actions.offboarding.purge import list_set_aside, purge
    from orchestrator.actions.offboarding.undo import undo_offboarding
    from orchestrator.actions.onboard import onboard
    from orchestrator.actions.onboarding.desk import onboarding
    from orchestrator.actions.plan import plan
    from orchestrator.actions.pool import drop_pools, fill_pools
    from orchestrator.actions.rehearse import rehearse
    from orchestrator.actions.rehearsing.clones import Clones
    from orchestrator.actions.require import require
    from orchestrator.actions.restore import restore
    from orchestrator.actions.resume import resume
    from orchestrator.actions.revision import revision
    from orchestrator.actions.rollback import plan_rollback, rollback
    from orchestrator.actions.runs import list_runs, show_run
    from orchestrator.actions.stamp import stamp
    from orchestrator.actions.status import Narrowed, status
    from orchestrator.actions.upgrade import upgrade
    from orchestrator.environment import for_each_tenant
    from orchestrator.errors import OrchestratorError, RevisionMissing
    from orchestrator.fleet.load import load
    from orchestrator.fleet.selection import Selection
    from orchestrator.fleet.tenant import Tenant

__version__ = "0.1.0"

_HOMES = {
    "Clones": "orchestrator.actions.rehearsing.clones",
    "Execution": "orchestrator.actions.execution",
    "Narrowed": "orchestrator.actions.status",
    "OrchestratorError": "orchestrator.errors",
    "RevisionMissing": "orchestrator.errors",
    "Selection": "orchestrator.fleet.selection",
    "Tenant": "orchestrator.fleet.tenant",
    "Watch": "orchestrator.actions.execution",
    "backup": "orchestrator.actions.backup",
    "check": "orchestrator.actions.check",
    "doctor": "orchestrator.actions.doctor",
    "downgrade": "orchestrator.actions.downgrade",
    "drift": "orchestrator.actions.drift",
    "drop_pools": "orchestrator.actions.pool",
    "fill_pools": "orchestrator.actions.pool",
    "for_each_tenant": "orchestrator.environment",
    "lint": "orchestrator.actions.lint",
    "list_runs": "orchestrator.actions.runs",
    "list_set_aside": "orchestrator.actions.offboarding.purge",
    "load": "orchestrator.fleet.load",
    "offboard": "orchestrator.actions.offboard",
    "onboard": "orchestrator.actions.onboard",
    "onboarding": "orchestrator.actions.onboarding.desk",
    "plan": "orchestrator.actions.plan",
    "plan_rollback": "orchestrator.actions.rollback",
    "purge": "orchestrator.actions.offboarding.purge",
    "rehearse": "orchestrator.actions.rehearse",
    "require": "orchestrator.actions.require",
    "restore": "orchestrator.actions.restore",
    "resume": "orchestrator.actions.resume",
    "revision": "orchestrator.actions.revision",
    "rollback": "orchestrator.actions.rollback",
    "show_run": "orchestrator.actions.runs",
    "stamp": "orchestrator.actions.stamp",
    "status": "orchestrator.actions.status",
    "undo_offboarding": "orchestrator.actions.offboarding.undo",
    "upgrade": "orchestrator.actions.upgrade",
}

__all__ = [
    "Clones",
    "Execution",
    "Narrowed",
    "OrchestratorError",
    "RevisionMissing",
    "Selection",
    "Tenant",
    "Watch",
    "backup",
    "check",
    "doctor",
    "downgrade",
    "drift",
    "drop_pools",
    "fill_pools",
    "for_each_tenant",
    "lint",
    "list_runs",
    "list_set_aside",
    "load",
    "offboard",
    "onboard",
    "onboarding",
    "plan",
    "plan_rollback",
    "purge",
    "rehearse",
    "require",
    "restore",
    "resume",
    "revision",
    "rollback",
    "show_run",
    "stamp",
    "status",
    "undo_offboarding",
    "upgrade",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
