"""A MAC layer as golden computes it.

Products come from a table, so a convolution is no product of matrices of codes. It is one over
*planes*: a plane is the product of one weight magnitude with every code of a tensor, and a weight
adds or subtracts one channel of one plane. Over planes the weights are sparse, and `scipy.sparse`
applies them in integers, eight at a time where 16 bits hold the sums.

Tensors are ``[C, H, W, N]``, N images side by side. A channel of a plane is a *line* of cells; what
the windows read at one kernel position is the same line, shifted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, assert_never

import numpy as np
from scipy.sparse import csr_array  # pyright: ignore[reportMissingTypeStubs]

from hwquant.errors import BadInput
from hwquant.golden.staircase import Integers, Stairs, staircase_of
from hwquant.ir import (
    Arithmetic,
    IntArray,
    LevelTables,
    MacLayer,
    ProductTable,
    QuantGraph,
)

_Tap = tuple[Any, int, list[Any]]  # csr_array of weights, shift, windows that read outside

PAIR_BITS = 8  # of two codes looked up as one; a table for more falls out of the cache
MAX_SUM = (1 << 62) - 1  # of a value before its shift


@dataclass(frozen=True)
class _Axis:
    """One axis of an image, dealt out to ``step`` phases: cell q of phase p is pixel q * step + p.

    With the stride as step, what all windows read at one kernel position is a run of cells.
    """

    size: int
    step: int
    cells: int

    def reads(self, first: int) -> tuple[int, int, list[slice]]:
        """Return phase and shift of pixels ``first + o * step``, and the o that the image lacks."""
        phase, shift = first % self.step, first // self.step
        start, stop = -shift, -((phase - self.size) // self.step) - shift
        outside = slice(0, max(0, start)), slice(max(0, stop), self.cells)
        return phase, shift, [o for o in outside if o.start < o.stop]


@dataclass(frozen=True, eq=False)
class Mac:
    """A `MacLayer`, prepared once.

    ``planes`` are of packed codes, or of two neighbours at once (of type V). If a layer ``pools``,
    its phases are the pixels of a window of equal weights, and are summed first. ``places`` is what
    weight digits weigh, ``padding`` what pad codes add; both have a type that holds accumulators.
    ``unread_bits`` are the low bits of a code, which the layer does not read. ``skip_levels`` are
    those of the operand's packed codes, a residual's with its shift.
    """

    layer: MacLayer
    rows: _Axis
    columns: _Axis
    pools: bool
    planes: Integers
    plane_type: np.dtype[Any]  # holds a sum over channels at one kernel position
    sum_type: np.dtype[Any]  # holds a sum over the window, of one weight digit
    taps: tuple[_Tap, ...]
    padding: Integers | None
    places: Integers
    unread_bits: int
    skip_levels: IntArray | None  # None of an operand of values
    staircase: Stairs | None


def prepare(graph: QuantGraph) -> dict[str, Mac]:
    """Prepare all MAC layers, by name."""
    layers = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
    kinds = {layer.activation for layer in layers}  # most layers share one
    staircases = {kind: staircase_of(kind) if kind else None for kind in kinds}
    return {at.name: _prepare_mac(graph, at, staircases[at.activation]) for at in layers}


def _prepare_mac(graph: QuantGraph, layer: MacLayer, staircase: Stairs | None) -> Mac:
    source = graph.tensor(layer.source)
    rows = _axis(source.height, layer.stride[0], layer.output.height)
    columns = _axis(source.width, layer.stride[1], layer.output.width)
    pools = layer.shared and layer.kernel == (rows.step, columns.step) and not any(layer.pads)
    places = _places(graph, len(layer.weights))
    products, plane_of, factor_of = _planes(graph.arithmetic, layer.weights)
    planes = _decode(graph, source.read_parts, products)
    lines = plane_of[np.abs(layer.weights)]
    if graph.is_truncated(layer):
        # in units of the products that are left: the last digit of weights reads no last digits
        first = products[:, _digits(graph, source.read_parts)[0]]
        lines[-1] += len(planes)
        planes = np.concatenate([planes, first])
        places = np.append(places[1:], 1)
    weights = np.sign(layer.weights) * factor_of[np.abs(layer.weights)]
    inputs = layer.inputs()

    # Proof of the types: the largest sums over C, then over the window, of each weight digit.
    window = layer.kernel[0] * layer.kernel[1] if layer.shared else 1
    largest = np.abs(weights) * np.abs(planes).max(axis=1)[lines]
    tap_bounds = largest.sum(axis=2) * window
    sum_bounds = tap_bounds.sum(axis=(2, 3))
    acc_bound = int((places @ sum_bounds).max())
    plane_type, acc_type = _narrowest(tap_bounds.max()), _narrowest(acc_bound)
    skip_levels = _operand_levels(graph, layer)
    largest_skip = 0 if skip_levels is None else int(np.abs(skip_levels).max())
    if skip_levels is None and layer.residual is not None:
        bits = graph.tensor(layer.residual.source).value_bits
        largest_skip = 1 << bits - 1 + layer.residual.value_shift
    _refuse_wide(layer, acc_bound, largest_skip)

    unread_bits = (source.parts - source.read_parts) * graph.act_bits
    pad_code = source.pad_code >> unread_bits
    taps: list[_Tap] = []
    padding = np.zeros((layer.output.channels, rows.cells, columns.cells, 1), np.int64)
    phases = 1 if pools else rows.step * columns.step
    for ky, kx in [(0, 0)] if pools else np.ndindex(layer.kernel):
        at = (..., 0, 0) if layer.shared else (..., ky, kx)
        phase_y, shift_y, outside_y = rows.reads(ky - layer.pads[0])
        phase_x, shift_x, outside_x = columns.reads(kx - layer.pads[1])
        outside = [np.s_[:, o] for o in outside_y] + [np.s_[:, :, o] for o in outside_x]
        reads_pads = np.zeros((1, rows.cells, columns.cells, 1), bool)
        for region in outside:
            reads_pads[region] = True
        pads = places @ (weights[at] * planes[lines[at], pad_code[inputs]]).sum(axis=2)
        padding += reads_pads * pads.reshape(-1, 1, 1, 1)
        blocks = lines[at] * phases + phase_y * columns.step + phase_x
        cells = blocks * source.channels + inputs
        count = len(planes) * phases * source.channels
        matrix = _matrix(weights[at].astype(plane_type), cells, count)
        taps.append((matrix, shift_y * columns.cells + shift_x, outside))
    planes = planes.astype(plane_type)
    return Mac(
        layer=layer,
        rows=rows,
        columns=columns,
        pools=pools,
        planes=_pair(planes) if 2 * source.read_parts * graph.act_bits <= PAIR_BITS else planes,
        plane_type=plane_type,
        sum_type=_narrowest(sum_bounds.max()),
        taps=tuple(taps),
        padding=padding.astype(acc_type) if padding.any() else None,
        places=places.astype(acc_type),
        unread_bits=unread_bits,
        skip_levels=skip_levels,
        staircase=staircase,
    )


def _refuse_wide(layer: MacLayer, acc: int, skip: int) -> None:
    if layer.gate is not None:
        acc = (acc + int(np.abs(layer.gate.offset).max())) * skip
    terms = [(layer.multiplier, acc), (layer.bias, 1)]
    if layer.residual is not None:
        terms.append((layer.residual.multiplier, skip))
    largest = sum(int(np.abs(a).max()) * b for a, b in terms) + (1 << layer.shift >> 1)
    if largest > MAX_SUM:
        raise BadInput(f"{layer.name}: values reach {largest} before the shift; at most {MAX_SUM}")


def _axis(size: int, stride: int, out: int) -> _Axis:
    step = size if out == 1 else stride  # one window: each of its pixels is a phase
    return _Axis(size, step, max(-(-size // step), out))


def _planes(arithmetic: Arithmetic, weights: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return planes, and for each magnitude its plane and factor: ``products = factor * plane``.

    Magnitudes with proportional products share a plane: one is enough for levels and uniform codes.
    """
    match arithmetic:
        case ProductTable():
            products = arithmetic.products
        case LevelTables():
            products = np.multiply.outer(arithmetic.weight_levels, arithmetic.act_levels)
        case _:
            assert_never(arithmetic)
    used = np.unique(np.maximum(np.abs(weights), 1))  # 0 needs no plane
    factor_of = np.maximum(np.gcd.reduce(products, axis=1), 1)
    reduced = products // factor_of[:, np.newaxis]
    planes, plane_of_used = np.unique(reduced[used], axis=0, return_inverse=True)
    plane_of = np.zeros_like(factor_of)
    plane_of[used] = plane_of_used.ravel()
    return planes, plane_of, factor_of


