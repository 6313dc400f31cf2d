"""The word gatherer: codes from the lanes become words of the activation memory."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.ir import QuantGraph
from hwquant.scheduler.program import Schedule


class WordGatherer(Component):
    """Gathers ``lanes`` codes at a time into words, one a digit, that end with the pixel.

    Members
    -------
    valid, codes : codes of ``lanes`` output channels
    pixel_starts, pixel_ends : they are the first, the last of a pixel
    two_digits : the codes have two digits
    full, high, low : a word stands complete: digit 0 of its codes, digit 1

    Timing
    ------
    ``full`` comes one cycle after the codes that complete the word. The schedule spaces words of
    two digits by two cycles.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule, code_bits: int) -> None:
        self._act_bits = graph.act_bits
        self._plan = schedule.plan
        word_bits = schedule.plan.cols * graph.act_bits
        super().__init__(
            {
                "valid": In(1),
                "codes": In(data.ArrayLayout(code_bits, schedule.plan.lanes)),
                "pixel_starts": In(1),
                "pixel_ends": In(1),
                "two_digits": In(1),
                "full": Out(1),
                "high": Out(word_bits),
                "low": Out(word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, bits = self._plan.lanes, self._act_bits
        slots = self._plan.cols // lanes
        slot = Signal(range(slots))
        here = Mux(self.pixel_starts, 0, slot)
        lowest = Cat(*(self.codes[lane][:bits] for lane in range(lanes)))
        highest = Cat(*(self.codes[lane][bits:] for lane in range(lanes)))
        if len(highest) == 0:
            highest = lowest
        with m.If(self.valid):
            m.d.sync += [
                slot.eq(here + 1),
                self.high.word_select(here, lanes * bits).eq(Mux(self.two_digits, highest, lowest)),
                self.low.word_select(here, lanes * bits).eq(lowest),
            ]
        m.d.sync += self.full.eq(self.valid & (self.pixel_ends | (here == slots - 1)))
        return m
