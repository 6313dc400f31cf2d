"""Products of cut factors are exact."""

import numpy as np
import pytest
from amaranth.hdl import Module, Shape, signed, unsigned
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.multiply import limbs, multiplied, partly_multiplied
from tests.gateware_bench import run_unit


class Multiplier(Component):
    def __init__(self, a: Shape, b_bits: int, in_blocks: bool) -> None:
        self._in_blocks = in_blocks
        super().__init__(
            {"a": In(a), "b": In(b_bits), "product": Out(Shape(a.width + b_bits, a.signed))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        product = partly_multiplied(m, self.a, self.b, "product", in_blocks=self._in_blocks)
        m.d.sync += self.product.eq(product)
        return m


class SignedMultiplier(Multiplier):
    def elaborate(self, platform: object) -> Module:
        m = Module()
        product = multiplied(m, self.a, self.b, "product", in_blocks=self._in_blocks)
        m.d.comb += self.product.eq(product)
        return m


@pytest.mark.parametrize("in_blocks", [True, False])
@pytest.mark.parametrize(("a_bits", "b_bits"), [(5, 3), (18, 17), (19, 18), (34, 9), (36, 18)])
def test_products_equal_python(a_bits: int, b_bits: int, in_blocks: bool) -> None:
    low, high = -(1 << a_bits - 1), (1 << a_bits - 1) - 1
    a = [low, low, high, high, -1, 0]
    b = [(1 << b_bits) - 1, 0, (1 << b_bits) - 1, 1, (1 << b_bits) - 1, 1]
    assert_exact(SignedMultiplier(signed(a_bits), b_bits, in_blocks), a, b)


@pytest.mark.parametrize("in_blocks", [True, False])
@pytest.mark.parametrize(("a_bits", "b_bits"), [(1, 1), (5, 3), (11, 15), (17, 16), (20, 18)])
def test_products_without_signs_equal_python(a_bits: int, b_bits: int, in_blocks: bool) -> None:
    largest, most = (1 << a_bits) - 1, (1 << b_bits) - 1
    dut = Multiplier(unsigned(a_bits), b_bits, in_blocks)
    assert_exact(dut, [largest, largest, 0, 1], [most, 1, most, most])


def assert_exact(dut: Multiplier, a: list[int], b: list[int]) -> None:
    """Compare products of the given factors, and of 50 random pairs more."""
    bits, rng = dut.a.shape(), np.random.default_rng(len(dut.a))
    low = -(1 << bits.width - 1) if bits.signed else 0
    a += rng.integers(low, low + (1 << bits.width), 50).tolist()
    b += rng.integers(0, 1 << len(dut.b), 50).tolist()
    inputs: list[dict[str, object]] = [{"a": x, "b": y} for x, y in zip(a, b, strict=True)]
    assert run_unit(dut, inputs, "product", 2) == [x * y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize(("in_blocks", "step", "most"), [(True, 16, 18), (False, 8, 8)])
@pytest.mark.parametrize("bits", range(1, 60))
def test_parts_fit_a_block_or_are_short_and_leave_nothing_out(
    bits: int, in_blocks: bool, step: int, most: int
) -> None:
    parts = limbs(bits, in_blocks=in_blocks)
    covered = [at for part in parts for at in range(part.start, part.stop)]
    assert covered == list(range(bits))
    assert all(part.stop - part.start == step for part in parts[:-1])
    assert parts[-1].stop - parts[-1].start <= most