def _pair(planes: Integers) -> Integers:
    """Turn planes of one code into planes of two, the first in the low bits of the address."""
    pairs = np.stack(np.broadcast_arrays(planes[:, np.newaxis], planes[..., np.newaxis]), axis=-1)
    return pairs.reshape(len(planes), -1).view(f"V{2 * planes.itemsize}")


def _matrix(weights: Integers, columns: IntArray, count: int) -> Any:
    """Build ``[PW * M, count]``, each of ``weights[PW, M, C / groups]`` in its column."""
    inputs = weights.shape[-1]
    columns, weights = columns.reshape(-1, inputs), weights.reshape(-1, inputs)
    starts = np.append(0, np.cumsum((weights != 0).sum(axis=1)))
    parts = (weights[weights != 0], columns[weights != 0], starts)
    return csr_array(parts, shape=(len(weights), count))


def _places(graph: QuantGraph, digits: int) -> IntArray:
    """Return what each digit of a value weighs, the most significant first."""
    return 1 << graph.part_shift * np.arange(digits)[::-1]


def _decode(graph: QuantGraph, parts: int, levels: IntArray) -> IntArray:
    """Turn levels of digits, ``int[..., Lx + 1]``, into levels of packed codes."""
    return _places(graph, parts) @ levels[..., _digits(graph, parts)]


