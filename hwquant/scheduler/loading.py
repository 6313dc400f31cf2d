"""How a frame arrives: the beats, the words they make, and the rows that the first layer waits for.

Windows of the input are stored row by row in a ring, while the first layer walks the rows before:
it waits for a row that is not there yet, and the loader for room in the ring.
"""

from dataclasses import replace

from hwquant.errors import UnsupportedModel
from hwquant.ir import INPUT, QuantGraph
from hwquant.scheduler import plan as timing
from hwquant.scheduler.placement import Packing, Placement
from hwquant.scheduler.plan import Plan, log2_ceil
from hwquant.scheduler.program import LayerProgram, Loading


def frame_loading(
    graph: QuantGraph, plan: Plan, place: Placement, packing: Packing | None
) -> Loading:
    """Return how a frame arrives that is stored at ``place``, as ``packing`` says.

    Raises
    ------
    UnsupportedModel
        If the digits of a pixel, as channels, fill several words.
    """
    tensor, pixel = graph.input.tensor, graph.input.shape[0]
    channels = min(pixel, plan.cols)
    if tensor.channels > max(pixel, plan.cols):
        raise UnsupportedModel(
            f"{INPUT}: a pixel has {tensor.channels} digits; with cols={plan.cols} they fill "
            f"several words; needs cols={1 << log2_ceil(tensor.channels)}"
        )
    turns = 1 if place.split else place.digits
    if packing is None:
        beats = tensor.height * tensor.width * -(-pixel // plan.cols)
        return Loading(channels, beats, turns, beats * turns + timing.LOAD_DELAY)
    layer, beats = packing.layer, tensor.height * tensor.width
    positions = _reach(packing, 1, tensor.width)
    if packing.windows:
        stride, lead = layer.stride, (layer.pads[0], layer.pads[1])
        lines, ring_rows = _reach(packing, 0, tensor.height), place.ring // place.row
        turns = place.pitch
        # until the first row is there and then seen; without more rows, until all lines have come
        before = packing.kernel[0] - 1 if place.height > 1 else lines - 1
        cycles = (before - lead[0]) * positions - lead[1] + _row_cycles(positions, place)
        cycles += timing.WINDOW_DELAY + 1
    else:
        stride, lead = (1, layer.stride[1]), (0, layer.pads[1])
        lines, ring_rows = tensor.height, 0
        cycles = (lines * positions - lead[1]) * turns + timing.LOAD_DELAY
    return Loading(
        channels, beats, turns, cycles, packing.kernel, stride, lead, lines, positions, ring_rows
    )


def with_row_waits(first: LayerProgram, loading: Loading) -> LayerProgram:
    """Add the cycles in which the first layer waits for rows of windows."""
    waits = row_waits(loading, first, loading.cycles + timing.FETCH_CYCLES)
    return replace(first, row_waits=waits, cycles=first.cycles + waits)


def row_waits(loading: Loading, first: LayerProgram, begin: int) -> int:
    """Return the cycles in which the first layer, whose first step is in ``begin``, waits for rows.

    The input stream never stalls.
    """
    place, row_steps = first.source, first.walk_cycles // first.layer.output.height
    ends, waits = [begin + row_steps - 1], 0
    line_ends = loading.cycles - timing.WINDOW_DELAY - 1  # the cycle after
    for row in range(1, place.height):
        line = line_ends + (loading.stride[0] - 1) * loading.positions
        if row >= loading.ring_rows:
            line = max(line, ends[row - loading.ring_rows] + 1)
        line_ends = line + _row_cycles(loading.positions, place)
        if row == place.height - 1:
            line_ends += (loading.lines - 1 - loading.row_line(row)) * loading.positions
        wait = max(0, line_ends + timing.WINDOW_DELAY - (ends[-1] + 1))
        waits += wait
        ends.append(ends[-1] + wait + row_steps)
    return waits


def _reach(packing: Packing, axis: int, pixels: int) -> int:
    """Return the pixels along an axis, with the padding before them and what windows need after."""
    layer, outputs = packing.layer, (packing.layer.output.height, packing.layer.output.width)
    windows = (outputs[axis] - 1) * layer.stride[axis] + layer.kernel[axis]
    return max(layer.pads[axis] + pixels, windows)


def _row_cycles(positions: int, place: Placement) -> int:
    """Return the cycles of a line at which windows end: each takes one for each of its words."""
    return positions + place.width * (place.pitch - 1)
