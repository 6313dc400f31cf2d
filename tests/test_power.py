"""Claims about code grids."""

import numpy as np
import pytest

from hwquant.power import (
    Grid,
    activation_codebook,
    choose_part_shift,
    detail_codebook,
    detail_tables,
    digit_weights,
    level_tables,
    product_table,
    skip_levels,
    weight_codebook,
)

EXPONENTS = (0.25, 0.5, 0.71, 1.0)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_is_within_half_a_code_in_the_power_domain(exponent: float, bits: int) -> None:
    grid = Grid("power", exponent, 2**bits - 1)
    x = np.linspace(0, 1, 9973)
    assert np.abs(grid.encode(x) - grid.top * x**exponent).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("method", ["power", "uniform", "log"])
def test_decoding_and_encoding_give_the_digit_back(method: str) -> None:
    grid = Grid(method, 0.6, 15)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(grid.encode(grid.levels), np.arange(16))
    assert grid.levels[0] == 0
    assert grid.levels[-1] == 1


def test_values_outside_the_range_saturate() -> None:
    grid = Grid("power", 0.6, 15)
    np.testing.assert_array_equal(grid.encode(np.array([-3.0, -1e-9, 1.0, 7.0])), [0, 0, 15, 15])


def test_power_with_exponent_one_is_uniform() -> None:
    power, uniform = Grid("power", 1.0, 15), Grid("uniform", 1.0, 15)
    np.testing.assert_array_equal(power.levels, uniform.levels)
    np.testing.assert_array_equal(power.edges, uniform.edges)


def test_log_levels_are_powers_of_two() -> None:
    np.testing.assert_array_equal(Grid("log", 1.0, 3).levels, [0, 0.25, 0.5, 1])


def test_uniform_products_are_exact() -> None:
    table = product_table(Grid("uniform", 1.0, 7), Grid("uniform", 1.0, 15), 7)
    np.testing.assert_array_equal(table.products, np.outer(range(8), range(16)))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_power_products_are_the_power_of_the_product_of_codes(exponent: float) -> None:
    table = product_table(Grid("power", exponent, 7), Grid("power", exponent, 15), 7)
    exact = 127 * (np.outer(range(8), range(16)) / 105) ** (1 / exponent)
    assert np.abs(table.products - exact).max() <= 0.5 + 1e-9


def test_tables_grow_with_each_operand() -> None:
    weights, acts = Grid("power", 0.5, 7), Grid("power", 0.5, 15)
    products = product_table(weights, acts, 7).products
    assert (np.diff(products, axis=0) >= 0).all()
    assert (np.diff(products, axis=1) >= 0).all()
    levels = level_tables(weights, acts)
    assert (np.diff(levels.weight_levels) > 0).all()
    assert (np.diff(levels.act_levels) > 0).all()
    assert (np.diff(skip_levels(acts)) > 0).all()


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("shift", [1, 3, 4, 6])
def test_packed_codes_compare_like_their_values(exponent: float, shift: int) -> None:
    grid = Grid("power", exponent, 15)
    book = activation_codebook(grid, 2, shift)
    assert (np.diff(book.packed(4)) > 0).all()
    assert (np.diff(book.values) > 0).all()
    levels = grid.levels[book.digits] @ digit_weights(2, shift)
    np.testing.assert_allclose(book.values, levels / (2**shift + 1), rtol=0, atol=1e-12)
    assert book.values[0] == 0
    assert book.values[-1] == pytest.approx(1)


def test_one_digit_codebook_is_the_grid() -> None:
    grid = Grid("power", 0.7, 15)
    book = activation_codebook(grid, 1, 0)
    np.testing.assert_array_equal(book.packed(4), np.arange(16))
    np.testing.assert_array_equal(book.edges, grid.edges)


@pytest.mark.parametrize(("top", "parts"), [(1, 4), (3, 3), (7, 2), (31, 2)])
def test_expanded_weights_take_the_nearest_combination(top: int, parts: int) -> None:
    grid = Grid("power", 0.6, top)
    shift = choose_part_shift(grid, grid, parts, 1)
    book = weight_codebook(grid, parts, shift)
    levels = np.sign(book.digits) * grid.levels[np.abs(book.digits)]
    weights = digit_weights(parts, shift)
    np.testing.assert_allclose(book.values, levels @ weights / weights.sum(), rtol=0, atol=1e-9)
    x = np.linspace(-1, 1, 1001)
    error = np.abs(book.values[book.rank(x)] - x)
    np.testing.assert_allclose(error, np.abs(book.values[:, None] - x).min(axis=0), atol=1e-12)
    np.testing.assert_array_equal(book.digits[book.rank(np.zeros(1))], np.zeros((1, parts)))


