"""The loader: the sensor's integers become words of codes in the activation memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.lookup import lookup
from hwquant.ir import QuantGraph
from hwquant.scheduler.program import Schedule


class Loader(Component):
    """Takes a frame in, one beat a pixel (or a group of ``cols`` channels), while ``loading``.

    Where the digits of a pixel are channels, it makes several codes of every integer.

    Pixels of a packed input pass a window of the last ``KW``, in which a padded pixel is the code
    of real zero; it stores a word for each output column of the first layer.

    Members
    -------
    i : stream of ``channels_per_beat`` integers
    loading : the sequencer waits for a frame
    loaded : the frame's last word is being written
    write, address, word_0, word_1 : words of the two digits; a split input uses both at once, else
        ``word_0`` is written at ``address`` for every digit in turn
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        self._graph = graph
        self._schedule = schedule
        depth = max(2, max(schedule.bank_words))
        word_bits = schedule.plan.cols * graph.act_bits
        super().__init__(
            {
                "i": In(beats(graph, schedule)),
                "loading": In(1),
                "loaded": Out(1),
                "write": Out(1),
                "address": Out(range(depth)),
                "word_0": Out(word_bits),
                "word_1": Out(word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        graph, loading, place = self._graph, self._schedule.loading, self._schedule.input
        digits, channels = graph.input.tensor.parts, loading.channels_per_beat
        tables = graph.input.tables
        split = [(d, c) for d in range(len(tables)) for c in range(channels)]
        turns = loading.cycles_per_beat

        # where the frame stands
        position = Signal(range(max(loading.positions, loading.beats, 2)))
        line = Signal(range(max(2, place.height)))
        turn = Signal(range(max(2, turns)))
        complete = Signal()
        take = Signal()
        real = Signal()
        line_ends, frame_ends = Signal(), Signal()
        if loading.packed:
            # bounds that every position keeps would be constant comparisons, of which linters warn
            lead = loading.lead[1]
            end = lead + graph.input.tensor.width
            has_begun = position >= lead if lead else Const(1)
            m.d.comb += [
                real.eq(has_begun & (position < end if end < loading.positions else 1)),
                line_ends.eq(position == loading.positions - 1),
                frame_ends.eq(line_ends & (line == place.height - 1)),
            ]
        else:
            m.d.comb += [
                real.eq(1),
                line_ends.eq(0),
                frame_ends.eq(position == loading.beats - 1),
            ]
        open_ = self.loading & ~complete & (turn == 0)
        m.d.comb += [
            self.i.ready.eq(open_ & real),
            take.eq(open_ & (self.i.valid | ~real)),
        ]
        with m.If(turn != 0):
            m.d.sync += turn.eq(turn - 1)
        with m.If(take):
            m.d.sync += [position.eq(position + 1), turn.eq(turns - 1)]
            with m.If(line_ends):
                m.d.sync += [position.eq(0), line.eq(line + 1)]
            with m.If(frame_ends):
                m.d.sync += [position.eq(0), line.eq(0), complete.eq(1)]
        with m.If(~self.loading):
            m.d.sync += complete.eq(0)

        # a cycle later: integers have become codes
        taken, was_real, was_last, at = Signal(), Signal(), Signal(), Signal.like(position)
        codes = Signal(data.ArrayLayout(unsigned(digits * graph.act_bits), len(split)))
        m.d.sync += [
            taken.eq(take),
            was_real.eq(real),
            was_last.eq(frame_ends),
            at.eq(position),
        ]
        with m.If(take):
            m.d.sync += [
                codes[at].eq(code(graph, d, self.i.payload[c], at, real))
                for at, (d, c) in enumerate(split)
            ]

        # another cycle later: a word stands complete
        stored, last = Signal(), Signal()
        columns = loading.kernel[1]
        window = Signal(data.ArrayLayout(codes.shape(), columns))
        with m.If(taken):
            m.d.sync += window[-1].eq(codes)
            for older in range(columns - 1):
                m.d.sync += window[older].eq(window[older + 1])
        m.d.sync += [stored.eq(taken & self._keeps(at)), last.eq(taken & was_last)]

        flat = [window[k][c] for k in range(columns) for c in range(len(split))]
        bits = graph.act_bits
        words = [
            Cat(*(code[bits * (digits - 1 - d) : bits * (digits - d)] for code in flat))
            for d in range(digits)
        ]
        address = Signal(self.address.shape(), init=place.base)
        m.d.comb += [self.write.eq(stored), self.address.eq(address), self.word_0.eq(words[0])]
        if turns == 1:
            m.d.comb += [self.word_1.eq(words[-1]), self.loaded.eq(last)]
            advance: Value = stored
        else:
            second, second_last = Signal(), Signal()
            m.d.sync += [second.eq(stored), second_last.eq(last)]
            m.d.comb += self.loaded.eq(second_last)
            with m.If(second):
                m.d.comb += [
                    self.write.eq(1),
                    self.word_0.eq(words[1]),
                    self.address.eq(address + place.plane),
                ]
            advance = second
        with m.If(advance):
            m.d.sync += address.eq(address + 1)
        with m.If(self.loaded):
            m.d.sync += address.eq(place.base)
        return m

    def _keeps(self, at: Signal) -> Value:
        """Whether the window ending at position ``at`` belongs to an output column."""
        loading, place = self._schedule.loading, self._schedule.input
        if not loading.packed:
            return Const(1, 1)
        ends = {loading.kernel[1] - 1 + x * loading.stride[1] for x in range(place.width)}
        return lookup([int(p in ends) for p in range(loading.positions)], at, 1)


def beats(graph: QuantGraph, schedule: Schedule) -> stream.Signature:
    """Return the stream of the sensor's integers."""
    shape = signed(graph.input.bits) if graph.input.low < 0 else unsigned(graph.input.bits)
    return stream.Signature(data.ArrayLayout(shape, schedule.loading.channels_per_beat))


def code(graph: QuantGraph, digit: int, value: Value, channel: int, real: Value) -> Value:
    """Return the code of ``value`` in table ``digit``; where it is not ``real`` that of zero.

    ``channel`` is that of the input tensor.
    """
    width = graph.input.tensor.parts * graph.act_bits
    table = [int(entry) for entry in graph.input.tables[digit]]
    pad_code = int(graph.input.tensor.pad_code[channel])
    if graph.input.low < 0:  # the table starts at the most negative integer
        half = len(table) // 2
        table = table[half:] + table[:half]
    if table == list(range(len(table))):
        return Mux(real, value, pad_code)
    return Mux(real, lookup(table, Cat(value), width), pad_code)
