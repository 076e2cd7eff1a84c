"""What the slow harnesses share. ``make faults`` runs them whole, ``make faults FAULTS=bounded`` a part of each."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def thorough() -> bool:
    """Whether a harness is to go through all of its cases; in CI it takes a bounded sample of them."""
    return os.environ.get("FAULTS", "all") != "bounded"
