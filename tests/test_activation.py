"""Claims about activation units as data."""

import numpy as np
import pytest

from hwquant.activation import FULL_SCALE, build, max_code_error, power_table, thresholds
from hwquant.ir import PowerTable, Thresholds
from hwquant.power import Codebook, Grid, activation_codebook

GRIDS = [
    (exponent, bits, parts)
    for exponent in (0.25, 0.55, 0.71, 1.0)
    for bits, parts in ((2, 1), (2, 2), (4, 1), (4, 2), (8, 1))
]


def _book(exponent: float, bits: int, parts: int) -> Codebook:
    return activation_codebook(Grid("power", exponent, 2**bits - 1), parts, 3)


def _staircase(unit: Thresholds, v: np.ndarray) -> np.ndarray:
    return np.array(unit.codes)[np.searchsorted(unit.thresholds, v, side="right")]


@pytest.mark.parametrize(("exponent", "bits", "parts"), GRIDS)
def test_staircase_is_the_rounding_of_every_fixed_point_value(
    exponent: float, bits: int, parts: int
) -> None:
    book = _book(exponent, bits, parts)
    v = np.arange(-3, FULL_SCALE + 1000)
    want = book.packed(bits)[book.rank(v / FULL_SCALE)]
    np.testing.assert_array_equal(_staircase(thresholds(book, bits), v), want)


def test_thresholds_of_four_uniform_codes_by_hand() -> None:
    unit = thresholds(activation_codebook(Grid("uniform", 1.0, 3), 1, 0), 2)
    assert unit == Thresholds((10923, 32768, 54614), (0, 1, 2, 3))


@pytest.mark.parametrize(("exponent", "bits", "parts"), GRIDS)
def test_table_is_within_one_code_of_the_staircase(exponent: float, bits: int, parts: int) -> None:
    oracle = thresholds(_book(exponent, bits, parts), bits)
    assert max_code_error(power_table(oracle), oracle) <= 1


def test_four_bit_table_is_small() -> None:
    assert len(power_table(thresholds(_book(0.7, 4, 1), 4)).codes) <= 64


def test_a_wrong_entry_is_seen() -> None:
    oracle = thresholds(_book(0.7, 4, 1), 4)
    table = power_table(oracle)
    codes = (*table.codes[:-1], 3)
    broken = PowerTable(table.value_bits, table.mantissa_bits, codes)
    assert max_code_error(broken, oracle) == 12


def test_build_makes_the_kind_that_was_asked_for() -> None:
    book = _book(0.7, 4, 1)
    assert isinstance(build(book, 4, "thresholds"), Thresholds)
    assert isinstance(build(book, 4, "table"), PowerTable)
