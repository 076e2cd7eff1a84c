"""Blueprints on disk."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import MetaData

from orchestrator.databases.postgresql.script import Snapshot, Step
from orchestrator.rollout.blueprints import Blueprint, Blueprints, described, key_of

STEP = Step(("r1",), (), ("r1",), ("SELECT 1", "it's"), "CREATE TABLE v ()")
WHOLE = Blueprint(("r1",), "ab", {"a": "1"}, STEP, Snapshot("s", "SELECT 2", ("r1",)), None, {"replay": "why"}, "f")


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    """Equal to what was saved, in another process too, and readable by nobody else: rows may be in it."""
    Blueprints(tmp_path / "new").save("0a", WHOLE)
    assert Blueprints(tmp_path / "new").load("0a") == WHOLE
    assert (tmp_path / "new" / "0a.json").stat().st_mode & 0o077 == 0
    assert Blueprints(tmp_path / "new").load("0b") is None


def test_what_is_cut_off_was_never_made(tmp_path: Path) -> None:
    """Half a file, or one of another form, is no blueprint."""
    store = Blueprints(tmp_path)
    store.save("0a", WHOLE)
    file = tmp_path / "0a.json"
    file.write_text(file.read_text()[:-9])
    assert store.load("0a") is None
    file.write_text('{"heads": []}')
    assert store.load("0a") is None


def test_nowhere_to_write(tmp_path: Path) -> None:
    """A directory that cannot be made keeps nothing, and does no harm."""
    (tmp_path / "file").write_text("")
    Blueprints(tmp_path / "file").save("0a", WHOLE)


def test_options_as_text() -> None:
    """The same in every process: no addresses in memory; a naming convention counts."""

    def named() -> None:
        """To be named."""

    text = described({"b": MetaData(naming_convention={"pk": "pk_%(table_name)s"}), "a": [1, "x"], "c": named})
    assert list(text) == ["a", "b", "c"]
    assert "0x" not in str(text)
    assert text["b"] != described({"b": MetaData()})["b"]
    assert text == described({"a": [1, "x"], "b": MetaData(naming_convention={"pk": "pk_%(table_name)s"}), "c": named})


def test_keys() -> None:
    """16 hex digits, another one for anything that differs."""
    assert len(key_of("a", ("b",))) == 16
    assert key_of("a") != key_of("b")
