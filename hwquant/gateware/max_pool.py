"""Max pooling: the maximum of codes, column by column."""

from collections.abc import Callable

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.fields import Fields
from hwquant.ir import QuantGraph
from hwquant.schedule import LayerProgram, Placement, Schedule


class MaxPool(Component):
    """Maximum over the words of a window; a code of two digits comes as two words.

    Codes compare like values, so the digits compare as one number. A padded position reads as
    code 0, which never wins. Results are written in the order in which they lie in memory.

    Members
    -------
    layer, start : as the sequencer says
    valid, first, last, digit, word : a word of the window, digit 0 before digit 1; ``first`` and
        ``last`` mark all digits of the first position and the last digit of the last
    write, bank, address, word_out : the write port

    Timing
    ------
    ``write`` comes one cycle after ``last``, for a second digit once more in the next.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        self._schedule = schedule
        self._act_bits = graph.act_bits
        word_bits = schedule.plan.cols * graph.act_bits
        super().__init__(
            {
                "layer": In(range(max(2, len(schedule.layers)))),
                "start": In(1),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "digit": In(1),
                "word": In(word_bits),
                "write": Out(1),
                "bank": Out(1),
                "address": Out(range(max(2, *schedule.bank_words))),
                "word_out": Out(word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = Fields(m, self._schedule, self.layer, self.start)

        def of(name: str, value: Callable[[Placement], int]) -> Signal:
            def of_output(program: LayerProgram) -> int:
                return 0 if program.output is None else value(program.output)

            return fields.of(name, of_output)

        base, plane = of("base", lambda p: p.base), of("plane", lambda p: p.plane)
        bank, two = of("bank", lambda p: p.bank), of("two_digits", lambda p: p.digits == 2)
        high, low = self._maximum(m, two)

        done, second, second_bank = Signal(), Signal(), Signal()
        address, second_address = Signal.like(self.address), Signal.like(self.address)
        pending = Signal.like(self.word)
        m.d.sync += [
            done.eq(self.valid & self.last),
            second.eq(done & two),
            pending.eq(low),
            second_address.eq(address + plane),  # the next layer's fields may be loaded by then
            second_bank.eq(bank),
        ]
        with m.If(fields.loaded):
            m.d.sync += address.eq(base)
        with m.Elif(done):
            m.d.sync += address.eq(address + 1)
        m.d.comb += [
            self.write.eq(done | second),
            self.bank.eq(Mux(second, second_bank, bank)),
            self.address.eq(Mux(second, second_address, address)),
            self.word_out.eq(Mux(second, pending, high)),
        ]
        return m

    def _maximum(self, m: Module, two: Signal) -> tuple[Signal, Signal]:
        """Return digit 0 and digit 1 of the largest codes so far, a word each."""
        bits = self._act_bits
        best_high, best_low, high = (
            Signal.like(self.word, name=name) for name in ("best_high", "best_low", "high")
        )
        with m.If(self.valid & ~self.digit):
            m.d.sync += high.eq(self.word)
        with m.If(self.valid & (self.digit | ~two)):
            for start in range(0, len(self.word), bits):
                part = slice(start, start + bits)
                new_high: Value = Mux(two, high[part], self.word[part])
                new_low: Value = Mux(two, self.word[part], 0)
                best = Cat(best_low[part], best_high[part])
                with m.If(self.first | (Cat(new_low, new_high) > best)):
                    m.d.sync += [best_high[part].eq(new_high), best_low[part].eq(new_low)]
        return best_high, best_low
