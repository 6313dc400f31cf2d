"""Products in DSP blocks are those of the arithmetic, and two of them never touch each other."""

from itertools import product

import numpy as np
import pytest

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.fpga.block_products import (
    act_level_bits,
    block_form,
    block_levels,
    sum_bits,
    weight_level_bits,
)
from hwquant.fpga.devices import Block
from hwquant.gateware.block_array import level_digits, weight_digits
from hwquant.ir import LevelTables, ProductTable
from hwquant.scheduler.plan import Plan, block_stages

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
    assert block_form(LevelTables(np.array([0, (1 << 24) - 1]), acts), "DSP48E1", 1, 2)
    with pytest.raises(UnsupportedModel, match=r"weight levels of 26 bits .* permitted 2\.\.25"):
        block_form(LevelTables(np.array([0, 1 << 24]), acts), "DSP48E1", 1, 2)
    with pytest.raises(UnsupportedModel, match=r"activation levels of 19 bits .* 2\.\.18"):
        block_form(LevelTables(np.array([0, 1]), acts + 1), "DSP48E1", 1, 2)
    with pytest.raises(UnsupportedModel, match=r"weight levels of 17 bits .* 2\.\.16 in SB_MAC16"):
        block_form(LevelTables(np.array([0, 1 << 15]), np.array([0, 1])), "SB_MAC16", 1, 2)


def test_sums_that_a_block_cannot_hold_are_refused() -> None:
    widest = np.array([0, (1 << 15) - 1])
    assert block_form(LevelTables(widest, widest), "SB_MAC16", 1, 2).sum_bits == 32
    with pytest.raises(UnsupportedModel, match=r"sums of 4 products of 33 bits .* 2\.\.32"):
        block_form(LevelTables(widest, widest), "SB_MAC16", 1, 4)


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
    assert block_form(arithmetic, "DSP48E1", 8, cols).rows == (2 if fits else 1)
    assert block_form(arithmetic, "DSP48E1", 1, cols).rows == 1
    largest = cols * most * int(levels.act_levels.max())
    for high, low in product((-largest, -1, 0, 1, largest), repeat=2):
        total = (high << place) + low
        below = signed(total & (1 << place) - 1, place)
        assert (below, (total >> place) + (below < 0)) == (low, high)


@pytest.mark.parametrize(
    ("weight", "act", "cols", "rows"),
    [
        (127, 63, 4, 2),  # 4 * 127 * 63 < 2**15
        (127, 65, 4, 1),
        (128, 1, 2, 1),
        (127, 127, 2, 2),
        (1, 128, 2, 1),
    ],
)
def test_two_rows_share_a_block_of_two_halves_where_each_fits_its_half(
    weight: int, act: int, cols: int, rows: int
) -> None:
    levels = LevelTables(np.array([0, weight]), np.array([0, act]))
    assert block_form(levels, "SB_MAC16", 4, cols).rows == rows
    assert block_form(levels, "SB_MAC16", 1, cols).rows == 1


@pytest.mark.parametrize(
    ("arithmetic", "block", "is_decoded"),
    [
        (WHOLE, "SB_MAC16", True),
        (FINE, "SB_MAC16", True),
        (WHOLE, "DSP48E1", False),
        (ProductTable(np.outer(range(8), range(16))), "SB_MAC16", False),  # a code is its level
        (LevelTables(np.arange(16) * 7, np.arange(32)), "SB_MAC16", False),  # codes of 5 bits
    ],
)
def test_weights_are_codes_in_memory_where_a_lut_a_bit_decodes_them(
    arithmetic: ProductTable | LevelTables, block: Block, is_decoded: bool
) -> None:
    form = block_form(arithmetic, block, 2, 4)
    assert form.decodes_weights == is_decoded
    digits, count = weight_digits(form), len(form.levels.weight_levels)
    stored = range(count) if is_decoded else form.levels.weight_levels
    for code, magnitude in enumerate(stored):
        assert signed(digits[code], form.weight_digit_bits) == magnitude
        assert signed(digits[-code], form.weight_digit_bits) == -magnitude
    assert len(digits) == 2 * count - 1


@pytest.mark.parametrize(
    ("arithmetic", "block", "step", "ends"),
    [
        (WHOLE, "DSP48E1", 1, 3),
        (FINE, "DSP48E1", 1, 3),
        (WHOLE, "SB_MAC16", 2, 1),
        (FINE, "SB_MAC16", 2, 2),
    ],
)
def test_a_chain_of_blocks_is_as_late_as_it_is_long(
    arithmetic: ProductTable | LevelTables, block: Block, step: int, ends: int
) -> None:
    for cols in (2, 4, 16):
        assert block_stages(block_form(arithmetic, block, 2, cols), cols) == step * cols + ends


@pytest.mark.parametrize(
    ("device", "words"), [(None, "on no device"), ("lfe5u-25f", "on lfe5u-25f")]
)
def test_a_plan_in_blocks_names_a_device_that_has_them(device: str | None, words: str) -> None:
    with pytest.raises(BadInput, match=f"products=dsp {words}: needs one of .*100t, ice40up5k"):
        Plan(4, 4, 1, device, products="dsp")
