"""Fixtures shared with tests/."""

from tests.conftest import shared as shared
