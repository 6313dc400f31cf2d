"""Products of cut factors are exact."""

import numpy as np
import pytest
from amaranth.hdl import Module, signed
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.multiply import limbs, multiplied
from tests.gateware_bench import run_unit


class Multiplier(Component):
    def __init__(self, a_bits: int, b_bits: int) -> None:
        super().__init__(
            {"a": In(signed(a_bits)), "b": In(b_bits), "product": Out(signed(a_bits + b_bits))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.product.eq(multiplied(m, self.a, self.b, "product"))
        return m


@pytest.mark.parametrize(("a_bits", "b_bits"), [(5, 3), (18, 17), (19, 18), (34, 9), (36, 18)])
def test_products_equal_python(a_bits: int, b_bits: int) -> None:
    rng = np.random.default_rng(a_bits)
    low, high = -(1 << a_bits - 1), (1 << a_bits - 1) - 1
    a = [low, low, high, high, -1, 0, *rng.integers(low, high, 50, endpoint=True).tolist()]
    b = [(1 << b_bits) - 1, 0, (1 << b_bits) - 1, 1, (1 << b_bits) - 1, 1]
    b += rng.integers(0, 1 << b_bits, 50).tolist()
    inputs = [{"a": x, "b": y} for x, y in zip(a, b, strict=True)]
    products = run_unit(Multiplier(a_bits, b_bits), inputs, "product", 2)
    assert products == [x * y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("bits", range(1, 60))
def test_parts_fit_a_block_and_leave_nothing_out(bits: int) -> None:
    parts = limbs(bits)
    covered = [at for part in parts for at in range(part.start, part.stop)]
    assert covered == list(range(bits))
    assert all(part.stop - part.start == 16 for part in parts[:-1])
    assert parts[-1].stop - parts[-1].start <= 18