@pytest.mark.parametrize("parts", [1, 2])
def test_weight_codes_are_odd_functions_of_the_weight(parts: int) -> None:
    book = weight_codebook(Grid("power", 0.6, 7), parts, 3)
    np.testing.assert_allclose(book.values, -book.values[::-1], atol=1e-12)


def test_second_digit_divides_the_largest_error_by_four() -> None:
    weights, acts = Grid("power", 0.7, 7), Grid("power", 0.7, 15)
    shift = choose_part_shift(weights, acts, 2, 2)
    x = np.linspace(0, 1, 4001)
    one, two = (activation_codebook(acts, parts, shift) for parts in (1, 2))
    errors = [np.abs(book.values[book.rank(x)] - x).max() for book in (one, two)]
    assert errors[1] < errors[0] / 4


def test_no_part_shift_where_no_code_has_two_digits() -> None:
    grid = Grid("power", 0.7, 127)
    assert choose_part_shift(grid, grid, 1, 1) == 0


DETAILED = [
    Grid("power", exponent, 2**bits - 1) for exponent in EXPONENTS for bits in (2, 3, 4, 5, 6, 8)
] + [Grid("uniform", 1.0, 15), Grid("log", 1.0, 15), Grid("log", 1.0, 7)]


@pytest.mark.parametrize("grid", DETAILED, ids=str)
def test_first_digit_of_a_detailed_code_is_the_plain_code(grid: Grid) -> None:
    book, x = detail_codebook(grid), np.linspace(-0.1, 1.1, 20_011)
    ranks = book.rank(x)
    np.testing.assert_array_equal(book.digits[ranks, 0], grid.encode(x))
    np.testing.assert_array_equal(book.read_values[ranks], grid.levels[grid.encode(x)])


@pytest.mark.parametrize("grid", DETAILED, ids=str)
def test_detailed_codes_compare_like_their_values(grid: Grid) -> None:
    book, bits = detail_codebook(grid), grid.top.bit_length()
    assert book.digits.min() == 0
    assert book.digits.max() == grid.top
    assert (np.diff(book.packed(bits)) > 0).all()
    assert (np.diff(book.values) > 0).all()
    assert (np.diff(book.edges) > 0).all()
    np.testing.assert_array_equal(book.rank(book.values), np.arange(len(book.values)))


@pytest.mark.parametrize("grid", DETAILED, ids=str)
def test_detail_tables_add_up_to_the_values(grid: Grid) -> None:
    book, (first, second) = detail_codebook(grid), detail_tables(grid)
    sums = first[book.digits[:, 0]] + second[book.digits[:, 1]]
    assert sums.min() == 0
    own = np.abs(book.values * first[-1] - sums)  # levels are rounded, details are not
    assert own.max() <= 0.5 + 1e-9


@pytest.mark.parametrize("grid", DETAILED, ids=str)
def test_error_of_a_detailed_code_is_half_a_detail(grid: Grid) -> None:
    """Up to a whole one at the ends of a first digit, where the next level would be another's."""
    book, (first, second) = detail_codebook(grid), detail_tables(grid)
    step = (second[1] - second[0]) / first[-1]
    x = np.linspace(0, 1, 20_011)
    errors = np.abs(book.values[book.rank(x)] - x)
    assert errors.max() <= step + 1e-9
    values = [book.values[book.digits[:, 0] == digit] for digit in range(grid.top + 1)]
    lowest, highest = (np.array([end(v) for v in values])[grid.encode(x)] for end in (min, max))
    assert errors[(lowest <= x) & (x <= highest)].max() <= step / 2 + 1e-9


def test_detail_divides_the_error_of_a_four_bit_code() -> None:
    grid, x = Grid("power", 0.65, 15), np.linspace(0, 1, 20_011)
    book = detail_codebook(grid)
    plain = grid.levels[grid.encode(x)] - x
    detailed = book.values[book.rank(x)] - x
    assert (detailed**2).mean() < (plain**2).mean() / 50


def test_only_digits_that_are_read_have_odds() -> None:
    grid = Grid("power", 0.6, 15)
    rng = np.random.default_rng(1)
    for book in (detail_codebook(grid), activation_codebook(grid, 2, 3)):
        mass = rng.dirichlet(np.ones(len(book.values)), 3)
        odds = book.digit_mass(mass, grid.top)
        assert odds.shape == (1 if book.is_detailed else 2, 3, 16)
        for part, digit in np.ndindex(len(odds), 16):
            wanted = mass[:, book.digits[:, part] == digit].sum(axis=1)
            np.testing.assert_allclose(odds[part, :, digit], wanted, atol=1e-12)
