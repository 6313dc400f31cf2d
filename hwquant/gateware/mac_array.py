"""The MAC array: rows of products, adders and exact accumulators."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.lookup import lookup
from hwquant.gateware.mac_product import MacForm, MacProduct, weight_layout
from hwquant.gateware.shared import add_shared
from hwquant.ir import Arithmetic
from hwquant.scheduler.plan import (
    CHAIN,
    PRODUCT_DELAY,
    RECODE_DELAY,
    adder_stages,
    lag,
    tap_columns,
)


def array_beat(rows: int, cols: int, weight: ShapeLike, act_bits: int) -> data.StructLayout:
    """One step of the array: ``cols`` activation digits and ``rows`` x ``cols`` weight digits.

    ``weight`` is a weight digit's shape. ``first`` starts a sum, ``shift`` weighs what has been
    summed by ``2**part_shift`` before this beat is added, ``last`` ends it.
    """
    return data.StructLayout(
        {
            "x": data.ArrayLayout(unsigned(act_bits), cols),
            "w": data.ArrayLayout(data.ArrayLayout(weight, cols), rows),
            "first": 1,
            "shift": 1,
            "last": 1,
        }
    )


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
        self, weight_bits: int, acc_bits: int, part_shift: int, forms: Sequence[MacForm]
    ) -> None:
        self._cols = cols = len(forms)
        self._weight_bits = weight_bits
        self._forms = forms
        self._acc_bits = acc_bits
        self._part_shift = part_shift
        signals = unsigned(max(len(form.signals) for form in forms))
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
        for col, form in enumerate(self._forms):
            late = col % chain > 0 or form.lut_inputs == 4
            product = MacProduct(self._weight_bits, form, late=late)
            m.submodules[f"product_{col}"] = product
            m.d.comb += [
                product.x.eq(self.x[col]),
                product.x_late.eq(self.x_late[col]),
                product.w.eq(self.w[col]),
            ]
            products.append((product.value, product.negative))

        # sums, each with the sign of one operand that is still to be added
        most = (1 << self._forms[0].product_bits) + self._forms[0].largest  # of one value
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
        base = kept(self.acc, self.first, self.shift, self._part_shift)
        sign = ~total[-1]
        with m.If(self.valid):
            sign = sign.replicate(max(1, self._acc_bits - len(total) + 1))
            addend = Cat(total[:-1], sign)[: self._acc_bits]  # less are enough for small weights
            m.d.sync += self.acc.eq(add_computed(addend, base, negative, self._acc_bits))
        return m


def kept(acc: Value, first: Value, shift: Value, part_shift: int) -> Value:
    """Return what a beat is added to: nothing, or the accumulator, weighed anew or not."""
    return Mux(first, 0, Mux(shift, acc << part_shift, acc))[: len(acc)]


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


class MacArray(Component):
    """``rows`` output channels times ``cols`` input channels a cycle.

    Members
    -------
    i : stream of ``array_beat``, always ready
    o : stream of ``rows`` accumulators, always ready; one beat for every ``last``
    own, taps : rows take taps of their own channels, if the array has any: row r multiplies in
        column ``tap_columns[t]`` digit ``r % cols`` of ``taps[t]``; both are in step with x

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
        taps: int = 1,
    ) -> None:
        self._shape = (rows, cols, weight_bits)
        self._acc_bits = acc_bits
        self._part_shift = part_shift
        self._forms = [MacForm(arithmetic, lut_inputs)] * cols
        self._own: list[int] = []  # columns in which rows choose
        if taps > 1:
            self._own = tap_columns(cols)[:taps]
            own = MacForm(arithmetic, lut_inputs, is_shared=False)
            self._forms = [own if col in self._own else f for col, f in enumerate(self._forms)]
        beat = array_beat(rows, cols, weight_layout(weight_bits), act_bits)
        accs = data.ArrayLayout(signed(acc_bits), rows)
        words = data.ArrayLayout(data.ArrayLayout(unsigned(act_bits), cols), taps)
        super().__init__(
            {
                "i": In(stream.Signature(beat, always_ready=True)),
                "o": Out(stream.Signature(accs, always_ready=True)),
            }
            | ({"own": In(1), "taps": In(words)} if taps > 1 else {})
        )

    @property
    def weight_digits(self) -> tuple[int, ...]:
        """What the weight memory holds for each code; 0 for 0, negative ones at the end."""
        return self._forms[0].weight_digits

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols, weight_bits = self._shape
        beat = self.i.payload
        signals = max(len(form.signals) for form in self._forms)
        now, late = [
            Signal(data.ArrayLayout(unsigned(signals), cols), name=name) for name in ("x", "x_late")
        ]
        w = Signal(beat.w.shape())
        for col, form in enumerate(self._forms):
            cycles, name = lag(col, cols), f"x_{col}"
            if col not in self._own:
                recode = Recode(len(beat.x[col]), form.signals)
                add_shared(m, f"recode_{col}", "mac_recode", recode, platform)
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
            mac_row = MacRow(weight_bits, self._acc_bits, self._part_shift, self._forms)
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
            if self._own:
                self._take_taps(m, row, mac_row, platform)
        return m

    def _take_taps(self, m: Module, row: int, mac_row: MacRow, platform: object) -> None:
        """Have a row choose its digits in some columns: what it takes is for it to recode."""
        x = self.i.payload.x
        for col, word in zip(self._own, self.taps, strict=True):
            name = f"x_{row}_{col}"
            recode = Recode(len(x[col]), self._forms[col].signals)
            add_shared(m, f"recode_{row}_{col}", "tap_recode", recode, platform)
            digit = Mux(self.own, word[row % len(x)], x[col])
            m.d.comb += [
                recode.i.eq(delayed(m, digit, lag(col, len(x)), name)),
                mac_row.x[col].eq(recode.o),
                mac_row.x_late[col].eq(delayed(m, recode.o, 1, f"{name}_late")),
            ]


class Recode(Component):
    """Functions of one activation digit, a cycle later."""

    def __init__(self, bits: int, truths: tuple[tuple[int, ...], ...]) -> None:
        self._truths = truths
        super().__init__({"i": In(bits), "o": Out(len(truths))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(Cat(*(lookup(truth, self.i, 1) for truth in self._truths)))
        return m
