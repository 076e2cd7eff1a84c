"""The shared directory as values: targets, paths, digests, and what a broken one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import HistoryError
from orchestrator.history.directory import DOWNGRADE, UPGRADE, History
from tests.unit.history.directories import Revision, directory, line, read

BRANCHED = [*line("a1", "a2"), Revision("b1", ("a1",)), *line("s1", "s2", label="shared")]


def write(root: Path, **files: str) -> Path:
    """An Alembic directory with these files as its versions."""
    (root / "versions").mkdir(exist_ok=True)
    for name, text in files.items():
        (root / "versions" / f"{name}.py").write_text(text, encoding="utf-8")
    return root


def revision(name: str, down: str | None = None) -> str:
    """A revision file."""
    return Revision(name, (down,) if down else ()).text


@pytest.mark.parametrize(
    ("target", "revisions"),
    [
        ("heads", ("a2", "b1", "s2")),
        ("shared@head", ("s2",)),
        ("base", ()),
        ("a1", ("a1",)),
    ],
)
def test_resolve(target: str, revisions: tuple[str, ...]) -> None:
    """A target as typed stands for full identifiers."""
    with directory(BRANCHED) as history:
        assert history.resolve(target) == revisions


def test_resolve_the_start_of_an_identifier() -> None:
    """The first letters are enough where they mean one revision, and are refused where they mean several."""
    with directory(line("feed0001", "feed0002", "cafe0003")) as history:
        assert history.resolve("cafe") == ("cafe0003",)
        with pytest.raises(HistoryError, match="'feed'"):
            history.resolve("feed")


@pytest.mark.parametrize(
    ("target", "hint"), [("nowhere", "alembic history"), ("head", "heads"), ("ghost@head", "alembic history")]
)
def test_resolve_refuses(target: str, hint: str) -> None:
    """No such revision, no such label, `head` where there are several: an error with what to type."""
    with directory(BRANCHED) as history, pytest.raises(HistoryError) as refused:
        history.resolve(target)

    assert target in refused.value.message
    assert hint in (refused.value.hint or "")


def test_head_of_one() -> None:
    """With one head, `head` and `heads` are the same."""
    with directory(line("a", "b")) as history:
        assert history.resolve("head") == history.resolve("heads") == ("b",)


def test_directory_without_revisions(tmp_path: Path) -> None:
    """An empty directory has no heads and nothing to run."""
    history = read(write(tmp_path))

    assert (history.heads, history.resolve("heads"), history.path(UPGRADE, (), "heads")) == ((), (), ())


def test_paths() -> None:
    """Ways up and down, in the order in which Alembic runs them."""
    with directory(line("a", "b", "c")) as history:
        assert history.path(UPGRADE, (), "heads") == ("a", "b", "c")
        assert history.path(UPGRADE, ("a",), "+1") == ("b",)
        assert history.path(DOWNGRADE, ("c",), "a") == ("c", "b")
        assert history.path(DOWNGRADE, ("c",), "base") == ("c", "b", "a")
        assert history.path(DOWNGRADE, ("c",), "-2") == ("c", "b")


def test_step_without_its_function() -> None:
    """A missing downgrade() is found before anything runs."""
    shape = [*line("a", "b"), Revision("c", ("b",), downgrade="")]
    with directory(shape) as history, pytest.raises(HistoryError, match=r"no downgrade\(\) function") as refused:
        history.path(DOWNGRADE, ("c",), "a")

    assert refused.value.hint


def test_more_steps_than_there_are() -> None:
    """+5 where two are left is refused, as Alembic does."""
    with directory(line("a", "b")) as history, pytest.raises(HistoryError, match=r"\+5"):
        history.path(UPGRADE, (), "+5")


def test_digest(tmp_path: Path) -> None:
    """Equal directories digest equal, wherever they are; any change of a file shows."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, a=revision("a"), b=revision("b", "a"))
    first, second = read(tmp_path / "one"), read(tmp_path / "two")
    assert first.digest == second.digest

    write(tmp_path / "two", b=revision("b", "a") + "# changed\n")

    changed = read(tmp_path / "two")
    assert changed.digest != first.digest
    assert changed.checksum("a") == first.checksum("a")


def test_message_is_the_first_line(tmp_path: Path) -> None:
    """What a revision says of itself."""
    history = read(write(tmp_path, a='"""Create accounts\n\nand more."""\n' + revision("a").split('"""', 2)[2]))

    assert history.message("a") == "Create accounts"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a": revision("a"), "b": "def upgrade(:\n"}, ["b.py", ":1", "SyntaxError"]),
        ({"a": "import no_such_module\n" + revision("a")}, ["a.py", "no_such_module"]),
        ({"a": revision("a", "ghost")}, ["a.py", "ghost"]),
        ({"a": revision("a"), "copy": revision("a")}, ["copy.py", "revision a", "a.py"]),
        ({"a": revision("a", "b"), "b": revision("b", "a")}, ["Cycle", "(a, b)"]),
        ({"a": "revision = 'a'\ndown_revision = None\nraise RuntimeError('at import')\n"}, ["a.py", ":3", "at import"]),
        ({"a": "x = 1\n"}, ["a.py", "revision ="]),
    ],
    ids=["syntax error", "bad import", "missing parent", "duplicate", "cycle", "raises", "no revision"],
)
def test_broken_directory(tmp_path: Path, files: dict[str, str], told: list[str]) -> None:
    """Whatever is wrong with a revision file is one error that names it, with the line where there is one."""
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s\npath_separator = os\n")
    write(tmp_path, **files)

    with pytest.raises(HistoryError) as refused:
        History.beside(tmp_path)

    assert [part for part in told if part not in refused.value.message] == []
    assert refused.value.hint


def test_no_configuration(tmp_path: Path) -> None:
    """Neither alembic.ini nor pyproject's section: the error says what to type."""
    (tmp_path / "pyproject.toml").write_text("[tool.other]\n")

    with pytest.raises(HistoryError, match=r"no alembic\.ini") as refused:
        History.beside(tmp_path)

    assert "orchestrator init" in (refused.value.hint or "")


def test_pyproject(tmp_path: Path) -> None:
    """The directory that pyproject.toml names is read; the interpreter's path is as Alembic leaves it."""
    (tmp_path / "history").mkdir()
    write(tmp_path / "history", a=revision("a"))
    (tmp_path / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "%(here)s/history"\n')

    assert History.beside(tmp_path).heads == ("a",)


def test_missing_directory(tmp_path: Path) -> None:
    """An alembic.ini that points nowhere says so."""
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/nowhere\npath_separator = os\n")

    with pytest.raises(HistoryError, match="nowhere"):
        History.beside(tmp_path)