def _operand_levels(graph: QuantGraph, layer: MacLayer) -> IntArray | None:
    """Levels of the packed codes of a residual, shifted, or of a gate; ``None`` of values."""
    if layer.operand is None:
        return np.zeros(1, np.int64)
    operand = graph.tensor(layer.operand)
    if operand.value_bits:
        return None
    if operand.is_detailed:
        levels = np.take_along_axis(graph.detail_tables, _digits(graph, 2), axis=1).sum(axis=0)
    else:
        levels = _decode(graph, operand.parts, graph.skip_levels)
    return levels << graph.skip_shift if layer.residual is not None else levels


def _digits(graph: QuantGraph, parts: int) -> IntArray:
    """Digits of every packed code, ``int[parts, codes]``."""
    shifts = graph.act_bits * np.arange(parts)[::-1, np.newaxis]
    return np.arange(1 << parts * graph.act_bits) >> shifts & (1 << graph.act_bits) - 1


def _narrowest(bound: int) -> np.dtype[Any]:
    return np.dtype(next(t for t in (np.int16, np.int32, np.int64) if bound <= np.iinfo(t).max))


def accumulate(mac: Mac, codes: Integers) -> Integers:
    """Sum the products of a layer: ``[M, OH, OW, N]``, in the narrowest type."""
    cells = (mac.rows.cells, mac.columns.cells, codes.shape[-1])
    margin = max(abs(shift) for _, shift, _ in mac.taps) * codes.shape[-1]
    planes = _look_up(mac, codes >> mac.unread_bits if mac.unread_bits else codes, margin)

    def by_tap() -> Iterator[Integers]:
        for matrix, shift, outside in mac.taps:
            start = margin + shift * codes.shape[-1]
            moved = planes[start : start + len(planes) - 2 * margin].reshape(-1, math.prod(cells))
            part = (matrix @ moved).reshape(-1, *cells)
            for region in outside:
                part[region] = 0
            yield part.astype(mac.sum_type, copy=False)

    sums = by_tap()
    acc = next(sums)
    for part in sums:
        acc += part
    if len(mac.places) > 1:
        digits = acc.reshape(len(mac.places), -1, *cells)
        acc = (digits * mac.places.reshape(-1, 1, 1, 1, 1)).sum(axis=0, dtype=mac.places.dtype)
    if mac.padding is not None:
        acc += mac.padding
    return acc[:, : mac.layer.output.height, : mac.layer.output.width]


def _look_up(mac: Mac, codes: Integers, margin: int) -> Integers:
    """Look up all planes of a batch, with margins for shifts; what is read there is not used."""
    rows, columns = mac.rows, mac.columns
    shape = (rows.step, columns.step, len(codes), rows.cells, columns.cells, codes.shape[-1])
    size = math.prod(shape)
    line = np.zeros(size + size % 2, codes.dtype)
    grid = line[:size].reshape(shape)
    for y, x in product(range(rows.step), range(columns.step)):
        phase = codes[:, y :: rows.step, x :: columns.step]
        grid[y, x, :, : phase.shape[1], : phase.shape[2]] = phase
    if mac.planes.dtype.kind == "V":
        bits = mac.planes.shape[1].bit_length() >> 1
        pairs = line.view("<u2")
        line = (pairs | pairs >> (8 - bits)) & (1 << 2 * bits) - 1
    address = line.astype(np.intp)
    planes = np.empty(2 * margin + len(mac.planes) * size + 1, mac.plane_type)
    for plane, start in zip(mac.planes, range(margin, len(planes), size), strict=False):
        out = planes[start : start + size + size % 2].view(plane.dtype)
        np.take(plane, address, out=out, mode="wrap")  # no address is outside: the fastest mode
    planes = planes[:-1]  # the spare element of an odd line
    if mac.pools:
        by_phase = planes.reshape(len(mac.planes), rows.step * columns.step, -1)
        return by_phase.sum(axis=1, dtype=mac.plane_type).ravel()
    return planes


def requantize(mac: Mac, acc: Integers, tensors: dict[str, Integers]) -> Integers:
    """Turn accumulators into codes or, in the last layer, into values."""
    layer, column = mac.layer, (-1, 1, 1, 1)
    values = acc.astype(np.int64)
    if layer.gate is not None:
        values += layer.gate.offset.reshape(column)
        assert mac.skip_levels is not None
        values *= np.take(mac.skip_levels, tensors[layer.gate.source])
    values *= layer.multiplier.reshape(column)
    values += (layer.bias + (1 << layer.shift >> 1)).reshape(column)
    if layer.residual is not None:
        offset, stride = layer.residual.channel_offset, layer.residual.stride
        operand = tensors[layer.residual.source][:, :: stride[0], :: stride[1]]
        operand = operand[max(0, -offset) : max(0, len(values) - offset)]
        given = slice(max(0, offset), max(0, offset) + len(operand))
        levels = mac.skip_levels
        shift = layer.residual.value_shift
        skip = operand.astype(np.int64) << shift if levels is None else np.take(levels, operand)
        skip *= layer.residual.multiplier[given].reshape(column)
        values[given] += skip
    values >>= layer.shift
    return values if mac.staircase is None else mac.staircase(values)
