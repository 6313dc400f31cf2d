"""One product of the MAC array: its form, and the tables that compute it."""

from typing import assert_never

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.lookup import lookup
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
from hwquant.ir import Arithmetic, LevelTables, ProductTable


def weight_layout(weight_bits: int) -> data.StructLayout:
    """Sign and magnitude of a weight digit, in the code that the weight memory holds."""
    return data.StructLayout({"magnitude": unsigned(weight_bits - 1), "negative": 1})


class MacForm:
    """How the array computes products: what of an activation digit they need, and of what bits.

    Parameters
    ----------
    lut_inputs : inputs of the LUTs that products are cut for, 4 or 6
    is_shared : whether all rows of a column take one digit, recoded once for all
    """

    def __init__(self, arithmetic: Arithmetic, lut_inputs: int, *, is_shared: bool = True) -> None:
        match arithmetic:
            case ProductTable(products):
                logic = product_logic if is_shared else private_logic
                self.logic: ProductLogic | LevelTables = logic(products, lut_inputs)
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
        above = len(self.weight_code)  # the sign's place
        negative = (code | above for code in reversed(self.weight_code[1:]))
        self.weight_digits = (*self.weight_code, *negative)
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
