"""Fixtures that several test files use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Trained networks and test data: ``$HWQUANT_SHARED``, or ``shared`` beside the repository."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    folder = Path(os.environ.get("HWQUANT_SHARED", beside))
    if not (folder / "models").is_dir():
        pytest.skip(f"no trained networks in {folder}")
    return folder
