"""Which words of channels a group of rows needs: all of them, or those of its own groups."""

from dataclasses import dataclass

import numpy as np

from hwquant.ir import IntArray, MacLayer
from hwquant.scheduler.layout import Layout


@dataclass(frozen=True)
class ChannelWalk:
    """Row group g reads ``count`` words of a pixel from word ``step * (g // repeat)`` on.

    ``row_groups`` is a multiple of ``repeat``; ``channels`` places of the output leave the array,
    the last of them in the last row group.
    """

    count: int
    repeat: int
    step: int
    row_groups: int
    channels: int

    def first_words(self) -> IntArray:
        """Return the first word of each row group."""
        return self.step * (np.arange(self.row_groups) // self.repeat)


def dense_walk(words: int, extent: int, rows: int) -> ChannelWalk:
    """Return the walk in which every row group reads all words."""
    return ChannelWalk(words, 1, 0, -(-extent // rows), extent)


def channel_walk(
    layer: MacLayer, source: Layout, output: Layout, rows: int, *, to_memory: bool
) -> ChannelWalk:
    """Return the shortest walk that gives each row group the words it needs.

    Words are read ``repeat`` times before the walk moves on by ``step``: a depthwise layer reads
    one word a row group, or, of more rows than columns, as many as the rows span. Where the output
    goes ``to_memory`` the row groups may be made a multiple of ``repeat``, so long as no row group
    lies beyond the output's words; its rows there are zeros.
    """
    best = dense_walk(source.words, output.extent, rows)
    if layer.groups == 1:
        return best
    first, last = _needs(layer, source, output, rows)
    moves = np.flatnonzero(np.diff(first)) + 1
    for repeat in {1, *np.diff(moves, prepend=0).tolist()} if len(moves) else ():
        steps = np.arange(len(first)) // repeat
        step = int((first[repeat:] // steps[repeat:]).min())
        count = int((last - step * steps).max()) + 1
        row_groups = -(-len(first) // repeat) * repeat
        channels = output.extent
        if row_groups > len(first):
            channels = (row_groups - 1) * rows + 1
            if not to_memory or channels > output.words * output.cols:
                continue
        if count < best.count:
            best = ChannelWalk(count, repeat, step, row_groups, channels)
    return best


def _needs(layer: MacLayer, source: Layout, output: Layout, rows: int) -> tuple[IntArray, IntArray]:
    """Return the first and the last word that each row group reads."""
    words = source.positions[layer.inputs()] // source.cols
    group = output.positions // rows
    count = int(group[-1]) + 1
    first, last = np.full(count, source.words), np.full(count, -1)
    np.minimum.at(first, group, words.min(axis=1))
    np.maximum.at(last, group, words.max(axis=1))
    empty = last < 0  # rows of a gap need nothing: their neighbours' words do
    first[empty] = np.maximum.accumulate(np.where(empty, 0, first))[empty]
    last[empty] = first[empty]
    return first, last
