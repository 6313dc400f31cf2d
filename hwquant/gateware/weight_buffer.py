"""The weight buffer: what of the weight stream is on the chip."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.deep_memory import READ_DELAY, add_memory
from hwquant.gateware.delay import delayed
from hwquant.gateware.fields import Fields
from hwquant.ir import QuantGraph
from hwquant.scheduler.plan import MEMORY_DELAY, RELEASE_DELAY, weight_word_bits
from hwquant.scheduler.program import Schedule


class WeightBuffer(Component):
    """A ring of weight words: written as they arrive, read for as long as their tile is in use.

    Its depth is a power of two, so that addresses wrap by themselves; a tile follows the one before
    it, and a frame the one before.

    Members
    -------
    i : stream of ``stream_bits`` bits of a word, lowest first
    layer, start : as the sequencer says
    filled : all words of the layer's next tile are there
    tile_ends : the sequencer takes the last step of a tile
    address, word : the read; ``word`` follows ``plan.MEMORY_DELAY`` cycles later

    Timing
    ------
    ``filled`` rises one cycle after the last beat of a tile, and is right for the next tile in the
    cycle after ``tile_ends``, and in the second after ``start``. There is room for a tile's words
    ``plan.RELEASE_DELAY`` cycles after ``tile_ends``: then the last of them has been read.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        assert schedule.plan.stream_bits is not None
        self._schedule = schedule
        self._bits = weight_word_bits(schedule.plan, graph)
        self._beat_bits = schedule.plan.stream_bits
        super().__init__(
            {
                "i": In(stream.Signature(self._beat_bits)),
                "layer": In(range(max(2, len(schedule.layers)))),
                "start": In(1),
                "filled": Out(1),
                "tile_ends": In(1),
                "address": In(range(schedule.buffer_words)),
                "word": Out(self._bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self._schedule.buffer_words
        fields = Fields(m, self._schedule.layers, self.layer, self.start)
        tile_words = fields.of("tile_words", lambda p: p.tile_words)
        has_words = fields.of("has_words", lambda p: p.tile_words > 0)

        # beats become words: the earlier ones wait for the last
        beats = self._bits // self._beat_bits
        held = Signal(range(depth + 1))  # words, until they may be overwritten
        word, is_last = self.i.payload, Const(1, 1)
        if beats > 1:
            beat, earlier = Signal(range(beats)), Signal(self._bits - self._beat_bits)
            word, is_last = Cat(earlier, self.i.payload), beat == beats - 1
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += [
                    beat.eq(Mux(is_last, 0, beat + 1)),
                    earlier.eq(word[self._beat_bits :]),
                ]
        write, full = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~is_last | ~full),
            write.eq(self.i.valid & ~full & is_last),
        ]

        # words come and go
        released = delayed(m, self.tile_ends, RELEASE_DELAY - 1, "released")
        with m.If(released & has_words):
            m.d.sync += full.eq(0)
        with m.Elif(write & (held == depth - 1)):
            m.d.sync += full.eq(1)
        ahead = Signal(signed(len(held) + 1))  # words that are there, less those of the next tile
        m.d.sync += [
            held.eq(held + write - Mux(released, tile_words, 0)),
            ahead.eq(
                Mux(fields.loaded, held, ahead)
                + write
                - Mux(fields.loaded | self.tile_ends, tile_words, 0)
            ),
        ]
        m.d.comb += self.filled.eq(ahead >= 0)

        to = Signal.like(self.address)
        with m.If(write):
            m.d.sync += to.eq(to + 1)
        address = delayed(m, self.address, MEMORY_DELAY - READ_DELAY, "address")
        read = add_memory(m, "words", self._bits, depth, address, write=(write, to, word))
        m.d.comb += self.word.eq(read)
        return m
