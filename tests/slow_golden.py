"""The oracle of golden: ``docs/semantics.md`` word for word, int64, no trick, hopelessly slow."""

import numpy as np

from hwquant.ir import (
    INPUT,
    Arithmetic,
    ConcatLayer,
    EmbeddingLayer,
    Guess,
    IntArray,
    LayerNormLayer,
    LevelTables,
    MacLayer,
    MatMulLayer,
    MaxPoolLayer,
    PowerNewton,
    PowerPade,
    PowerTable,
    ProductTable,
    QuantGraph,
    Saturate,
    SoftmaxLayer,
    Staircase,
    Thresholds,
)
from tests import slow_attention


def run(graph: QuantGraph, images: IntArray) -> dict[str, IntArray]:
    """Compute every tensor by name: ``int[N, C, H, W] -> int64[N, M, OH, OW]`` each."""
    pixels = images.astype(np.int64) - graph.input.low
    tensors = {INPUT: np.concatenate([table[pixels] for table in graph.input.tables], axis=1)}
    for layer in graph.layers:
        match layer:
            case MacLayer():
                tensors[layer.name] = _mac(graph, layer, tensors)
            case MaxPoolLayer():
                tensors[layer.name] = _max_pool(layer, tensors[layer.source])
            case ConcatLayer():
                tensors[layer.name] = np.concatenate([tensors[n] for n in layer.sources], axis=1)
            case EmbeddingLayer() | LayerNormLayer() | MatMulLayer() | SoftmaxLayer():
                values = slow_attention.compute(layer, tensors)
                assert abs(values).max() < 2 ** (layer.value_bits - 1)
                flat = [activate(layer.activation, int(v)) for v in values.ravel()]
                tensors[layer.name] = np.array(flat).reshape(values.shape)
    return tensors


def digits(graph: QuantGraph, name: str, codes: IntArray) -> list[IntArray]:
    """Split packed codes, the most significant digit first."""
    bits, parts = graph.act_bits, graph.tensor(name).parts
    return [codes >> bits * (parts - 1 - j) & (1 << bits) - 1 for j in range(parts)]


def levels(graph: QuantGraph, name: str, codes: IntArray) -> IntArray:
    """What the codes of a residual or a gate stand for, section 1 and step 3 of section 3."""
    parts = digits(graph, name, codes)
    if graph.tensor(name).is_detailed:
        return graph.detail_tables[0][parts[0]] + graph.detail_tables[1][parts[1]]
    level = np.zeros_like(codes)
    for j, digit in enumerate(parts):
        level += 2 ** (graph.part_shift * (len(parts) - 1 - j)) * graph.skip_levels[digit]
    return level


def multiply(arithmetic: Arithmetic, w: IntArray, x: IntArray) -> IntArray:
    """P(w, x) of section 3."""
    match arithmetic:
        case ProductTable(products):
            return np.sign(w) * products[abs(w), x]
        case LevelTables(weight_levels, act_levels):
            return np.sign(w) * weight_levels[abs(w)] * act_levels[x]


