"""The MAC array: rows of products, adder trees and exact accumulators."""

from typing import assert_never

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.lookup import lookup
from hwquant.gateware.shared import add_shared
from hwquant.ir import Arithmetic, LevelTables, ProductTable
from hwquant.plan import log2_ceil


def weight_layout(weight_bits: int) -> data.StructLayout:
    """Sign and magnitude of a weight digit, as stored in the weight memory."""
    return data.StructLayout({"magnitude": unsigned(weight_bits - 1), "negative": 1})


def array_beat(rows: int, cols: int, weight_bits: int, act_bits: int) -> data.StructLayout:
    """One step of the array: ``cols`` activation digits and ``rows`` x ``cols`` weight digits.

    ``first`` starts a sum, ``shift`` weighs what has been summed by ``2**part_shift`` before this
    beat is added, ``last`` ends it.
    """
    return data.StructLayout(
        {
            "x": data.ArrayLayout(unsigned(act_bits), cols),
            "w": data.ArrayLayout(data.ArrayLayout(weight_layout(weight_bits), cols), rows),
            "first": 1,
            "shift": 1,
            "last": 1,
        }
    )


class MacProduct(Component):
    """One product, in a register: its magnitude, and its sign apart.

    Members
    -------
    x : activation digit, or its level
    w : weight digit
    product, negative : one cycle later
    """

    def __init__(self, weight_bits: int, act_bits: int, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        super().__init__(
            {
                "x": In(operand_bits(arithmetic, act_bits)),
                "w": In(weight_layout(weight_bits)),
                "product": Out(range(largest_product(arithmetic) + 1)),
                "negative": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        match self._arithmetic:
            case ProductTable(products):
                table = [int(p) for row in products for p in row]
                product = lookup(table, Cat(self.x, self.w.magnitude), len(self.product))
            case LevelTables(weight_levels, _):
                levels = [int(level) for level in weight_levels]
                product = lookup(levels, self.w.magnitude, max(levels).bit_length()) * self.x
            case _:
                assert_never(self._arithmetic)
        m.d.sync += [self.product.eq(product), self.negative.eq(self.w.negative)]
        return m


def operand_bits(arithmetic: Arithmetic, act_bits: int) -> int:
    """Return the bits of an activation operand at the products: of a digit or of a level."""
    match arithmetic:
        case ProductTable():
            return act_bits
        case LevelTables(_, act_levels):
            return int(act_levels.max()).bit_length()
        case _:
            assert_never(arithmetic)


def largest_product(arithmetic: Arithmetic) -> int:
    """Return the magnitude of the largest product."""
    match arithmetic:
        case ProductTable(products):
            return int(products.max())
        case LevelTables(weight_levels, act_levels):
            return int(weight_levels.max()) * int(act_levels.max())
        case _:
            assert_never(arithmetic)


class MacRow(Component):
    """One output channel: ``cols`` products, a registered adder tree, one accumulator.

    Signs cost no negation: a node of the tree adds or subtracts its second operand by the
    *difference* of the two signs and leaves the sign of its first operand pending, to be settled in
    the accumulator. An adder/subtractor is one carry chain, a bit longer: ``{a, 1} + {b ^ r, r}``.

    Timing
    ------
    ``acc`` includes the beat at ``x``, ``w`` after ``1 + log2(cols) + 1`` cycles; the ``first``,
    ``shift`` and ``valid`` inputs belong to the accumulator's own cycle.
    """

    def __init__(
        self,
        cols: int,
        weight_bits: int,
        act_bits: int,
        acc_bits: int,
        part_shift: int,
        arithmetic: Arithmetic,
    ) -> None:
        self._cols = cols
        self._product = (weight_bits, act_bits, arithmetic)
        self._acc_bits = acc_bits
        self._part_shift = part_shift
        super().__init__(
            {
                "x": In(data.ArrayLayout(operand_bits(arithmetic, act_bits), cols)),
                "w": In(data.ArrayLayout(weight_layout(weight_bits), cols)),
                "first": In(1),
                "shift": In(1),
                "valid": In(1),
                "acc": Out(signed(acc_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        nodes: list[tuple[Value, Value]] = []
        for col in range(self._cols):
            product = MacProduct(*self._product)
            add_shared(m, f"product_{col}", "mac_product", product, platform)
            m.d.comb += [product.x.eq(self.x[col]), product.w.eq(self.w[col])]
            nodes.append((product.product, product.negative))
        low, high = 0, largest_product(self._product[2])
        for level in range(log2_ceil(self._cols)):
            low, high = min(low - high, low + low), max(high - low, high + high)
            parents: list[tuple[Value, Value]] = []
            for at in range(0, len(nodes), 2):
                (a, a_negative), (b, b_negative) = nodes[at], nodes[at + 1]
                shape = signed(max(high.bit_length(), (-low - 1).bit_length()) + 1)
                total = Signal(shape, name=f"sum_{level}_{at // 2}")
                negative = Signal(name=f"sum_negative_{level}_{at // 2}")
                m.d.sync += [total.eq(add_or_subtract(a, b, a_negative ^ b_negative))]
                m.d.sync += negative.eq(a_negative)
                parents.append((total, negative))
            nodes = parents
        ((total, negative),) = nodes
        kept = Mux(self.shift, self.acc << self._part_shift, self.acc)
        base = Signal(signed(self._acc_bits))
        m.d.comb += base.eq(Mux(self.first, 0, kept))
        with m.If(self.valid):
            m.d.sync += self.acc.eq(add_or_subtract(base, total, negative))
        return m


def add_or_subtract(a: Value, b: Value, subtract: Value) -> Value:
    """Return ``a + b`` or ``a - b`` in one carry chain (two's complement, exact)."""
    width = max(len(a), len(b)) + 2
    flipped = _extend(b, width) ^ subtract.replicate(width)
    total = Cat(Const(1, 1), _extend(a, width)) + Cat(subtract, flipped)
    return total[1 : width + 1].as_signed()


def _extend(value: Value, width: int) -> Value:
    sign = value[-1] if value.shape().signed else Const(0, 1)
    return Cat(value, sign.replicate(width - len(value)))


class MacArray(Component):
    """``rows`` output channels times ``cols`` input channels a cycle.

    Members
    -------
    i : stream of ``array_beat``, always ready
    o : stream of ``rows`` accumulators, always ready; one beat for every ``last``

    Timing
    ------
    ``o.valid`` comes ``plan.array_delay`` cycles after the beat with ``last``, and the accumulators
    hold for that one cycle.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        weight_bits: int,
        act_bits: int,
        acc_bits: int,
        part_shift: int,
        arithmetic: Arithmetic,
    ) -> None:
        self._shape = (rows, cols, weight_bits, act_bits)
        self._acc_bits = acc_bits
        self._part_shift = part_shift
        self._arithmetic = arithmetic
        beat = array_beat(rows, cols, weight_bits, act_bits)
        accs = data.ArrayLayout(signed(acc_bits), rows)
        super().__init__(
            {
                "i": In(stream.Signature(beat, always_ready=True)),
                "o": Out(stream.Signature(accs, always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols, weight_bits, act_bits = self._shape
        beat = self.i.payload
        x, w, delay = beat.x, beat.w, 1 + log2_ceil(cols)
        if isinstance(self._arithmetic, LevelTables):
            levels = [int(v) for v in self._arithmetic.act_levels]
            width = max(levels).bit_length()
            x = Signal(data.ArrayLayout(unsigned(width), cols))
            w = Signal(beat.w.shape())
            m.d.sync += [x[col].eq(lookup(levels, beat.x[col], width)) for col in range(cols)]
            m.d.sync += w.eq(beat.w)
            delay += 1
        flags = Cat(beat.first, beat.shift, beat.last & self.i.valid, self.i.valid)
        first, shift, last, valid = delayed(m, flags, delay, "flags")
        m.d.sync += self.o.valid.eq(last)
        for row in range(rows):
            mac_row = MacRow(
                cols, weight_bits, act_bits, self._acc_bits, self._part_shift, self._arithmetic
            )
            add_shared(m, f"row_{row}", "mac_row", mac_row, platform)
            m.d.comb += [
                mac_row.x.eq(x),
                mac_row.w.eq(w[row]),
                mac_row.first.eq(first),
                mac_row.shift.eq(shift),
                mac_row.valid.eq(valid),
                self.o.payload[row].eq(mac_row.acc),
            ]
        return m
