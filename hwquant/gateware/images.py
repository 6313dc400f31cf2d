"""The images of the read-only memories: weights and lane parameters."""

import numpy as np

from hwquant.gateware.requantize import LaneParameters, bias_with_half
from hwquant.ir import IntArray, MacLayer, QuantGraph
from hwquant.schedule import LayerProgram, Schedule


def weight_words(graph: QuantGraph, schedule: Schedule) -> list[int]:
    """Return the weight memory: one word is ``rows`` x ``cols`` digits, sign above magnitude.

    Words stand in the order in which the sequencer walks a layer: row group, digit, kernel row,
    kernel column, channel group.
    """
    words: list[int] = []
    for program in schedule.layers:
        if isinstance(program.layer, MacLayer):
            words += _layer_words(graph, schedule, program, program.layer)
    return words


def _layer_words(
    graph: QuantGraph, schedule: Schedule, program: LayerProgram, layer: MacLayer
) -> list[int]:
    rows, cols = schedule.plan.rows, schedule.plan.cols
    weights: IntArray = layer.weights
    if program.source is schedule.input and schedule.loading.packed:
        # [D, M, C, KH, KW] -> [D, M, KW * C, KH, 1]: the word that the loader stored
        digits, channels_out, channels, kernel_rows, kernel_cols = weights.shape
        weights = weights.transpose(0, 1, 4, 2, 3)
        weights = weights.reshape(digits, channels_out, kernel_cols * channels, kernel_rows, 1)
    digits, channels_out, channels, kernel_rows, kernel_cols = weights.shape
    row_groups, col_groups = -(-channels_out // rows), -(-channels // cols)
    padded = np.zeros(
        (digits, row_groups * rows, col_groups * cols, kernel_rows, kernel_cols), np.int64
    )
    padded[:, :channels_out, :channels] = weights
    codes = np.abs(padded) | (padded < 0) << (graph.weight_bits - 1)
    codes = codes.reshape(digits, row_groups, rows, col_groups, cols, kernel_rows, kernel_cols)
    ordered = codes.transpose(1, 0, 5, 6, 3, 2, 4).reshape(-1, rows * cols)
    bits = graph.weight_bits
    flat = (ordered[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(flat.reshape(len(ordered), -1).astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def parameter_words(graph: QuantGraph, schedule: Schedule) -> list[int]:
    """Return the parameter memory: one word for ``lanes`` output channels."""
    lanes, layout = schedule.plan.lanes, LaneParameters(graph)
    words: list[int] = []
    for layer in graph.layers:
        if not isinstance(layer, MacLayer):
            continue
        biases = bias_with_half(layer)
        for start in range(0, layer.output.channels, lanes):
            word = 0
            for lane, m in enumerate(range(start, min(start + lanes, layer.output.channels))):
                fields: dict[int | str, int] = {
                    "multiplier": int(layer.multiplier[m]),
                    "bias": int(biases[m]),
                }
                if layer.residual is not None:
                    fields["residual"] = _residual_factor(graph, layer, m)
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
