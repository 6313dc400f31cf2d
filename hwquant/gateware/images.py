"""What never changes: the memories of weights and lane parameters, and the words of padding."""

from collections.abc import Sequence

import numpy as np

from hwquant.gateware.requantize import LaneParameters, bias_with_half
from hwquant.ir import IntArray, MacLayer, QuantGraph
from hwquant.scheduler.plan import tap_columns, weight_digit_bits, weight_word_bits
from hwquant.scheduler.program import LayerProgram, Schedule


def weight_words(graph: QuantGraph, schedule: Schedule, weight_digits: Sequence[int]) -> list[int]:
    """Return the weight memory: one word is ``rows`` x ``cols`` digits.

    ``weight_digits[w]`` is the digit of the code w, 0 that of 0; negative ones count from the end.

    Words stand in the order in which the sequencer walks a layer: row group, digit, kernel row,
    kernel column, channel group.
    """
    words: list[int] = []
    for program in schedule.layers:
        if isinstance(program.layer, MacLayer):
            words += _layer_words(graph, schedule, program, program.layer, np.array(weight_digits))
    return words


def weight_beats(graph: QuantGraph, schedule: Schedule, weight_digits: Sequence[int]) -> list[int]:
    """Return what the weight stream carries in a frame: the words' bits, lowest first."""
    plan = schedule.plan
    assert plan.stream_bits is not None
    starts = range(0, weight_word_bits(plan, graph), plan.stream_bits)
    mask = (1 << plan.stream_bits) - 1
    words = weight_words(graph, schedule, weight_digits)
    return [word >> start & mask for word in words for start in starts]


def _layer_words(
    graph: QuantGraph,
    schedule: Schedule,
    program: LayerProgram,
    layer: MacLayer,
    weight_digits: IntArray,
) -> list[int]:
    rows, cols = schedule.plan.rows, schedule.plan.cols
    walk = program.walk
    digits, channels_out, _, kernel_rows, kernel_cols = layer.weights.shape
    inputs = layer.inputs()
    codes = weight_digits[layer.weights]
    if program.source is schedule.input and schedule.loading.packed:
        # [D, M, C, KH, KW] -> [D, M, lines * KW * C, KH / lines, 1]: codes that are stored together
        lines, columns = schedule.loading.kernel
        pixels = np.arange(lines * columns)[:, np.newaxis] * layer.channels_in
        places = (pixels + inputs[:, np.newaxis]).reshape(channels_out, -1)
        kernel_rows, kernel_cols = kernel_rows // lines, 1
        codes = codes.transpose(0, 1, 3, 4, 2).reshape(digits, channels_out, kernel_rows, -1)
        codes = codes.swapaxes(2, 3)[..., np.newaxis]
    else:
        places = program.source.layout.positions[inputs]
    group, row = np.divmod(program.out_layout.positions[:, np.newaxis], rows)
    word, col = np.divmod(places, cols)
    if program.row.taps > 1:
        # [D, M, 1, KH, KW] -> [D, M, KW, KH, 1]: a tap a column, the last of the kernel first
        codes = codes[..., ::-1].swapaxes(2, 4)
        col = np.array(tap_columns(cols)[:kernel_cols])
        kernel_cols = 1
    word -= walk.first_words()[group]
    shape = (walk.row_groups, kernel_rows, kernel_cols, walk.count, rows, cols, digits)
    ordered = np.zeros(shape, np.int64)
    ordered[group, :, :, word, row, col] = codes.transpose(1, 2, 3, 4, 0)
    ordered = ordered.transpose(0, 6, 1, 2, 3, 4, 5).reshape(-1, rows * cols)
    bits = weight_digit_bits(schedule.plan, graph)
    flat = (ordered[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(flat.reshape(len(ordered), -1).astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def parameter_words(graph: QuantGraph, schedule: Schedule) -> list[int]:
    """Return the parameter memory: one word for ``lanes`` output channels."""
    lanes, layout = schedule.plan.lanes, LaneParameters(graph)
    words: list[int] = []
    for program in schedule.layers:
        layer = program.layer
        if not isinstance(layer, MacLayer):
            continue
        biases = bias_with_half(layer)
        channels = {int(at): m for m, at in enumerate(program.out_layout.positions)}
        for start in range(0, program.chunks * lanes, lanes):
            word = 0
            for lane in range(lanes):
                if (m := channels.get(start + lane)) is None:
                    continue  # a gap: zeros
                fields: dict[int | str, int] = {
                    "multiplier": int(layer.multiplier[m]),
                    "bias": int(biases[m]),
                }
                if layer.residual is not None:
                    fields["residual"] = _residual_factor(graph, layer, m)
                if layer.gate is not None:
                    fields["offset"] = int(layer.gate.offset[m])
                word |= layout.const(fields).as_bits() << (lane * layout.size)
            words.append(word)
    return words


def _residual_factor(graph: QuantGraph, layer: MacLayer, m: int) -> int:
    """Return the residual's multiplier, 0 where its channel does not exist."""
    residual = layer.residual
    assert residual is not None
    channel = m - residual.channel_offset
    exists = 0 <= channel < graph.tensor(residual.source).channels
    return int(residual.multiplier[m]) if exists else 0


def pad_words(graph: QuantGraph, schedule: Schedule, program: LayerProgram) -> list[list[int]]:
    """Return the memory word of real zero, for each digit that a layer reads and word of a pixel.

    Gaps are zeros; in several words they repeat the channel before them, which may make words
    equal and save the choice (their weights are zero).
    """
    tensor = graph.tensor(program.layer.source)
    codes = tensor.pad_code
    positions = program.source.layout.positions
    if program.source is schedule.input and schedule.loading.packed:
        codes = np.tile(codes, schedule.loading.kernel[1])
    cols, bits = schedule.plan.cols, graph.act_bits
    at = np.arange(program.source.groups * cols)
    filled = codes[np.searchsorted(positions, at, side="right") - 1]
    if program.source.groups == 1:
        filled[len(codes) :] = 0
    words: list[list[int]] = []
    for digit in range(tensor.read_parts):
        digits = (filled >> bits * (tensor.parts - 1 - digit)) & (1 << bits) - 1
        by_word = digits.reshape(-1, cols).tolist()
        words.append([sum(d << bits * at for at, d in enumerate(word)) for word in by_word])
    return words
