"""A network as golden computes it: batches of images through one layer after another."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import product
from typing import assert_never

import numpy as np

from hwquant.errors import BadInput
from hwquant.golden.attention import attend
from hwquant.golden.mac import Mac, accumulate, prepare, requantize
from hwquant.golden.staircase import Integers, Stairs, staircase_of
from hwquant.ir import (
    INPUT,
    AttentionLayer,
    ConcatLayer,
    EmbeddingLayer,
    InputCodes,
    IntArray,
    LayerNormLayer,
    MacLayer,
    MatMulLayer,
    MaxPoolLayer,
    QuantGraph,
    SoftmaxLayer,
)

BATCH_CODES = 1 << 18  # of the largest tensor; more, and its planes fall out of the cache


def simulate(
    graph: QuantGraph,
    images: IntArray,
    *,
    progress: Callable[[int], None] | None = None,
    batch: int | None = None,
) -> IntArray:
    """Compute the last layer's values of many images.

    ``int[N, C, H, W] -> int64[N, M, OH, OW]``; ``int[N, F]`` is read as F channels of one pixel.
    ``progress`` is told how many images were done since its last call. Each processor computes
    ``batch`` images at a time, by default as many as its cache holds.

    Raises
    ------
    BadInput
        If the images have another shape than the input tensor, or hold what no sensor delivers.
    """
    pixels = _checked(graph.input, images)
    made = _prepare(graph)
    np.empty(24 << 20, np.uint8)  # freed, it has glibc keep what batches free (if below 32 MB): 6 %
    tensors = [graph.input.tensor, *(layer.output for layer in graph.layers)]
    size = batch or max(1, BATCH_CODES // max(t.channels * t.height * t.width for t in tensors))
    last = tensors[-1]
    values = np.empty((len(pixels), last.channels, last.height, last.width), np.int64)

    def run(start: int) -> int:
        part = pixels[start : start + size]
        values[start : start + size] = _run(graph, made, part)[last.name].transpose(3, 0, 1, 2)
        return len(part)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(run, range(0, len(pixels), size)):
            if progress is not None:
                progress(done)
    return values


def trace(graph: QuantGraph, image: IntArray) -> dict[str, IntArray]:
    """Compute every tensor of one image, by name: packed codes, and the last layer's values.

    ``int[C, H, W] -> int64[C, H, W]`` each. Raises as `simulate`.
    """
    tensors = _run(graph, _prepare(graph), _checked(graph.input, image[np.newaxis]))
    return {name: tensor[..., 0].astype(np.int64) for name, tensor in tensors.items()}


def _checked(source: InputCodes, images: IntArray) -> IntArray:
    shape = source.shape
    if images.ndim == 2 and shape[1:] == (1, 1):
        images = images[:, :, np.newaxis, np.newaxis]
    if images.shape[1:] != shape:
        raise BadInput(f"images: shape {images.shape}; this network takes N of {shape}")
    if images.dtype.kind not in "iu":
        raise BadInput(f"images: {images.dtype} values; this network takes the sensor's integers")
    low, high = source.low, source.low + (1 << source.bits) - 1
    for pixel in (int(images.min(initial=low)), int(images.max(initial=low))):
        if not low <= pixel <= high:
            raise BadInput(f"images: pixel {pixel}; the sensor's range is {low}..{high}")
    return images


_Prepared = tuple[dict[str, Mac], dict[str, Stairs]]


def _prepare(graph: QuantGraph) -> _Prepared:
    """Prepare MAC layers and the staircases of attention, by name."""
    layers = [layer for layer in graph.layers if isinstance(layer, AttentionLayer)]
    kinds = {layer.activation for layer in layers}
    stairs = {kind: staircase_of(kind) for kind in kinds}
    return prepare(graph), {layer.name: stairs[layer.activation] for layer in layers}


def _run(graph: QuantGraph, made: _Prepared, pixels: IntArray) -> dict[str, Integers]:
    macs, stairs = made
    tables = graph.input.tables.astype(np.min_scalar_type(graph.input.tables.max()))
    index = pixels.transpose(1, 2, 3, 0).astype(np.int64, "C") - graph.input.low
    tensors: dict[str, Integers] = {INPUT: tables[:, index].reshape(-1, *index.shape[1:])}
    for layer in graph.layers:
        match layer:
            case MacLayer():
                acc = accumulate(macs[layer.name], tensors[layer.source])
                tensors[layer.name] = requantize(macs[layer.name], acc, tensors)
            case MaxPoolLayer():
                tensors[layer.name] = _max_pool(layer, tensors[layer.source])
            case ConcatLayer():
                tensors[layer.name] = np.concatenate([tensors[name] for name in layer.sources])
            case EmbeddingLayer() | LayerNormLayer() | MatMulLayer() | SoftmaxLayer():
                tensors[layer.name] = attend(layer, stairs[layer.name], tensors)
            case _:
                assert_never(layer)
    return tensors


def _max_pool(pool: MaxPoolLayer, codes: Integers) -> Integers:
    (top, left, bottom, right), (stride_y, stride_x) = pool.pads, pool.stride
    padded = np.pad(codes, ((0, 0), (top, bottom), (left, right), (0, 0)))  # no code is below 0
    last_y, last_x = (pool.output.height - 1) * stride_y, (pool.output.width - 1) * stride_x
    windows = [
        padded[:, y : y + last_y + 1 : stride_y, x : x + last_x + 1 : stride_x]
        for y, x in product(range(pool.kernel[0]), range(pool.kernel[1]))
    ]
    return reduce(np.maximum, windows)
