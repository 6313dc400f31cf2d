"""Claims about ranges and about how codes map to real values."""

import numpy as np
import pytest

from hwquant.float_graph import Function, Gelu, HardSwish, LeakyRelu, Relu, Silu
from hwquant.functions import bounds, evaluate
from hwquant.ir import FloatArray
from hwquant.power import Codebook, Grid, activation_codebook, detail_codebook
from hwquant.quantizer.calibrate import Spread
from hwquant.quantizer.ranges import (
    BINS,
    CHANNEL_SHARE,
    HEAVIEST_TAIL,
    NARROWEST_CHANNEL,
    SMALLEST_RANGE,
    Coding,
    least_error_range,
    side_by_side,
    square_error,
    tensor_range,
)
from tests.float_graphs import FUNCTIONS

GRID = Grid("power", 0.6, 15)
BOOKS = {
    "plain": activation_codebook(GRID, 1, 3),
    "wide": activation_codebook(GRID, 2, 3),
    "detailed": detail_codebook(GRID),
}
MEAN, STD = np.array([-1.0, 0.2, 0.5]), np.array([0.5, 2.0, 0.01])


def spread(function: Function | None, is_stored: bool = False) -> Spread:
    before = np.random.default_rng(1).normal(MEAN[:, None], STD[:, None], (3, 400))
    samples = before if function is None else evaluate(function, before)
    return Spread(MEAN, STD, function, is_stored, samples)


def coding(book: Codebook, zero: float = -0.3) -> Coding:
    return Coding(np.array([zero, zero]), np.array([2.0, 0.7]), book)


