"""Streamed weights: the tiles in which a layer's weights come, and the cycles that wait for them.

A tile is the weights of a few row groups. A layer walks its whole image with one tile after the
other, so that every weight is on the chip once a frame. The words of the stream are those of the
ROM, in the same order; a buffer takes the next ones while a tile is in use.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from math import gcd

from hwquant.errors import UnsupportedModel
from hwquant.ir import QuantGraph
from hwquant.scheduler.loading import row_waits
from hwquant.scheduler.plan import (
    FETCH_CYCLES,
    RELEASE_DELAY,
    Plan,
    log2_ceil,
    weight_digit_bits,
    weight_word_bits,
)
from hwquant.scheduler.program import LayerProgram, Loading

LEAST_WORDS = 512  # of the buffer: less fills no block RAM


def tiled(program: LayerProgram, plan: Plan) -> LayerProgram:
    """Make the tiles of a layer its outermost loop.

    A tile is as few row groups as fill whole words of a pixel. If tiles would fill unequally many,
    or if it is the last layer and has several pixels, which leave one by one, or if its source is a
    ring, whose rows come once, a tile is the layer.
    """
    loops = program.loops
    groups, columns, rows = loops.counts[-3:]
    of_tile = _groups_of_tile(program, plan)
    unread = (columns - 1) * loops.act_strides[-2] if program.row.turns else 0  # of the last row
    return replace(
        program,
        tiles=groups // of_tile,
        loops=replace(
            loops,
            counts=(*loops.counts[:-3], of_tile, columns, rows, groups // of_tile),
            act_strides=(*loops.act_strides, loops.act_strides[-3] * of_tile + unread),
            weight_strides=(*loops.weight_strides, loops.weight_strides[-3] * of_tile),
        ),
    )


def _groups_of_tile(program: LayerProgram, plan: Plan) -> int:
    """Return how many steps of the loop of row groups make a tile."""
    groups, columns, rows = program.loops.counts[-3:]
    if program.kind == "maxpool" or (program.output is None and columns * rows > 1):
        return groups
    if program.source.ring:
        return groups
    repeat, fill = program.walk.repeat, max(1, plan.cols // plan.rows)
    of_tile = fill // gcd(fill, repeat)
    words = of_tile * repeat * plan.rows // plan.cols
    is_even = groups % of_tile == 0 and program.out_layout.words % words == 0
    return of_tile if is_even else groups


def buffer_words(programs: Sequence[LayerProgram]) -> int:
    """Return the depth of the buffer, a power of two: room for any tile twice."""
    largest = max(program.tile_words for program in programs)
    return max(LEAST_WORDS, 1 << log2_ceil(2 * largest))


def beats_of_word(graph: QuantGraph, plan: Plan) -> int:
    """Return the beats of the stream that make a weight word.

    Raises
    ------
    UnsupportedModel
        If the bits of a beat do not divide those of a word.
    """
    assert plan.stream_bits is not None
    word, beat = weight_word_bits(plan, graph), plan.stream_bits
    if word % beat:
        raise UnsupportedModel(
            f"weight stream of {beat} bits: must divide a word of {plan.rows} x {plan.cols} "
            f"weights of {weight_digit_bits(plan, graph)} bits, which has {word} bits"
        )
    return word // beat


def with_waits(
    programs: Sequence[LayerProgram], loading: Loading, beats: int
) -> list[LayerProgram]:
    """Add the cycles in which layers wait for weights, of which ``beats`` beats make a word.

    That is of the first frame after reset: the stream never stalls, the buffer is empty at first
    and fills while the frame is loaded. Those for rows of windows are added too, for they follow
    from these.
    """
    found: list[LayerProgram] = []
    arrivals = _Arrivals(-loading.lead_cycles, beats, buffer_words(programs))
    start = loading.cycles
    for program in programs:
        of_tile = program.walk_cycles // program.tiles
        first_sum = program.first_sum_cycles
        last_step, waits, for_rows = start + FETCH_CYCLES - 1, 0, 0
        for _ in range(program.tiles):
            there = arrivals.take(program.tile_words)
            wait = max(0, there + program.loops.steps_per_sum - (last_step + first_sum))
            waits += wait
            if program.source.ring:  # its rows come once, so it is one tile
                for_rows = row_waits(loading, program, last_step + wait + 1)
            last_step += wait + of_tile + for_rows
            arrivals.release(last_step, program.tile_words)
        cycles = program.cycles + waits + for_rows
        found.append(replace(program, weight_waits=waits, row_waits=for_rows, cycles=cycles))
        start += found[-1].cycles
    return found


class _Arrivals:
    """When words are written into the buffer, if a beat is there from cycle ``start`` on.

    The last beat of a word waits for room.
    """

    def __init__(self, start: int, beats: int, depth: int) -> None:
        self._beats = beats
        self._written, self._room = 0, depth
        self._cycle = start - 1  # in which the last word was written
        self._released: deque[tuple[int, int]] = deque()

    def take(self, words: int) -> int:
        """Return the cycle in which the last of the next ``words`` is written."""
        end = self._written + words
        while self._written < end:
            if self._written == self._room:
                cycle, room = self._released.popleft()
                self._cycle = max(self._cycle, cycle + RELEASE_DELAY - self._beats)
                self._room += room
            count = min(end, self._room) - self._written
            self._written += count
            self._cycle += count * self._beats
        return self._cycle

    def release(self, cycle: int, words: int) -> None:
        """Note that the last step of a tile of ``words`` is in ``cycle``."""
        self._released.append((cycle, words))
