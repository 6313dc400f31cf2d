"""Max pooling: the maximum of codes, column by column."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class MaxPool(wiring.Component):
    """Maximum over the words of a window; a code of two digits comes as two words.

    Codes compare like values, so the digits compare as one number. A padded position reads as
    code 0, which never wins.

    Members
    -------
    valid, first, last, digit, word : a word of the window, ``digit`` 0 before 1; ``first`` and
        ``last`` are high for all digits of the window's first position and the last digit of its last
    write, second, word_out : the result, digit 1 in the cycle after digit 0

    Timing
    ------
    ``write`` comes one cycle after ``last``.
    """

    def __init__(self, cols: int, act_bits: int, digits: int) -> None:
        self._cols = cols
        self._act_bits = act_bits
        self._digits = digits
        word_bits = cols * act_bits
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "digit": In(1),
                "two_digits": In(1),
                "word": In(word_bits),
                "write": Out(1),
                "second": Out(1),
                "word_out": Out(word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self._act_bits
        best_high, best_low, high = (
            Signal.like(self.word, name=name) for name in ("best_high", "best_low", "high")
        )
        last = self.valid & self.last
        if self._digits == 1:
            with m.If(self.valid):
                for at in range(self._cols):
                    part = slice(at * bits, (at + 1) * bits)
                    wins = self.first | (self.word[part] > best_high[part])
                    m.d.sync += best_high[part].eq(Mux(wins, self.word[part], best_high[part]))
            m.d.sync += self.write.eq(last)
            m.d.comb += self.word_out.eq(best_high)
            return m
        compare = self.valid & (self.digit | ~self.two_digits)
        with m.If(self.valid & ~self.digit):
            m.d.sync += high.eq(self.word)
        with m.If(compare):
            for at in range(self._cols):
                part = slice(at * bits, (at + 1) * bits)
                new_high = Mux(self.two_digits, high[part], self.word[part])
                new_low = Mux(self.two_digits, self.word[part], 0)
                wins = self.first | (
                    Cat(new_low, new_high) > Cat(best_low[part], best_high[part])
                )
                with m.If(wins):
                    m.d.sync += [best_high[part].eq(new_high), best_low[part].eq(new_low)]
        pending = Signal.like(self.word)
        done = Signal()
        m.d.sync += [done.eq(last), pending.eq(best_low), self.second.eq(done & self.two_digits)]
        m.d.comb += [
            self.write.eq(done | self.second),
            self.word_out.eq(Mux(self.second, pending, best_high)),
        ]
        return m
