"""The word writer: codes from the lanes become words of the activation memory."""

from collections.abc import Callable

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.fields import Fields
from hwquant.ir import QuantGraph
from hwquant.schedule import LayerProgram, Placement, Schedule


class WordWriter(Component):
    """Gathers ``lanes`` codes at a time; writes a word when it is full or the pixel ends.

    Words are written in the order in which they lie in memory. A word of two digits is written as
    two, in consecutive cycles; the schedule spaces the words accordingly.

    Members
    -------
    valid, codes : codes of ``lanes`` output channels
    pixel_starts, pixel_ends : they are the first, the last of a pixel
    layer, start : as the sequencer says
    write, bank, address, word : the write port

    Timing
    ------
    Digit 0 is written one cycle after the codes that complete the word, digit 1 a cycle later.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule, code_bits: int) -> None:
        self._act_bits = graph.act_bits
        self._schedule = schedule
        lanes = schedule.plan.lanes
        super().__init__(
            {
                "valid": In(1),
                "codes": In(data.ArrayLayout(code_bits, lanes)),
                "pixel_starts": In(1),
                "pixel_ends": In(1),
                "layer": In(range(max(2, len(schedule.layers)))),
                "start": In(1),
                "write": Out(1),
                "bank": Out(1),
                "address": Out(range(max(2, *schedule.bank_words))),
                "word": Out(schedule.plan.cols * graph.act_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        plan, bits = self._schedule.plan, self._act_bits
        fields = Fields(m, self._schedule, self.layer, self.start)

        def of(name: str, value: Callable[[Placement], int]) -> Signal:
            def of_output(program: LayerProgram) -> int:
                return 0 if program.output is None else value(program.output)

            return fields.of(name, of_output)

        base, plane = of("base", lambda p: p.base), of("plane", lambda p: p.plane)
        bank, two = of("bank", lambda p: p.bank), of("two_digits", lambda p: p.digits == 2)
        slots, lane_bits = plan.cols // plan.lanes, plan.lanes * bits
        slot = Signal(range(slots))
        here = Mux(self.pixel_starts, 0, slot)
        high, low, pending = (
            Signal.like(self.word, name=name) for name in ("high", "low", "pending")
        )
        lowest = Cat(*(self.codes[lane][:bits] for lane in range(plan.lanes)))
        highest = Cat(*(self.codes[lane][bits:] for lane in range(plan.lanes)))
        if len(highest) == 0:
            highest = lowest
        with m.If(self.valid):
            m.d.sync += [
                slot.eq(here + 1),
                high.word_select(here, lane_bits).eq(Mux(two, highest, lowest)),
                low.word_select(here, lane_bits).eq(lowest),
            ]
        full, second, second_bank = Signal(), Signal(), Signal()
        address, second_address = Signal.like(self.address), Signal.like(self.address)
        m.d.sync += [
            full.eq(self.valid & (self.pixel_ends | (here == slots - 1))),
            second.eq(full & two),
            pending.eq(low),
            second_address.eq(address + plane),  # the next layer's fields may be loaded by then
            second_bank.eq(bank),
        ]
        with m.If(fields.loaded):
            m.d.sync += address.eq(base)
        with m.Elif(full):
            m.d.sync += address.eq(address + 1)
        m.d.comb += [
            self.write.eq(full | second),
            self.bank.eq(Mux(second, second_bank, bank)),
            self.address.eq(Mux(second, second_address, address)),
            self.word.eq(Mux(second, pending, high)),
        ]
        return m
