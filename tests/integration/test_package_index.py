"""What tests fetch: without an index they fail, and say why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import package_index


def test_no_index_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that cannot be fetched fails the test, with what pip said; what is half done is not taken for whole."""
    monkeypatch.setattr(package_index, "CACHE", tmp_path)
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(AssertionError, match=r"(?s)could not fetch .*No matching distribution.*Is the index reachable"):
        package_index.unpacked("optuna==5.0.0", "optuna")
    assert not (tmp_path / "optuna-5.0.0").exists()
