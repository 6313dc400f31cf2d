"""Fixtures that several test files use."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: threads that wait for a core

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwquant.quantizer import synthetic


@pytest.fixture(scope="session")
def shared() -> Path:
    """Trained networks and test data: ``$HWQUANT_SHARED``, or ``shared`` beside the repository."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    folder = Path(os.environ.get("HWQUANT_SHARED", beside))
    if not (folder / "models").is_dir():
        pytest.skip(f"no trained networks in {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[None]:
    """Draw synthetic images once a shape; they are the same at every call (`test_synthetic`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "images", functools.cache(synthetic.images))
        yield
