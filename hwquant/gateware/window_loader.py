"""The loader of windows: the sensor's integers become the codes that each output place reads."""

from collections.abc import Iterable

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.deep_memory import add_memory
from hwquant.gateware.delay import delayed
from hwquant.gateware.loader import beats, code
from hwquant.gateware.lookup import lookup
from hwquant.ir import QuantGraph
from hwquant.scheduler.plan import LINE_DELAY, WINDOW_DELAY
from hwquant.scheduler.program import Schedule


class WindowLoader(Component):
    """Takes a frame in, one beat a pixel, while ``loading``, and stores windows row by row.

    The lines above a pixel come out of a buffer; with the columns before they are the window that
    ends there. What is padding is the code of real zero. A window takes a cycle a word, in which no
    beat is taken; a row waits until the ring has room for it.

    Members
    -------
    i : stream of the integers of a pixel
    loading : a frame may come, from before its first beat until after the last row
    loaded : there is a row that has not been read
    row_ends : the sequencer reads the last word of a row
    write, address, word : the words of a window, digit by digit
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        self._graph = graph
        self._schedule = schedule
        super().__init__(
            {
                "i": In(beats(graph, schedule)),
                "loading": In(1),
                "loaded": Out(1),
                "row_ends": In(1),
                "write": Out(1),
                "address": Out(range(schedule.input.ring)),
                "word": Out(schedule.plan.cols * graph.act_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        graph, loading, place = self._graph, self._schedule.loading, self._schedule.input
        tensor, turns = graph.input.tensor, loading.cycles_per_beat

        # where the frame stands, padding included
        line = Signal(range(max(2, loading.lines)))
        position = Signal(range(loading.positions))
        turn = Signal(range(max(2, turns)))
        first_line, first_position = loading.lead
        ends = [loading.row_line(row) for row in range(place.height)]
        columns = [
            loading.kernel[1] - 1 + loading.stride[1] * column for column in range(place.width)
        ]
        in_lines = _is_among(range(first_line, first_line + tensor.height), line)
        in_columns = _is_among(range(first_position, first_position + tensor.width), position)
        real, row_begins, line_ends, frame_ends = Signal(), Signal(), Signal(), Signal()
        keeps_line, keeps = Signal(), Signal()
        m.d.comb += [
            real.eq(in_lines & in_columns),
            keeps_line.eq(_is_among(ends, line)),
            keeps.eq(keeps_line & _is_among(columns, position)),
            row_begins.eq(keeps_line & (position == 0)),
            line_ends.eq(position == loading.positions - 1),
            frame_ends.eq(line_ends & (line == loading.lines - 1)),
        ]

        # a pixel is taken, and then the words of the window that ends there are stored
        complete, take, moves, busy, may_take = Signal(), Signal(), Signal(), Signal(), Signal()
        held = Signal(range(loading.ring_rows + 1))  # rows that are in the ring, or begun
        m.d.comb += [
            may_take.eq(
                self.loading & ~complete & (turn == 0) & ~(row_begins & (held == loading.ring_rows))
            ),
            self.i.ready.eq(may_take & real),
            take.eq(may_take & (self.i.valid | ~real)),
            busy.eq(take | (turn != 0)),
            moves.eq(busy & (~keeps | (turn == turns - 1))),
        ]
        with m.If(busy):
            m.d.sync += turn.eq(Mux(moves, 0, turn + 1))
        with m.If(moves):
            m.d.sync += position.eq(Mux(line_ends, 0, position + 1))
            with m.If(line_ends):
                m.d.sync += line.eq(Mux(frame_ends, 0, line + 1))
            with m.If(frame_ends):
                m.d.sync += complete.eq(1)
        with m.If(~self.loading):
            m.d.sync += complete.eq(0)

        # the last row counts once all pixels have come: then the memory is free for others
        row_there = Signal()
        rows = Signal.like(held)  # that are whole
        rows_then = Signal.like(held)
        is_there = delayed(m, row_there, WINDOW_DELAY, "row_there")
        m.d.comb += [
            row_there.eq(moves & line_ends & _is_among([*ends[:-1], loading.lines - 1], line)),
            rows_then.eq(rows + is_there - self.row_ends),
        ]
        m.d.sync += [
            held.eq(held + (take & row_begins) - self.row_ends),
            rows.eq(rows_then),
            self.loaded.eq(rows_then != 0),
        ]

        # words, from windows
        words = self._windows(m, take, position, real)
        stores, at = (
            delayed(m, value, WINDOW_DELAY, name)
            for value, name in ((busy & keeps, "stores"), (turn, "turn"))
        )
        with m.Switch(at):
            for word_at, word in enumerate(words[:-1]):
                with m.Case(word_at):
                    m.d.comb += self.word.eq(word)
            with m.Default():
                m.d.comb += self.word.eq(words[-1])
        address = Signal.like(self.address)
        m.d.comb += [self.write.eq(stores), self.address.eq(address)]
        m.d.sync += address.eq(Mux(self.loading, address + stores, 0))
        return m

    def _windows(self, m: Module, take: Signal, position: Signal, real: Signal) -> list[Value]:
        """Return the words of the window that ended ``WINDOW_DELAY`` cycles ago."""
        graph, loading = self._graph, self._schedule.loading
        digits, bits = graph.input.tensor.parts, graph.act_bits
        of_pixel = [
            (digit, channel)
            for digit in range(len(graph.input.tables))
            for channel in range(loading.channels_per_beat)
        ]
        pixel = Signal(len(of_pixel) * digits * bits)
        m.d.sync += pixel.eq(
            Cat(
                code(graph, digit, self.i.payload[channel], at, real)[: digits * bits]
                for at, (digit, channel) in enumerate(of_pixel)
            )
        )
        lines, columns = loading.kernel
        column: Value = delayed(m, pixel, LINE_DELAY - 1, "pixel")
        enters = delayed(m, take, LINE_DELAY, "enters")
        if lines > 1:
            column_bits = (lines - 1) * len(pixel)
            to, into = delayed(m, position, LINE_DELAY, "column"), Signal(column_bits)
            write = enters, to, into
            above = add_memory(m, "lines", column_bits, loading.positions, position, write=write)
            column = Cat(above, column)
            m.d.comb += into.eq(column[len(pixel) :])
        codes = data.ArrayLayout(unsigned(digits * bits), len(of_pixel))
        window = Signal(data.ArrayLayout(data.ArrayLayout(codes, lines), columns))
        with m.If(enters):
            m.d.sync += window.eq(Cat(window.as_value()[len(column) :], column))
        flat = [
            window[x][y][at]
            for y in range(lines)
            for x in range(columns)
            for at in range(len(of_pixel))
        ]
        cols = self._schedule.plan.cols
        return [
            Cat(of[bits * (digits - 1 - digit) :][:bits] for of in flat[start : start + cols])
            for digit in range(digits)
            for start in range(0, len(flat), cols)
        ]


def _is_among(places: Iterable[int], index: Signal) -> Value:
    """Whether a counter is at one of some places."""
    among = set(places)
    return lookup([int(at in among) for at in range(max(among) + 1)], index, 1)