@pytest.mark.parametrize(
    ("function", "zero"),
    [(Silu(), -0.27846454276107), (Gelu(is_tanh=False), -0.16997120747990), (HardSwish(), -0.375)],
)
def test_zero_points_are_the_constants_of_equation_five(function: Function, zero: float) -> None:
    found = tensor_range(spread(function), 4)[0]
    np.testing.assert_allclose(found, zero, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("bits", [4, 8])
def test_range_ends_at_the_functions_value_of_the_highest_channel(name: str, bits: int) -> None:
    function = FUNCTIONS[name]
    zero, scale = tensor_range(spread(function), bits)
    highest = evaluate(function, np.array([0.2 + bits * 2.0, 0.2 - bits * 2.0]))
    least = bounds(function)[0]
    want = least if np.isfinite(least) else highest[1]
    np.testing.assert_allclose(zero, want, rtol=1e-12)
    np.testing.assert_allclose(zero + scale, highest.max(), rtol=1e-12)


@pytest.mark.parametrize("outliers", [0, 1, 2, 3])
def test_range_reaches_for_outliers_of_most_channels_but_not_without_limit(outliers: int) -> None:
    given = spread(None)
    given.samples[:outliers, ::9] = 1000.0
    zero, scale = tensor_range(given, 4)
    farther = HEAVIEST_TAIL if outliers > 1 else 1.0
    np.testing.assert_allclose(zero + scale, 0.2 + farther * 4 * 2.0)


def test_range_of_sums_is_symmetric_about_their_mean() -> None:
    zero, scale = tensor_range(spread(None), 4)
    np.testing.assert_allclose(zero, 0.2 - 4 * 2.0)
    np.testing.assert_allclose(zero + scale, 0.2 + 4 * 2.0)


def test_range_of_what_is_never_negative_begins_at_zero() -> None:
    zero, _ = tensor_range(Spread(MEAN, STD, None, False, np.ones((3, 10))), 4)
    np.testing.assert_array_equal(zero, 0)


@pytest.mark.parametrize("function", [None, Relu(None)])
def test_scale_of_a_matched_channel_is_a_geometric_mean(function: Function | None) -> None:
    zero, scale = tensor_range(spread(function, is_stored=True), 4)
    own = MEAN + 4 * STD - zero
    widest = own.max()
    want = widest * np.maximum(own / widest, NARROWEST_CHANNEL) ** CHANNEL_SHARE
    np.testing.assert_allclose(scale, want)
    assert scale.min() < scale.max()
    equal = tensor_range(spread(function), 4)[1]
    np.testing.assert_allclose(equal, widest)


@pytest.mark.parametrize("function", [Silu(), LeakyRelu(0.1), Gelu(is_tanh=True)])
def test_channels_share_a_scale_where_a_function_does_not_commute(function: Function) -> None:
    zero, scale = tensor_range(spread(function, is_stored=True), 4)
    assert len(np.unique(scale)) == len(np.unique(zero)) == 1


def test_constant_tensor_has_a_range() -> None:
    flat = Spread(np.zeros(2), np.zeros(2), Relu(None), True, np.zeros((2, 9)))
    zero, scale = tensor_range(flat, 4)
    np.testing.assert_array_equal(zero, 0)
    assert (scale >= SMALLEST_RANGE * NARROWEST_CHANNEL**CHANNEL_SHARE).all()


def values(seed: int = 3) -> FloatArray:
    return np.random.default_rng(seed).uniform(-0.3, 0.4, (2, 3, 4, 5))


@pytest.mark.parametrize("kind", BOOKS)
def test_codes_are_the_nearest_but_for_values_at_an_edge(kind: str) -> None:
    code, book = coding(BOOKS[kind]), BOOKS[kind]
    units = np.random.default_rng(4).uniform(-0.2, 1.2, (2, 3, 40, 40))
    real = units * code.scale[:, None, None, None] + code.zero[:, None, None, None]
    wrong = units[code.ranks(real) != book.rank(units)]
    assert np.abs(wrong[:, None] - book.edges).min(axis=1, initial=1).max(initial=0) < 2 / BINS
    assert wrong.size < 0.05 * units.size


@pytest.mark.parametrize("kind", BOOKS)
def test_codes_are_decoded_to_themselves(kind: str) -> None:
    code, book, count = coding(BOOKS[kind]), BOOKS[kind], len(BOOKS[kind].values)
    ranks = np.arange(2 * count).reshape(2, 1, 1, count) % count
    real = code.zero[:, None, None, None] + code.scale[:, None, None, None] * book.values[ranks]
    wrong = code.ranks(real) != ranks
    assert not wrong[..., np.diff(book.values, append=2.0) > 4 / BINS].any()
    assert wrong.mean() < 0.01
    np.testing.assert_allclose(code.decode(ranks), real, rtol=0, atol=1e-6)  # in single precision


@pytest.mark.parametrize("kind", BOOKS)
def test_mac_layers_read_no_more_than_the_first_digit_of_a_detailed_code(kind: str) -> None:
    code = coding(BOOKS[kind])
    read, all_digits = code.decode_read(code.ranks(values())), code.decode(code.ranks(values()))
    if kind == "detailed":
        plain = coding(BOOKS["plain"])
        np.testing.assert_array_equal(read, plain.decode(plain.ranks(values())))
        errors = [np.abs(made - values()).max() for made in (all_digits, read)]
        assert errors[0] < errors[1] / 4
    else:
        np.testing.assert_array_equal(read, all_digits)


@pytest.mark.parametrize("kind", BOOKS)
def test_padding_is_what_a_pixel_of_real_zero_is_read_as(kind: str) -> None:
    code = coding(BOOKS[kind])
    pixel = np.zeros((2, 1, 1, 1))
    np.testing.assert_array_equal(code.pad_ranks(), code.ranks(pixel).ravel())
    np.testing.assert_allclose(
        code.padding(), code.decode_read(code.ranks(pixel)).ravel(), atol=1e-6
    )
    assert (code.pad_ranks() > 0).all()
    np.testing.assert_array_equal(coding(BOOKS[kind], 0.0).padding(), 0)


def test_channels_side_by_side_keep_their_own_codes() -> None:
    parts = [coding(BOOKS["plain"], zero) for zero in (-0.3, -0.1)]
    whole = np.concatenate([part.ranks(values()) for part in parts])
    both = side_by_side(parts)
    np.testing.assert_array_equal(both.ranks(np.concatenate([values(), values()])), whole)
    np.testing.assert_array_equal(both.padding(), [*parts[0].padding(), *parts[1].padding()])


@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.parametrize("name", [*FUNCTIONS, "none"])
def test_least_error_range_has_no_more_error_than_the_reach(name: str, kind: str) -> None:
    given, book = spread(FUNCTIONS.get(name), is_stored=name in ("none", "relu")), BOOKS[kind]
    given.samples[:, ::50] *= 3  # outliers, for which a range is too dear
    reach, found = tensor_range(given, 4), least_error_range(given, 4, book)
    assert (found[1] > 0).all()
    assert square_error(given.samples, *found, book) <= square_error(given.samples, *reach, book)
    if name not in ("none", "leaky"):  # what has a least value
        np.testing.assert_array_equal(found[0], reach[0])


def test_least_error_range_of_three_levels_is_found_by_hand() -> None:
    """Reach ends at 4 standard deviations, 4.0; every sample is 0, 0.5 or 1: 1 has no error."""
    flat = Spread(np.zeros(1), np.ones(1), Relu(None), False, np.tile([0.0, 0.5, 1.0], 50)[None])
    book = activation_codebook(Grid("uniform", 1.0, 2), 1, 0)
    zero, scale = least_error_range(flat, 4, book)
    np.testing.assert_array_equal(zero, 0)
    np.testing.assert_allclose(scale, 1.0)


def test_square_error_is_that_of_the_coding() -> None:
    samples, code = values()[:, 0, 0], coding(BOOKS["plain"])
    unit = samples[:, None, None, :]
    error = code.decode(BOOKS["plain"].rank((unit + 0.3) / code.scale[:, None, None, None])) - unit
    found = square_error(samples, code.zero, code.scale, code.book)
    np.testing.assert_allclose(found, (error**2).sum(), rtol=1e-5)
