"""Fixtures of the fleet's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.fleet import masking
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load


@pytest.fixture(autouse=True)
def no_secret_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are remembered for the process's life; a test must not see another one's."""
    monkeypatch.setattr(masking, "_values", {})
    monkeypatch.setattr(masking, "_sorted", [])


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[[str], Fleet]:
    """``load_text(yaml) -> Fleet``"""

    def load_it(text: str) -> Fleet:
        path = tmp_path / "tenants.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return load_it


@pytest.fixture
def refusal(load_text: Callable[[str], Fleet]) -> Callable[[str], ConfigurationError]:
    """``refusal(yaml) -> ConfigurationError``: what loading it raises."""

    def refuse(text: str) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as caught:
            load_text(text)
        return caught.value

    return refuse
