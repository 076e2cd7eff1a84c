"""What revisions take from outside the directory, as their text tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.history.surroundings import digest_of, imported, passing


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = os.environ['A']", "os.environ"),
        ("from os import getenv", "getenv"),
        ("context.get_x_argument()", "get_x_argument"),
        ("rows = open('rows.csv')", "open"),
        ("import requests", "requests"),
        ("op.get_bind().execute(sa.text('SELECT 1'))", None),
        ("reopened = sa.Column('open', sa.Boolean)", None),
    ],
)
def test_passing(tmp_path: Path, text: str, found: str | None) -> None:
    """What depends on the process is found; what asks the database does not count."""
    (tmp_path / "r1.py").write_text(text)
    assert passing(tmp_path / "r1.py") == found


def test_imported(tmp_path: Path) -> None:
    """Packages by their first name; not the standard library's, Alembic's or SQLAlchemy's."""
    text = "import os, first.inner as f\nfrom second.models import x\n    import third\nfrom alembic import op"
    (tmp_path / "r1.py").write_text(text)
    assert imported([tmp_path / "r1.py"]) == {"first", "second", "third"}


def test_another_package_is_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an imported package that changes changes the digest; one that is not there does no harm."""
    package = tmp_path / "made_up_models"
    package.mkdir()
    (package / "__init__.py").write_text("A = 1")
    monkeypatch.syspath_prepend(tmp_path)
    before = digest_of({"made_up_models", "made_up_nothing"})
    (package / "__init__.py").write_text("A = 2")
    assert digest_of({"made_up_models", "made_up_nothing"}) != before
