"""The program of the accelerator, as records: what ``schedule`` makes and the gateware runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from hwquant.ir import MacLayer, MaxPoolLayer
from hwquant.scheduler.channel_walk import ChannelWalk
from hwquant.scheduler.layout import Layout
from hwquant.scheduler.placement import Placement
from hwquant.scheduler.plan import FETCH_CYCLES, Plan, log2_ceil
from hwquant.scheduler.row_walk import RowWalk

ACT_DIGIT, WEIGHT_DIGIT = 3, 4  # loops that count digits
SUM_LEVELS = 5  # loops of the sequencer within a sum, innermost first: see Loops
TAP_LEVELS = (0, 2, 3, -3)  # loops within a tile that count the words of a column


@dataclass(frozen=True)
class Loops:
    """A nest of counters with one address stride a level, innermost first.

    The levels of a MAC layer: channel group, kernel column, kernel row, activation digit, weight
    digit | row group, output column, output row; the bar ends a sum. Max pooling uses digit, kernel
    column, kernel row, -, - | channel group, output column, output row. Networks in which several
    row groups of a layer read the same words have one level more, first behind the bar: those row
    groups, then as *row group* the next words. Column by column (``RowWalk``) there is one kernel
    column, and *output column* and *output row* count what is read. Networks with streamed weights
    have the tiles of a layer as the last level, see ``weight_stream``.

    A sum that ``is_truncated`` ends before the last of two activation digits meets the last weight
    digit (``ir.is_truncated``).
    """

    counts: tuple[int, ...]
    act_strides: tuple[int, ...]
    weight_strides: tuple[int, ...]
    is_truncated: bool = False

    def deltas(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """Return the address step when a level ticks and all inner levels wrap."""
        steps: list[int] = []
        span = 0
        for level, (count, stride) in enumerate(zip(self.counts, strides, strict=True)):
            if level == SUM_LEVELS and self.is_truncated:
                span -= strides[ACT_DIGIT]
            steps.append(stride - span)
            span += (count - 1) * stride
        return tuple(steps)

    def leaves_out(self, index: tuple[int, ...]) -> bool:
        """Whether the walk skips a step: of a truncated sum those of two last digits."""
        last = self.counts[ACT_DIGIT] - 1, self.counts[WEIGHT_DIGIT] - 1
        return self.is_truncated and (index[ACT_DIGIT], index[WEIGHT_DIGIT]) == last

    def ends_sum(self, index: tuple[int, ...]) -> bool:
        """Whether a step is the last of a sum."""
        last = [count - 1 for count in self.counts[:SUM_LEVELS]]
        last[ACT_DIGIT] -= self.is_truncated
        return [*index[:SUM_LEVELS]] == last

    @property
    def steps_per_sum(self) -> int:
        """Beats of the array for one group of outputs."""
        of_pass = prod(self.counts[:ACT_DIGIT])
        passes = prod(self.counts[ACT_DIGIT:SUM_LEVELS])
        return of_pass * (passes - self.is_truncated)

    @property
    def sums(self) -> int:
        """Groups of outputs in the layer."""
        return prod(self.counts[SUM_LEVELS:])

    def without(self, level: int) -> "Loops":
        """Drop a level that counts to one."""
        kept = (self.counts, self.act_strides, self.weight_strides)
        fewer = (values[:level] + values[level + 1 :] for values in kept)
        return Loops(*fewer, is_truncated=self.is_truncated)


@dataclass(frozen=True)
class ResidualWalk:
    """Addresses of a residual: base, step to the next column, step to the next row.

    Output place ``p`` takes the operand's place ``p - chunk_offset * lanes``. A gate has one pixel.
    """

    bank: int
    base: int
    plane: int
    digits: int
    column_step: int
    row_step: int
    chunk_offset: int


@dataclass(frozen=True)
class LayerProgram:
    """One layer as the sequencer runs it; addresses are already those of the memories.

    ``walk`` and ``out_layout`` are for the memories' images; the lanes drain ``chunks`` a pixel.
    ``stride`` and ``kernel`` are those of the walk, as ``row`` has them. The lanes drain a sum in
    at most ``pace`` cycles, a pixel's last, which may have fewer channels, in ``tail``.
    ``weight_waits`` are the cycles in which the layer waits for streamed weights, ``row_waits``
    those for rows of the input.
    """

    name: str
    kind: Literal["mac", "maxpool"]
    layer: MacLayer | MaxPoolLayer
    source: Placement
    output: Placement | None
    out_layout: Layout
    walk: ChannelWalk
    row: RowWalk
    chunks: int
    loops: Loops
    act_base: int
    weight_base: int
    origin: tuple[int, int]
    stride: tuple[int, int]
    kernel: tuple[int, int]
    param_base: int
    residual: ResidualWalk | None
    turn_cycles: int
    extra_turn: int
    pace: int
    tail: int
    macs: int
    cycles: int
    tiles: int = 1
    weight_waits: int = 0
    row_waits: int = 0

    @property
    def last_pace(self) -> int:
        """Least cycles between the ends of a pixel's last sum and the next; of others ``pace``.

        The drain of the first, or the beats of the second if those are more. With tiles ``pace``,
        for only the last of them can have fewer channels.
        """
        if self.tiles > 1:
            return self.pace
        return max(self.tail, min(self.pace, self.loops.steps_per_sum))

    @property
    def walk_cycles(self) -> int:
        """Cycles in which the sequencer walks, if weights and input are there."""
        return self._cycles(self.pace, self.last_pace)

    @property
    def waits(self) -> int:
        """Cycles in which the sequencer waits for weights or input."""
        return self.weight_waits + self.row_waits

    @property
    def steps(self) -> int:
        """Cycles in which the sequencer walks or waits."""
        return self.walk_cycles + self.waits

    @property
    def flush(self) -> int:
        """Cycles from its last step until the next layer starts, or to the last output beat."""
        return self.cycles - FETCH_CYCLES - self.steps

    @property
    def reads(self) -> int:
        """Cycles in which it reads: those of ``steps`` in which it waits for nothing."""
        return self._cycles(0, 0)

    @property
    def first_sum_cycles(self) -> int:
        """Cycles of a tile's first sum and of the columns before."""
        return self.sum_cycles(self.row.lead, self.last_pace)

    @property
    def sums_of_pixel(self) -> int:
        """Sums of a pixel that follow one another: those of a tile."""
        columns, rows = self.row.extent(self.layer.output.width, self.layer.output.height)
        return self.loops.sums // (columns * rows * self.tiles)

    def sum_cycles(self, fills: int, pace: int) -> int:
        """Cycles of a sum and of ``fills`` columns without one before, their words read once."""
        beats, digits = self.loops.steps_per_sum, self.loops.counts[SUM_LEVELS - 1]
        return max(beats + fills * self.sums_of_pixel * (beats // digits), pace)

    def _cycles(self, pace: int, last_pace: int) -> int:
        others = (self.sums_of_pixel - 1) * self.sum_cycles(0, pace)
        fills = self.row.fills(self.layer.output.width, self.layer.output.height)
        of_tile = sum(n * (self.sum_cycles(fill, last_pace) + others) for fill, n in fills)
        return self.tiles * of_tile

    @property
    def weight_words(self) -> int:
        """Words of the weight memory."""
        if self.kind == "maxpool":
            return 0
        spans = zip(self.loops.counts, self.loops.weight_strides, strict=True)
        return 1 + sum((count - 1) * stride for count, stride in spans)

    @property
    def tile_words(self) -> int:
        """Weight words of a tile."""
        return self.weight_words // self.tiles


def drain_lead(programs: Sequence[LayerProgram]) -> int:
    """Return how many cycles after a sum of one step would come the drain turns to a layer.

    No layer's first sum comes sooner; more than what drains a last sum is of no use.
    """
    macs = [program for program in programs if program.kind == "mac"]
    return min(min(p.first_sum_cycles for p in macs), max(p.tail for p in macs))


@dataclass(frozen=True)
class Loading:
    """How a frame arrives.

    Where the input is packed (``Packing``), the frame has ``lines`` of ``positions`` virtual
    pixels, the first ``lead`` of both padding; ``kernel`` and ``stride`` are those of the codes
    that are stored together. Of windows at most ``ring_rows`` rows are there; 0: of anything else
    all are. A beat takes ``cycles_per_beat``, of windows one at which a window ends.

    ``cycles`` run from the first beat until the first layer may start: with all of the frame in
    memory or, of windows, a row.
    """

    channels_per_beat: int
    beats: int
    cycles_per_beat: int
    cycles: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    lead: tuple[int, int] = (0, 0)
    lines: int = 0
    positions: int = 0
    ring_rows: int = 0

    @property
    def packed(self) -> bool:
        """Whether codes of several pixels are stored together."""
        return self.positions > 0

    @property
    def lead_cycles(self) -> int:
        """Cycles from reset to the first beat."""
        lines, columns = self.lead
        per_position = 1 if self.ring_rows else self.cycles_per_beat
        return (lines * self.positions + columns) * per_position

    def row_line(self, row: int) -> int:
        """Return the line at which the windows of a row end."""
        return self.kernel[0] - 1 + row * self.stride[0]


@dataclass(frozen=True)
class Schedule:
    """Everything the gateware needs beside the numbers of ``QuantGraph``.

    ``layers`` are those that run: a concat does not. The drain turns to a layer ``drain_start``
    cycles after its start. Of streamed weights the chip holds at most
    ``buffer_words``.
    """

    plan: Plan
    loading: Loading
    input: Placement
    layers: tuple[LayerProgram, ...]
    bank_words: tuple[int, int]
    drain_start: int
    cycles: int = field(default=0)
    buffer_words: int = 0

    @property
    def weight_words(self) -> int:
        """Weight words of all layers."""
        return sum(program.weight_words for program in self.layers)

    @property
    def weight_depth(self) -> int:
        """Depth of the weight memory: of the ROM, or of the buffer behind the stream."""
        return self.buffer_words if self.plan.is_streamed else self.weight_words

    @property
    def taps(self) -> int:
        """Taps that a beat of a depthwise layer takes at most."""
        return max(program.row.taps for program in self.layers)

    @property
    def tap_bits(self) -> tuple[int, ...]:
        """Bits of the counters at ``TAP_LEVELS`` in layers of several taps a beat."""
        image = self.image_levels
        loops = [program.loops for program in self.layers if program.row.taps > 1]
        return tuple(
            log2_ceil(max((nest.counts[image[at]] for nest in loops), default=1))
            for at in TAP_LEVELS
        )

    @property
    def image_levels(self) -> range:
        """Loops that walk an image: all but, of streamed weights, the last, which counts tiles."""
        return range(len(self.layers[0].loops.counts) - self.plan.is_streamed)
