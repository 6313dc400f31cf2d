"""The digit writer: results in memory order become writes of one word a digit."""

from collections.abc import Callable

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.fields import Fields, started
from hwquant.ir import QuantGraph
from hwquant.scheduler.placement import Placement
from hwquant.scheduler.program import LayerProgram, Schedule


class DigitWriter(Component):
    """Counts through the output tensor of a layer; a second digit goes to the second plane.

    Members
    -------
    start : the next words are those of the next layer; the last layer writes none
    full, high, low : the next word of codes stands complete: its digit 0, its digit 1
    two_digits : the output of the layer has two digits
    tile_ends : of streamed weights: the word is the last one that a tile makes
    write, bank, address, word : the write port

    Timing
    ------
    Digit 0 is written with ``full``, digit 1 in the next cycle, when a new word may be gathered and
    the next layer's fields may be loaded.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        self._schedule = schedule
        word_bits = schedule.plan.cols * graph.act_bits
        ports = {
            "start": In(1),
            "full": In(1),
            "high": In(word_bits),
            "low": In(word_bits),
            "two_digits": Out(1),
            "write": Out(1),
            "bank": Out(1),
            "address": Out(range(max(2, *schedule.bank_words))),
            "word": Out(word_bits),
        }
        if schedule.plan.is_streamed:
            ports["tile_ends"] = In(1)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        programs = self._schedule.layers[:-1] or self._schedule.layers
        layer = started(m, self.start, len(programs))
        fields = Fields(m, programs, layer, self.start)

        def of(name: str, value: Callable[[Placement], int]) -> Signal:
            def of_output(program: LayerProgram) -> int:
                return 0 if program.output is None else value(program.output)

            return fields.of(name, of_output)

        base, plane = of("base", lambda p: p.base), of("plane", lambda p: p.plane)
        bank, two = of("bank_field", lambda p: p.bank), of("two", lambda p: p.digits == 2)
        second, second_bank = Signal(), Signal()
        address, second_address = Signal.like(self.address), Signal.like(self.address)
        second_word = Signal.like(self.word)
        m.d.sync += [
            second.eq(self.full & two),
            second_bank.eq(bank),
            second_address.eq(address + plane),
            second_word.eq(self.low),
        ]
        step = self._step(m, fields)
        with m.If(fields.loaded):
            m.d.sync += address.eq(base)
        with m.Elif(self.full):
            m.d.sync += address.eq(address + step)
        m.d.comb += [
            self.two_digits.eq(two),
            self.write.eq(self.full | second),
            self.bank.eq(Mux(second, second_bank, bank)),
            self.address.eq(Mux(second, second_address, address)),
            self.word.eq(Mux(second, second_word, self.high)),
        ]
        return m

    def _step(self, m: Module, fields: Fields) -> Value:
        """Return the way to the next word: over those of the other parts, behind a pixel's last.

        A pixel has the words of one tile; behind a tile's last it leads to the next tile's first.
        """
        is_streamed = self._schedule.plan.is_streamed
        places = [program.output for program in self._schedule.layers if program.output]
        if not is_streamed and all(place.pitch == place.groups for place in places):
            return Const(1)
        last_word = fields.of("last_word", lambda p: _words(p) - 1 if p.output else 0)
        gap = fields.of("gap", lambda p: p.output.pitch - _words(p) if p.output else 0)
        word = Signal.like(last_word, name="word_of_pixel")
        pixel_ends = word == last_word
        with m.If(fields.loaded):
            m.d.sync += word.eq(0)
        with m.Elif(self.full):
            m.d.sync += word.eq(Mux(pixel_ends, 0, word + 1))
        step = Mux(pixel_ends, gap + 1, 1)
        if is_streamed:
            way = fields.of("to_next_tile", lambda p: 1 - _span(p.output) if p.output else 0)
            step = Mux(self.tile_ends, way, step)
        return step


def _words(program: LayerProgram) -> int:
    """Return the words of a pixel that a tile makes."""
    assert program.output is not None
    return program.output.groups // program.tiles


def _span(place: Placement) -> int:
    """Return the way from a word of the first pixel to that of the last."""
    return (place.height * place.width - 1) * place.pitch
