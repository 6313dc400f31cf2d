"""The MAC array: rows of products, adders and exact accumulators."""

from typing import assert_never

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.lookup import lookup
from hwquant.gateware.product_logic import (
    ProductLogic,
    Recoded,
    Source,
    Table,
    WeightBit,
    last_inputs,
    product_logic,
)
from hwquant.gateware.shared import add_shared
from hwquant.ir import Arithmetic, LevelTables, ProductTable
from hwquant.plan import (
    CHAIN,
    PRODUCT_DELAY,
    RECODE_DELAY,
    adder_stages,
)


def weight_layout(weight_bits: int) -> data.StructLayout:
    """Sign and magnitude of a weight digit, in the code that the weight memory holds."""
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


class MacForm:
    """How the array computes products: what of an activation digit they need, and of what bits.

    Parameters
    ----------
    lut_inputs : inputs of the LUTs that products are cut for, 4 or 6
    """

    def __init__(self, arithmetic: Arithmetic, lut_inputs: int) -> None:
        match arithmetic:
            case ProductTable(products):
                self.logic: ProductLogic | LevelTables = product_logic(products, lut_inputs)
                self.weight_code = self.logic.code
                self.signals = tuple(signal.truth for signal in self.logic.signals)
                largest = int(products.max())
            case LevelTables(weight_levels, act_levels):
                self.logic = arithmetic
                self.weight_code = tuple(range(len(weight_levels)))
                width = range(int(act_levels.max()).bit_length())
                self.signals = tuple(tuple(int(v) >> at & 1 for v in act_levels) for at in width)
                largest = int(weight_levels.max()) * int(act_levels.max())
            case _:
                assert_never(arithmetic)
        self.lut_inputs = lut_inputs
        self.largest = largest
        self.product_bits = largest.bit_length()


