"""What a migration gets that connects through ``op.get_bind().engine``: a second connection in its tenant's scope.

Inspectors made from an engine do, and old recipes for work outside the transaction. Given the migrating connection
itself, they would commit its transaction or, on being closed, roll it back: the revision's work would be gone, and its
version bumped.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, Pool, StaticPool


class OnePool(StaticPool):
    """Keeps one connection; whoever asks while that is in use gets another, which is closed after use."""

    #: The connection that is being opened is such another one.
    another = False
    _lent: ConnectionPoolEntry | None = None

    def _do_get(self) -> ConnectionPoolEntry:
        if self._lent is None:
            self._lent = super()._do_get()
            return self._lent
        self.another = True
        try:
            return Pool._create_connection(self)  # StaticPool's own refuses
        finally:
            self.another = False

    def _do_return_conn(self, record: Any) -> None:
        if record is self._lent:
            self._lent = None
        else:
            record.close()
