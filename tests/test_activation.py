"""Claims about activation units as data."""

import numpy as np
import pytest

from hwquant.activation import FULL_SCALE, function_thresholds, thresholds
from hwquant.functions import bounds, evaluate
from hwquant.ir import Thresholds
from hwquant.power import Codebook, Grid, activation_codebook, detail_codebook
from tests.float_graphs import FUNCTIONS

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


def _function_range(name: str, reach: float) -> tuple[float, float]:
    """Zero and scale that fit values of the function between ``-reach`` and ``reach``."""
    function = FUNCTIONS[name]
    low, high = bounds(function)
    ends = evaluate(function, np.array([-reach, reach]))
    zero = low if np.isfinite(low) else float(ends.min())
    return zero, min(high, float(ends.max())) - zero


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("exponent", [0.25, 0.55, 1.0])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["plain", "wide", "detailed"])
def test_staircase_is_the_code_of_the_function_of_every_fixed_point_value(
    name: str, exponent: float, bits: int, kind: str
) -> None:
    grid = Grid("power", exponent, 2**bits - 1)
    book = detail_codebook(grid) if kind == "detailed" else activation_codebook(grid, 1, 0)
    if kind == "wide" and bits <= 4:
        book = activation_codebook(grid, 2, 3)
    zero, scale = _function_range(name, 4.0)
    unit, step = function_thresholds(FUNCTIONS[name], book, zero, scale, bits)
    v = np.arange(-2.0 * FULL_SCALE, 2.0 * FULL_SCALE)
    want = book.packed(bits)[book.rank((evaluate(FUNCTIONS[name], v * step) - zero) / scale)]
    found = _staircase(unit, v)
    wrong = v[found != want]
    at_edge = np.abs(evaluate(FUNCTIONS[name], wrong * step) - zero - scale * book.edges[:, None])
    assert at_edge.min(axis=0, initial=np.inf).max(initial=0) < 1e-12, "more than the last bit"
    assert len(wrong) <= 2


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("reach", [0.05, 30.0, 1000.0])
def test_staircase_is_exact_in_narrow_and_wide_ranges(name: str, reach: float) -> None:
    book = activation_codebook(Grid("power", 0.6, 15), 1, 0)
    zero, scale = _function_range(name, reach)
    unit, step = function_thresholds(FUNCTIONS[name], book, zero, scale, 4)
    v = np.arange(-2.0 * FULL_SCALE, 2.0 * FULL_SCALE)
    want = book.packed(4)[book.rank((evaluate(FUNCTIONS[name], v * step) - zero) / scale)]
    assert np.count_nonzero(_staircase(unit, v) != want) <= 2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_outermost_step_of_a_function_is_at_full_scale(name: str) -> None:
    book = activation_codebook(Grid("power", 0.6, 15), 1, 0)
    unit, _ = function_thresholds(FUNCTIONS[name], book, *_function_range(name, 4.0), 4)
    assert abs(int(np.abs(unit.thresholds).max()) - FULL_SCALE) <= 1


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu tanh", "hard swish"])
def test_function_that_falls_has_its_steps_down_first(name: str) -> None:
    book = activation_codebook(Grid("power", 0.3, 255), 1, 0)
    unit, _ = function_thresholds(FUNCTIONS[name], book, *_function_range(name, 4.0), 8)
    steps = np.sign(np.diff(unit.codes))
    falls = int((steps < 0).sum())
    assert falls > 0
    assert (steps[:falls] < 0).all()
    assert (steps[falls:] > 0).all()
    assert min(unit.codes) == 0


def test_staircase_of_a_function_by_hand() -> None:
    """HardSigmoid(0.2, 0.5) of two bits: 1/6, 1/2 and 5/6 are at -5/3, 0 and 5/3."""
    book = activation_codebook(Grid("uniform", 1.0, 3), 1, 0)
    unit, step = function_thresholds(FUNCTIONS["hard sigmoid"], book, 0.0, 1.0, 2)
    assert unit.codes == (0, 1, 2, 3)
    assert unit.thresholds[1:] == (0, FULL_SCALE)
    assert unit.thresholds[0] in (-FULL_SCALE, 1 - FULL_SCALE)
    assert step == pytest.approx(5 / 3 / FULL_SCALE)
