"""The example SaaS: the tables that every tenant has, as the application knows them.

``alembic/env.py`` hands ``metadata`` to Alembic, which compares it with a tenant's database when it writes a
revision (``revision --autogenerate``) and when it checks that none is missing (``alembic check``).
"""

from examples.saas.accounts import Account, Membership, Plan, User
from examples.saas.base import Base
from examples.saas.billing import AuditEntry, Invoice, InvoiceLine
from examples.saas.work import Project, Task

metadata = Base.metadata

__all__ = [
    "Account",
    "AuditEntry",
    "Base",
    "Invoice",
    "InvoiceLine",
    "Membership",
    "Plan",
    "Project",
    "Task",
    "User",
    "metadata",
]
