"""The MAC array sums products exactly, in both arithmetics."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwquant.gateware.mac_array import MacArray
from hwquant.ir import Arithmetic, LevelTables, ProductTable
from hwquant.scheduler.plan import PRODUCT_DELAY, RECODE_DELAY, adder_stages, tap_columns

ROWS, COLS, BITS, SHIFT = 2, 8, 4, 3


def product_table(rng: np.random.Generator) -> ProductTable:
    """Draw a table whose rows and columns rise, as every table of products does."""
    steps = rng.integers(0, 4, (8, 16))
    table = np.cumsum(np.cumsum(steps, axis=0), axis=1)
    table[0], table[:, 0] = 0, 0
    return ProductTable(table)


def level_tables(rng: np.random.Generator) -> LevelTables:
    weights, acts = (np.cumsum(rng.integers(0, 20, n)) for n in (8, 16))
    weights[0] = acts[0] = 0
    return LevelTables(weights, acts)


def multiply(arithmetic: Arithmetic, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    match arithmetic:
        case ProductTable(products):
            return np.sign(w) * products[np.abs(w), x]
        case LevelTables(weight_levels, act_levels):
            return np.sign(w) * weight_levels[np.abs(w)] * act_levels[x]


def digit(stored: int) -> dict[str, int]:
    """Take the bits apart that the weight memory holds for a weight."""
    return {"magnitude": stored & 7, "negative": stored >> 3}


@pytest.mark.parametrize("seed", [5])
@pytest.mark.parametrize("lut_inputs", [4, 6])
@pytest.mark.parametrize("acc_bits", [32, 9])
@pytest.mark.parametrize("draw", [product_table, level_tables])
def test_sums_equal_numpy(draw, acc_bits: int, lut_inputs: int, seed: int) -> None:
    """A sum of fewer bits than products need wraps: weights prove that it comes back."""
    rng = np.random.default_rng(seed)
    arithmetic = draw(rng)
    dut = MacArray(ROWS, COLS, BITS, BITS, acc_bits, SHIFT, arithmetic, lut_inputs)
    digits = dut.weight_digits
    expected: list[list[int]] = []
    got: list[list[int]] = []

    async def testbench(ctx) -> None:
        acc = np.zeros(ROWS, np.int64)
        for _ in range(60):
            length = int(rng.integers(1, 5))
            for at in range(length):
                x, w = rng.integers(0, 16, COLS), rng.integers(-7, 8, (ROWS, COLS))
                if rng.random() < 0.2:
                    x[:], w[:] = 15, rng.choice([-7, 7])
                shift = bool(at and rng.random() < 0.3)
                acc = (0 if at == 0 else acc << SHIFT if shift else acc) + multiply(
                    arithmetic, w, x
                ).sum(1)
                weights = [[digit(digits[v]) for v in row] for row in w.tolist()]
                beat = {"x": x.tolist(), "w": weights, "first": at == 0, "shift": shift}
                ctx.set(dut.i.payload, beat | {"last": at == length - 1})
                ctx.set(dut.i.valid, 1)
                await tick(ctx)
                ctx.set(dut.i.valid, 0)
                if rng.random() < 0.3:
                    await tick(ctx)
            half = 1 << acc_bits - 1
            expected.append([(int(v) + half) % (2 * half) - half for v in acc])
        for _ in range(12):
            await tick(ctx)

    async def tick(ctx) -> None:
        *_, valid, accs = await ctx.tick().sample(dut.o.valid, dut.o.payload)
        if valid:
            got.append([accs[row] for row in range(ROWS)])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert got == expected, f"seed {seed}"


@pytest.mark.parametrize("seed", [7])
@pytest.mark.parametrize("lut_inputs", [4, 6])
@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("draw", [product_table, level_tables])
def test_rows_take_taps_of_their_own_channels(draw, own: int, lut_inputs: int, seed: int) -> None:
    """Of more rows than columns, so that two share a channel; the third tap waits longest."""
    rng, rows, cols, taps = np.random.default_rng(seed), 16, 8, 3
    arithmetic = draw(rng)
    dut = MacArray(rows, cols, BITS, BITS, 24, SHIFT, arithmetic, lut_inputs, taps)
    x, w = rng.integers(0, 16, (taps, cols)), rng.integers(-7, 8, (rows, cols))
    shared = rng.integers(0, 16, cols)
    digits = np.tile(shared, (rows, 1))
    if own:
        for row in range(rows):
            digits[row, tap_columns(cols)[:taps]] = x[:, row % cols]
    got: list[list[int]] = []

    async def testbench(ctx) -> None:
        weights = [[digit(dut.weight_digits[v]) for v in row] for row in w.tolist()]
        beat = {"x": shared.tolist(), "w": weights, "first": 1, "shift": 0, "last": 1}
        ctx.set(dut.i.payload, beat)
        ctx.set(dut.taps, x.tolist())
        ctx.set(dut.own, own)
        ctx.set(dut.i.valid, 1)
        for cycle in range(12):
            *_, valid, accs = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            ctx.set(dut.i.valid, 0)
            ctx.set(dut.i.payload, beat | {"x": [0] * cols})
            ctx.set(dut.taps, [[0] * cols] * taps)
            if valid:
                assert cycle == RECODE_DELAY + PRODUCT_DELAY + adder_stages(cols) + 1
                got.append([accs[row] for row in range(rows)])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert got == [multiply(arithmetic, w, digits).sum(1).tolist()], f"seed {seed}"
