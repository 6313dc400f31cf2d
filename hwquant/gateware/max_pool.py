"""Max pooling: the maximum of codes, column by column."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.ir import QuantGraph
from hwquant.scheduler.program import Schedule


class MaxPool(Component):
    """Maximum over the words of a window; a code of two digits comes as two words.

    Codes compare like values, so the digits compare as one number. A padded position reads as
    code 0, which never wins.

    Members
    -------
    valid, first, last, digit, word : a word of the window, digit 0 before digit 1; ``first`` and
        ``last`` mark all digits of the first position and the last digit of the last
    two_digits : the codes have two digits
    full, high, low : a result stands complete: digit 0 of its codes, digit 1

    Timing
    ------
    ``full`` comes one cycle after ``last``.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        self._act_bits = graph.act_bits
        word_bits = schedule.plan.cols * graph.act_bits
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "digit": In(1),
                "word": In(word_bits),
                "two_digits": In(1),
                "full": Out(1),
                "high": Out(word_bits),
                "low": Out(word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, two = self._act_bits, self.two_digits
        digit_0 = Signal.like(self.word)
        with m.If(self.valid & ~self.digit):
            m.d.sync += digit_0.eq(self.word)
        with m.If(self.valid & (self.digit | ~two)):
            for start in range(0, len(self.word), bits):
                part = slice(start, start + bits)
                high: Value = Mux(two, digit_0[part], self.word[part])
                low: Value = Mux(two, self.word[part], 0)
                best = Cat(self.low[part], self.high[part])
                with m.If(self.first | (Cat(low, high) > best)):
                    m.d.sync += [self.high[part].eq(high), self.low[part].eq(low)]
        m.d.sync += self.full.eq(self.valid & self.last)
        return m
