"""Products taken apart are the products, for any table and either size of LUT."""

from collections.abc import Callable

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwquant.gateware.mac_product import MacForm, MacProduct
from hwquant.gateware.product_logic import (
    ProductLogic,
    Recoded,
    Source,
    Table,
    WeightBit,
    last_inputs,
    private_logic,
    product_logic,
)
from hwquant.ir import ProductTable

SHAPES = [(2, 4), (2, 16), (4, 8), (8, 4), (8, 16), (16, 16), (16, 32)]  # magnitudes, digits
USUAL = np.outer([0, 1, 2, 3, 4, 6, 8, 10], [*range(10), 11, 13, 16, 19, 22, 25])


def any_table(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    table = rng.integers(0, 200, shape)
    table[0] = 0
    return table


def whole_levels(shape: tuple[int, int]) -> np.ndarray:
    """Levels that rise by 1, then by more, as whole levels do."""
    weights, acts = (np.cumsum(np.arange(n) // 4 + 1) - 1 for n in shape)
    return np.outer(weights, acts)


def spelled(source: Source, w: int, x: int) -> int:
    match source:
        case WeightBit(bit):
            return w >> bit & 1
        case Recoded(truth):
            return truth[x]
        case Table(inputs, truth):
            return truth[sum(spelled(part, w, x) << at for at, part in enumerate(inputs))]


def product_of(logic: ProductLogic, magnitude: int, x: int) -> int:
    bits = enumerate(logic.bits)
    return sum(spelled(bit, logic.code[magnitude], x) << at for at, bit in bits)


@pytest.mark.parametrize("seed", [3])
@pytest.mark.parametrize("cut", [product_logic, private_logic])
@pytest.mark.parametrize("lut_inputs", [4, 6])
@pytest.mark.parametrize("shape", SHAPES)
def test_tables_spell_the_products(
    shape: tuple[int, int], lut_inputs: int, cut: Callable[..., ProductLogic], seed: int
) -> None:
    for table in (any_table(np.random.default_rng(seed), shape), whole_levels(shape)):
        logic = cut(table, lut_inputs)
        found = [[product_of(logic, w, x) for x in range(shape[1])] for w in range(shape[0])]
        np.testing.assert_array_equal(found, table, f"seed {seed}")
        assert sorted(logic.code) == list(range(shape[0]))
        assert logic.code[0] == 0


def tables_of(source: Source) -> list[Table]:
    if not isinstance(source, Table):
        return []
    return [source, *(table for part in source.inputs for table in tables_of(part))]


@pytest.mark.parametrize("lut_inputs", [4, 6])
def test_tables_fit_luts(lut_inputs: int) -> None:
    """Those of 5 or 6 inputs are two or four LUTs of 4, which multiplexers beside them join."""
    for bit in product_logic(whole_levels((8, 16)), lut_inputs).bits:
        last, *others = tables_of(bit)
        assert len(last.inputs) <= last_inputs(lut_inputs)
        assert all(len(table.inputs) <= 6 for table in others)


def test_recoding_takes_few_tables() -> None:
    """An 8 x 16 table without it takes two LUTs of 6 inputs, or eight of 4, for every bit."""
    bits = product_logic(USUAL, 6).bits
    assert [len(tables_of(bit)) for bit in bits] == [1, 2, 2, 2, 3, 2, 2, 2]
    luts = [
        sum(1 << max(0, len(table.inputs) - 4) for table in tables_of(bit) if len(table.inputs) > 1)
        for bit in product_logic(USUAL, 4).bits
    ]
    assert sum(luts) <= 28


def test_digits_of_one_row_are_recoded_only_where_that_saves_luts() -> None:
    """Of 6 inputs: 23 LUTs from the digit itself, or 16 and a recoding of more than 8."""
    digit = [Recoded(tuple(x >> at & 1 for x in range(16))) for at in range(4)]
    alone, together = private_logic(USUAL, 6), product_logic(USUAL, 6)
    assert set(alone.signals) <= set(digit)
    assert sum(len(tables_of(bit)) for bit in alone.bits) == 23
    assert sum(len(tables_of(bit)) for bit in together.bits) == 16
    assert len(set(together.signals) - set(digit)) > 8
    assert private_logic(USUAL, 4) == product_logic(USUAL, 4)


@pytest.mark.parametrize("lut_inputs", [4, 6])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("is_shared", [False, True])
def test_every_signed_product_equals_the_table(
    lut_inputs: int, late: bool, is_shared: bool
) -> None:
    table = whole_levels((8, 16))
    form = MacForm(ProductTable(table), lut_inputs, is_shared=is_shared)
    dut = MacProduct(4, form, late=late)
    got: list[int] = []
    pairs = [(w, x) for w in range(-7, 8) for x in range(16)]

    async def testbench(ctx) -> None:
        functions = 0
        for w, x in [*pairs, (0, 0)]:
            before, functions = functions, sum(s[x] << at for at, s in enumerate(form.signals))
            ctx.set(dut.x, functions)
            ctx.set(dut.x_late, before)
            value, negative = ctx.get(dut.value), ctx.get(dut.negative)
            got.append(value + negative - (1 << form.product_bits))
            ctx.set(dut.w, {"magnitude": form.weight_code[abs(w)], "negative": int(w < 0)})
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert got[1:] == [int(np.sign(w) * table[abs(w), x]) for w, x in pairs]
