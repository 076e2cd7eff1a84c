"""The shared Alembic directory as values."""

from __future__ import annotations

import sys
from typing import Any


def _import_alembic() -> None:
    """Import Alembic without Pygments.

    Alembic imports Mako's error pages, and those import Pygments where it happens to be installed (with rich it is), to
    colour pages that nobody looks at. That is a tenth of what ``status`` takes.
    """
    name = "mako.ext.pygmentplugin"
    modules: dict[str, Any] = sys.modules
    if name in modules:
        import alembic.util
    else:
        modules[name] = None  # how Python is told that there is no such module; Mako then does without
        try:
            import alembic.util  # noqa: F401
        finally:
            del modules[name]


_import_alembic()
