"""Products in DSP blocks are those of the arithmetic, and two of them never touch each other."""

from itertools import product

import numpy as np
import pytest

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.fpga.block_products import (
    act_level_bits,
    block_levels,
    rows_of_block,
    sum_bits,
    weight_level_bits,
)
from hwquant.gateware.block_array import level_digits
from hwquant.ir import LevelTables, ProductTable
from hwquant.scheduler.plan import Plan, array_delay

WHOLE = ProductTable(np.outer([0, 1, 2, 3, 4, 6, 8, 10], [*range(10), 11, 13, 16, 19, 22, 25]))
FINE = LevelTables(np.array([0, 8, 22, 38, 58, 79, 102, 127]), np.arange(0, 256, 17))


def signed(digit: int, bits: int) -> int:
    return digit - ((digit >> bits - 1) << bits)


@pytest.mark.parametrize("factor", [1, 6])
def test_levels_of_a_table_make_its_products(factor: int) -> None:
    levels = block_levels(ProductTable(WHOLE.products * factor))
    digits, bits = level_digits(levels), weight_level_bits(levels)
    for w in range(-7, 8):
        products = np.sign(w) * factor * WHOLE.products[abs(w)]
        np.testing.assert_array_equal(signed(digits[w], bits) * levels.act_levels, products)
    assert act_level_bits(levels) == 5  # what is common to all products belongs to the weights


def test_a_table_that_two_levels_do_not_make_is_refused() -> None:
    products = WHOLE.products.copy()
    products[3, 5] += 1
    with pytest.raises(UnsupportedModel, match="not made of two levels; needs whole levels"):
        block_levels(ProductTable(products))


def test_levels_that_a_block_cannot_hold_are_refused() -> None:
    acts = np.array([0, (1 << 17) - 1])
    assert block_levels(LevelTables(np.array([0, (1 << 24) - 1]), acts))
    with pytest.raises(UnsupportedModel, match=r"weight levels of 26 bits .* permitted 2\.\.25"):
        block_levels(LevelTables(np.array([0, 1 << 24]), acts))
    with pytest.raises(UnsupportedModel, match=r"activation levels of 19 bits .* 2\.\.18"):
        block_levels(LevelTables(np.array([0, 1]), acts + 1))


@pytest.mark.parametrize("cols", [2, 4, 16, 64])
@pytest.mark.parametrize("arithmetic", [WHOLE, FINE])
def test_two_rows_share_a_block_only_where_their_sums_stay_apart(
    arithmetic: ProductTable | LevelTables, cols: int
) -> None:
    levels = block_levels(arithmetic)
    place, most = sum_bits(levels, cols), int(levels.weight_levels.max())
    fits = all(
        -(1 << 24) <= (high << place) + low < 1 << 24
        for high, low in product((-most, most), repeat=2)
    )
    assert rows_of_block(levels, 8, cols) == (2 if fits else 1)
    assert rows_of_block(levels, 1, cols) == 1
    largest = cols * most * int(levels.act_levels.max())
    for high, low in product((-largest, -1, 0, 1, largest), repeat=2):
        total = (high << place) + low
        below = signed(total & (1 << place) - 1, place)
        assert (below, (total >> place) + (below < 0)) == (low, high)


def test_a_chain_of_blocks_is_as_late_as_it_is_long() -> None:
    for cols in (2, 16, 64):
        assert array_delay(Plan(4, cols, 1, "xc7a100t", products="dsp")) == cols + 5


@pytest.mark.parametrize(
    ("device", "words"), [(None, "on no device"), ("lfe5u-25f", "on lfe5u-25f")]
)
def test_a_plan_in_blocks_names_a_device_that_has_them(device: str | None, words: str) -> None:
    with pytest.raises(BadInput, match=f"products=dsp {words}: needs one of xc7a35t, xc7a100t"):
        Plan(4, 4, 1, device, products="dsp")
