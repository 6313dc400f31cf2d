"""The tap buffer: a word of the columns before the one that is read."""

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.deep_memory import READ_DELAY, add_memory
from hwquant.gateware.delay import delayed


class TapBuffer(Component):
    """For each word of a column, the same word of the ``taps - 1`` columns before.

    Members
    -------
    address : which word of a column; its ``word`` comes ``READ_DELAY`` cycles later
    word : the newest column's
    words : those of the columns before, the newest first, in step with ``word``
    push : ``word`` becomes the newest of the columns before
    edge, pad_word : the column is the first of its row: what lies before it is ``pad_word``

    Timing
    ------
    A push is seen by addresses ``plan.TAP_DELAY`` cycles after its own, or later.
    """

    def __init__(self, word_bits: int, taps: int, address_bits: int) -> None:
        self._address_bits = address_bits
        super().__init__(
            {
                "address": In(address_bits),
                "word": In(word_bits),
                "words": Out(data.ArrayLayout(word_bits, taps - 1)),
                "push": In(1),
                "edge": In(1),
                "pad_word": In(word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        before = [Mux(self.edge, self.pad_word, word) for word in self.words]
        write = (
            self.push,
            delayed(m, self.address, READ_DELAY, "address"),
            Cat(self.word, *before[:-1]),
        )
        bits, depth = len(self.words.as_value()), 1 << self._address_bits
        words = add_memory(m, "columns", bits, depth, self.address, write=write)
        m.d.comb += self.words.eq(words)
        return m