class MacProduct(Component):
    """One signed product P as a number that is not negative: ``value = P + 2**bits - negative``.

    So a product below zero is inverted, and who adds it up adds ``negative`` as well.

    Members
    -------
    x : the functions of the activation digit that products need
    x_late : the same, a cycle later
    w : weight digit
    value, negative : one cycle after ``x``

    A ``late`` product has its registers before the last table of each bit, which then goes into the
    LUT of the adder's carry, if LUTs have 6 inputs.
    """

    def __init__(self, weight_bits: int, form: MacForm, *, late: bool) -> None:
        self._form = form
        self._late = late
        super().__init__(
            {
                "x": In(len(form.signals)),
                "x_late": In(len(form.signals)),
                "w": In(weight_layout(weight_bits)),
                "value": Out(form.product_bits + 1),
                "negative": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.negative.eq(self.w.negative)
        match self._form.logic:
            case ProductLogic() as logic:
                self._add_tables(m, logic)
            case LevelTables(weight_levels, _):
                levels = [int(level) for level in weight_levels]
                factor = lookup(levels, self.w.magnitude, max(levels).bit_length())
                product = Signal(self._form.product_bits)
                m.d.sync += product.eq(factor * self.x)
                inverted = product ^ self.negative.replicate(len(product))
                m.d.comb += self.value.eq(Cat(inverted, ~self.negative))
            case _:
                assert_never(self._form.logic)
        return m

    def _add_tables(self, m: Module, logic: ProductLogic) -> None:
        places = {signal: at for at, signal in enumerate(logic.signals)}
        now = Sources(self.x, self.w.magnitude, places)
        if not self._late:
            bits = [now.value(bit) ^ self.w.negative for bit in logic.bits]
            m.d.sync += self.value.eq(Cat(*bits, ~self.w.negative))
            return
        magnitude = Signal.like(self.w.magnitude)
        m.d.sync += magnitude.eq(self.w.magnitude)
        later = Sources(self.x_late, magnitude, places)
        room = last_inputs(self._form.lut_inputs)
        for at, bit in enumerate(logic.bits):
            tables = [Signal(name=f"table_{at}_{part}") for part in range(len(bit.inputs))]
            if len(bit.inputs) > room:
                m.d.sync += tables[0].eq(now.value(bit))
                last: Value = tables[0]
            else:
                inputs: list[Value] = []
                for table, source in zip(tables, bit.inputs, strict=True):
                    if isinstance(source, Table):
                        m.d.sync += table.eq(now.value(source))
                        inputs.append(table)
                    else:
                        inputs.append(later.value(source))
                last = lookup(bit.truth, Cat(*inputs), 1)
            m.d.comb += self.value[at].eq(last ^ self.negative)
        m.d.comb += self.value[-1].eq(~self.negative)


class Sources:
    """Values of the sources of tables in one cycle."""

    def __init__(self, x: Value, magnitude: Value, places: dict[Recoded, int]) -> None:
        self._x = x
        self._magnitude = magnitude
        self._places = places

    def value(self, source: Source) -> Value:
        """Return the value of a source."""
        match source:
            case WeightBit(bit):
                return self._magnitude[bit]
            case Recoded():
                return self._x[self._places[source]]
            case Table(inputs, truth):
                return lookup(truth, Cat(*(self.value(part) for part in inputs)), 1)
            case _:
                assert_never(source)


class MacRow(Component):
    """One output channel: ``cols`` products, registered adders, one accumulator.

    Chains of ``CHAIN`` columns, then a tree: the operand that a chain adds last passes one adder
    only, so that most products stand before an adder, where their last tables cost nothing. An
    inverted product is one too small: there are as many adders, with that of the accumulator, as
    products, so each adds one ``negative`` as its carry, which costs no LUT of 6 inputs.

    Timing
    ------
    ``acc`` includes the beat at ``x``, ``w`` after ``PRODUCT_DELAY + adder_stages(cols) + 1``
    cycles; digits of column c come ``lag(c, cols)`` cycles late. The ``first``, ``shift`` and
    ``valid`` inputs belong to the accumulator's own cycle.
    """

    def __init__(
        self, cols: int, weight_bits: int, acc_bits: int, part_shift: int, form: MacForm
    ) -> None:
        self._cols = cols
        self._weight_bits = weight_bits
        self._form = form
        self._acc_bits = acc_bits
        self._part_shift = part_shift
        signals = unsigned(len(form.signals))
        super().__init__(
            {
                "x": In(data.ArrayLayout(signals, cols)),
                "x_late": In(data.ArrayLayout(signals, cols)),
                "w": In(data.ArrayLayout(weight_layout(weight_bits), cols)),
                "first": In(1),
                "shift": In(1),
                "valid": In(1),
                "acc": Out(signed(acc_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products: list[tuple[Value, Value]] = []
        chain = min(CHAIN, self._cols)
        for col in range(self._cols):
            product = MacProduct(
                self._weight_bits, self._form, late=col % chain > 0 or self._form.lut_inputs == 4
            )
            m.submodules[f"product_{col}"] = product
            m.d.comb += [
                product.x.eq(self.x[col]),
                product.x_late.eq(self.x_late[col]),
                product.w.eq(self.w[col]),
            ]
            products.append((product.value, product.negative))

        # sums, each with the sign of one operand that is still to be added
        most = (1 << self._form.product_bits) + self._form.largest  # of one value
        nodes: list[tuple[Value, Value]] = []
        for start in range(0, self._cols, chain):
            total, pending = products[start]
            for at in range(1, chain):
                value, negative = products[start + at]
                bits = ((at + 1) * most).bit_length()
                sum_ = Signal(bits, name=f"chain_{start + at}")
                m.d.sync += sum_.eq(add_computed(total, value, negative, bits))
                total = sum_
            nodes.append((total, delayed(m, pending, chain - 1, f"negative_{start}")))
        while len(nodes) > 1:
            bits = (self._cols // len(nodes) * 2 * most).bit_length()
            parents: list[tuple[Value, Value]] = []
            for at in range(0, len(nodes), 2):
                (a, a_negative), (b, b_negative) = nodes[at], nodes[at + 1]
                name = f"{self._cols // len(nodes)}_{at}"
                sum_ = Signal(bits, name=f"sum_{name}")
                m.d.sync += sum_.eq(add_with_carry(a, b, a_negative, bits))
                parents.append((sum_, delayed(m, b_negative, 1, f"sum_negative_{name}")))
            nodes = parents

        # the sum exceeds the products' by cols << product_bits: its highest bit, inverted
        ((total, negative),) = nodes
        sign = ~total[-1]
        kept = Mux(self.shift, self.acc << self._part_shift, self.acc)
        base = Mux(self.first, 0, kept)[: self._acc_bits]
        with m.If(self.valid):
            sign = sign.replicate(max(1, self._acc_bits - len(total) + 1))
            addend = Cat(total[:-1], sign)[: self._acc_bits]  # less are enough for small weights
            m.d.sync += self.acc.eq(add_computed(addend, base, negative, self._acc_bits))
        return m


def add_with_carry(a: Value, b: Value, carry: Value, bits: int) -> Value:
    """Return the lowest ``bits`` bits of ``a + b + carry``, of unsigned operands.

    One carry chain, a bit longer: the carry is added to itself.
    """
    return (Cat(carry, a) + Cat(carry, b))[1 : bits + 1]


def add_computed(a: Value, b: Value, carry: Value, bits: int) -> Value:
    """Do the same where ``b`` comes from tables, which go into the LUTs of the carry chain.

    It computes ``2 a + carry - (2 ~b + 1)``, since yosys exchanges the operands of a sum as it
    likes, and a chain's LUTs hold the logic of its second operand alone.
    """
    wide = Cat(b, Const(0, bits - len(b)))
    return (Cat(carry, a) - Cat(Const(1, 1), ~wide))[1 : bits + 1]


def lag(col: int, cols: int) -> int:
    """Cycles by which the digits of a column come later than those of the first."""
    return max(0, col % min(CHAIN, cols) - 1)


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
        lut_inputs: int,
    ) -> None:
        self._shape = (rows, cols, weight_bits)
        self._acc_bits = acc_bits
        self._part_shift = part_shift
        self._form = MacForm(arithmetic, lut_inputs)
        beat = array_beat(rows, cols, weight_bits, act_bits)
        accs = data.ArrayLayout(signed(acc_bits), rows)
        super().__init__(
            {
                "i": In(stream.Signature(beat, always_ready=True)),
                "o": Out(stream.Signature(accs, always_ready=True)),
            }
        )

    @property
    def weight_code(self) -> tuple[int, ...]:
        """What the weight memory holds for each magnitude; 0 for 0."""
        return self._form.weight_code

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols, weight_bits = self._shape
        beat = self.i.payload
        truths = self._form.signals
        now, late = [
            Signal(data.ArrayLayout(unsigned(len(truths)), cols), name=name)
            for name in ("x", "x_late")
        ]
        w = Signal(beat.w.shape())
        for col in range(cols):
            recode = Recode(len(beat.x[col]), truths)
            add_shared(m, f"recode_{col}", "mac_recode", recode, platform)
            cycles, name = lag(col, cols), f"x_{col}"
            recoded = delayed(m, recode.o, cycles, name)
            m.d.comb += [
                recode.i.eq(beat.x[col]),
                now[col].eq(recoded),
                late[col].eq(delayed(m, recoded, 1, f"{name}_late")),
            ]
            for row in range(rows):
                digit = Value.cast(beat.w[row][col])
                digit = delayed(m, digit, RECODE_DELAY + cycles, f"w_{row}_{col}")
                m.d.comb += Value.cast(w[row][col]).eq(digit)
        delay = RECODE_DELAY + PRODUCT_DELAY + adder_stages(cols)
        flags = Cat(beat.first, beat.shift, beat.last & self.i.valid, self.i.valid)
        first, shift, last, valid = delayed(m, flags, delay, "flags")
        m.d.sync += self.o.valid.eq(last)
        for row in range(rows):
            mac_row = MacRow(cols, weight_bits, self._acc_bits, self._part_shift, self._form)
            add_shared(m, f"row_{row}", "mac_row", mac_row, platform)
            m.d.comb += [
                mac_row.x.eq(now),
                mac_row.x_late.eq(late),
                mac_row.w.eq(w[row]),
                mac_row.first.eq(first),
                mac_row.shift.eq(shift),
                mac_row.valid.eq(valid),
                self.o.payload[row].eq(mac_row.acc),
            ]
        return m


class Recode(Component):
    """Functions of one activation digit, a cycle later."""

    def __init__(self, bits: int, truths: tuple[tuple[int, ...], ...]) -> None:
        self._truths = truths
        super().__init__({"i": In(bits), "o": Out(len(truths))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(Cat(*(lookup(truth, self.i, 1) for truth in self._truths)))
        return m