def activate(activation: Staircase, v: int) -> int:
    """Section 4, for one value."""
    match activation:
        case Thresholds(thresholds, codes):
            return codes[sum(t <= v for t in thresholds)]
        case PowerTable() | PowerPade() | PowerNewton():
            u = min(max(v - activation.low, 0), 2**activation.value_bits - 1)
            window = activation.window
            guessed = min(guess(activation, u), len(window.ranks) - 1)
            rank = window.ranks[guessed] + rise(activation, guessed, u)
            for stage in range(window.stages - 1, -1, -1):
                if window.steps.thresholds[rank + 2**stage - 1] <= u + activation.low:
                    rank += 2**stage
            return window.steps.codes[rank]
        case Saturate(bits):
            return min(max(v, 1 - 2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def guess(record: Guess, u: int) -> int:
    """Section 4, of a unit that guesses."""
    match record:
        case PowerTable(index_bits=bits, shifts=shifts):
            r = next(r for r, shift in enumerate(shifts) if u < 2 ** (bits + shift))
            return r * 2**bits + (u >> shifts[r])
        case PowerPade():
            x, size = u >> record.drop, 2 ** (record.value_bits - record.drop)
            sums: list[int] = []
            for terms in (record.numerator, record.denominator):
                total = 0
                for term in reversed(terms):
                    total = total * x // size + term
                sums.append(total)
            return sums[0] // sums[1]
        case PowerNewton(root=n):
            given = (u >> record.drop | 1) ** record.power
            y = 2 ** -(-given.bit_length() // n)
            for _ in range(record.iterations):
                y = ((n - 1) * y + given // y ** (n - 1)) // n
            return y


def rise(record: Guess, segment: int, u: int) -> int:
    """Section 4, of a table with slopes."""
    if not isinstance(record, PowerTable) or record.slopes is None:
        return 0
    size = 2 ** record.shifts[segment // 2**record.index_bits]
    x = u % size * 2**record.slopes.offset_bits // size
    return record.slopes.values[segment] * x // 2**record.slopes.shift


def _mac(graph: QuantGraph, layer: MacLayer, tensors: dict[str, IntArray]) -> IntArray:
    codes, out, k = tensors[layer.source], layer.output, graph.part_shift
    count, _, height, width = codes.shape
    pad = graph.tensor(layer.source).pad_code
    values = np.zeros((count, out.channels, out.height, out.width), np.int64)
    for oy, ox in np.ndindex(out.height, out.width):
        acc = np.zeros((count, out.channels), np.int64)
        for ky, kx in np.ndindex(*layer.kernel):
            iy = oy * layer.stride[0] - layer.pads[0] + ky
            ix = ox * layer.stride[1] - layer.pads[1] + kx
            inside = 0 <= iy < height and 0 <= ix < width
            x = codes[:, :, iy, ix] if inside else np.broadcast_to(pad, codes.shape[:2])
            w = layer.weights[..., 0, 0] if layer.shared else layer.weights[..., ky, kx]
            xs = digits(graph, layer.source, x)
            if graph.tensor(layer.source).is_detailed:
                xs = xs[:1]
            is_truncated = layer.source == INPUT and layer.groups == 1 and min(len(w), len(xs)) > 1
            for i, j in np.ndindex(len(w), len(xs)):
                place = len(w) - 1 - i + len(xs) - 1 - j - is_truncated
                if place < 0:
                    continue
                weight = 2 ** (k * place)
                for m, n in np.ndindex(w.shape[1:]):
                    group = m // (out.channels // layer.groups)
                    c = group * w.shape[2] + n
                    acc[:, m] += weight * multiply(graph.arithmetic, w[i, m, n], xs[j][:, c])
        assert abs(acc).max() < 2 ** (layer.acc_bits - 1)
        acc = _gated(graph, layer, tensors, acc)
        total = acc * layer.multiplier + _skip(graph, layer, tensors, oy, ox) + layer.bias
        half = 2 ** (layer.shift - 1) if layer.shift else 0
        values[:, :, oy, ox] = (total + half) >> layer.shift
    assert abs(values).max() < 2 ** (layer.value_bits - 1)
    if layer.activation is None:
        return values
    flat = [activate(layer.activation, int(v)) for v in values.ravel()]
    return np.array(flat).reshape(values.shape)


def _gated(
    graph: QuantGraph, layer: MacLayer, tensors: dict[str, IntArray], acc: IntArray
) -> IntArray:
    if layer.gate is None:
        return acc
    gate = levels(graph, layer.gate.source, tensors[layer.gate.source][:, :, 0, 0])
    gated = (acc + layer.gate.offset) * gate
    assert abs(gated).max() < 2 ** (layer.gate.gated_bits - 1)
    assert abs(acc + layer.gate.offset).max() < 2 ** (layer.gate.gated_bits - 1)
    return gated


def _skip(
    graph: QuantGraph, layer: MacLayer, tensors: dict[str, IntArray], oy: int, ox: int
) -> IntArray:
    residual = layer.residual
    skip = np.zeros((len(tensors[INPUT]), layer.output.channels), np.int64)
    if residual is None:
        return skip
    operand = tensors[residual.source][:, :, oy * residual.stride[0], ox * residual.stride[1]]
    level = operand * 2**residual.value_shift
    if not graph.tensor(residual.source).value_bits:
        level = levels(graph, residual.source, operand) * 2**graph.skip_shift
    for m in range(layer.output.channels):
        c = m - residual.channel_offset
        if 0 <= c < operand.shape[1]:
            skip[:, m] = level[:, c] * residual.multiplier[m]
    return skip


def _max_pool(layer: MaxPoolLayer, codes: IntArray) -> IntArray:
    out = layer.output
    pooled = np.zeros((*codes.shape[:2], out.height, out.width), np.int64)
    for oy, ox in np.ndindex(out.height, out.width):
        top = oy * layer.stride[0] - layer.pads[0]
        left = ox * layer.stride[1] - layer.pads[1]
        rows = slice(max(0, top), top + layer.kernel[0])
        columns = slice(max(0, left), left + layer.kernel[1])
        pooled[:, :, oy, ox] = codes[:, :, rows, columns].max(axis=(2, 3))
    return pooled
