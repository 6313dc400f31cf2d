"""Program fields: the constants of a layer, in registers while it runs."""

from collections.abc import Callable, Sequence

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed

from hwquant.gateware.lookup import lookup
from hwquant.scheduler.program import LayerProgram


def started(m: Module, start: Value, layers: int) -> Signal:
    """Return the index of the layer that ``start`` starts: one after the other, over and over."""
    layer = Signal(range(max(2, layers)), name="layer")
    with m.If(start):
        m.d.sync += layer.eq(Mux(layer == layers - 1, 0, layer + 1))
    return layer


class Fields:
    """The part of the program that one unit needs.

    ``layer`` indexes ``programs`` when ``start`` is high; a field has its value from the cycle
    after, in which ``loaded`` is high. A field that is the same in every layer costs nothing.
    """

    def __init__(
        self, m: Module, programs: Sequence[LayerProgram], layer: Value, start: Value
    ) -> None:
        self._m = m
        self._programs = programs
        self._layer = layer
        self._start = start
        self.loaded = Signal(name="fields_loaded")
        m.d.sync += self.loaded.eq(start)

    def of(self, name: str, value: Callable[[LayerProgram], int]) -> Signal:
        """Return a register that holds ``value`` of the layer that has started."""
        values = [int(value(program)) for program in self._programs]
        low, high = min(values), max(values)
        bits = max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0, 1)
        field = Signal(signed(bits + 1) if low < 0 else bits, name=name)
        size = len(field)
        table = [value & ((1 << size) - 1) for value in values]
        if len(set(table)) == 1:
            self._m.d.comb += field.eq(Const(table[0], size))
            return field
        with self._m.If(self._start):
            self._m.d.sync += field.eq(lookup(table, self._layer, size))
        return field
