"""A fast executor of ``FloatGraph``: matrix products, and a tensor only as long as it is read.

Inside, tensors are ``[C, N, H, W]``, so that a convolution of all images is one matrix product. On
a machine that others keep busy, BLAS is fastest with one thread (``OPENBLAS_NUM_THREADS=1``).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConcat,
    FloatConv,
    FloatEmbedding,
    FloatGraph,
    FloatLayerNorm,
    FloatMatMul,
    FloatMaxPool,
    FloatMultiply,
    FloatNode,
    FloatShortcut,
    FloatSoftmax,
    sources,
)
from hwquant.functions import evaluate as evaluate_function
from hwquant.ir import INPUT, FloatArray, Pads, Pair
from hwquant.quantizer.blocks import by_channels

Images = npt.NDArray[np.floating[Any]]  # float[N, C, H, W]


def evaluate(
    graph: FloatGraph, images: Images, dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Compute the network's output: ``float[N, C, H, W] -> float[N, M, OH, OW]``."""
    output: npt.NDArray[Any] = images.astype(dtype)
    for node, tensor in stream(graph, images, dtype):
        if node.name == graph.output:
            output = tensor
    return output


def stream(
    graph: FloatGraph, images: Images, dtype: npt.DTypeLike = np.float32
) -> Iterator[tuple[FloatNode, npt.NDArray[Any]]]:
    """Compute node after node, and yield each with its output, ``dtype[N, C, H, W]``.

    A tensor is let go as soon as its last reader is computed; it must not be changed before.
    """
    reads = Counter(name for node in graph.nodes for name in sources(node))
    tensors: dict[str, npt.NDArray[Any]] = {INPUT: _swap(images).astype(dtype, order="C")}
    for node in graph.nodes:
        made = _compute(node, tensors)
        yield node, _swap(made)
        if reads[node.name]:
            tensors[node.name] = made
        for name in read_last(reads, sources(node)):
            del tensors[name]


def read_last(reads: Counter[str], names: Iterable[str]) -> list[str]:
    """Count one read of each name off; return those that nothing reads any more."""
    reads.subtract(names)
    return [name for name in dict.fromkeys(names) if not reads[name]]


def _swap(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return tensor.transpose(1, 0, 2, 3)


def _compute(node: FloatNode, tensors: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    match node:
        case FloatConv():
            padded = pad(tensors[node.source], node.pads, 0.0)
            return convolve(padded, node.weight, node.bias, node.stride, node.groups)
        case FloatActivation():
            return evaluate_function(node.function, tensors[node.source])
        case FloatAdd():
            return tensors[node.sources[0]] + tensors[node.sources[1]]
        case FloatShortcut():
            kept = tensors[node.source][:, :, :: node.stride[0], :: node.stride[1]]
            after = node.channels - node.channel_offset - len(kept)
            return np.pad(kept, ((node.channel_offset, after), (0, 0), (0, 0), (0, 0)))
        case FloatMaxPool():
            padded = pad(tensors[node.source], node.pads, -math.inf)
            return maximum(padded, node.kernel, node.stride)
        case FloatAveragePool():
            return total(tensors[node.source], node.kernel, node.stride) / math.prod(node.kernel)
        case FloatConcat():
            return np.concatenate([tensors[name] for name in node.sources])
        case FloatMultiply():
            return tensors[node.source] * tensors[node.gate]
        case FloatEmbedding() | FloatLayerNorm() | FloatMatMul() | FloatSoftmax():
            return attend(node, tensors)
        case _:
            assert_never(node)


def attend(
    node: FloatEmbedding | FloatLayerNorm | FloatMatMul | FloatSoftmax,
    tensors: Mapping[str, npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """Compute a node of a transformer; tensors are ``[C, N, H, W]``."""
    source = tensors[node.source]
    match node:
        case FloatEmbedding():
            channels, images = source.shape[:2]
            constant = node.constant.astype(source.dtype)[:, None]
            made = np.repeat(constant, images, axis=1)
            pixels = source.reshape(channels, images, -1)
            made.reshape(channels, images, -1)[:, :, -pixels.shape[2] :] += pixels
            return made
        case FloatLayerNorm():
            centred = source - source.mean(axis=0)
            deviation = np.sqrt((centred * centred).mean(axis=0) + source.dtype.type(node.epsilon))
            scale, bias = (
                part.astype(source.dtype)[:, None, None, None] for part in (node.scale, node.bias)
            )
            return centred / deviation * scale + bias
        case FloatMatMul():
            images = source.shape[1]
            left, right = (
                part.reshape(node.groups, part.shape[0] // node.groups, images, -1)
                for part in (source, tensors[node.operand])
            )
            order = "gdnt,gdnu->gunt" if node.sums_channels else "gunt,gdnu->gdnt"
            product = np.einsum(order, left, right, optimize=True) * source.dtype.type(node.scale)
            return product.reshape(-1, images, *source.shape[2:])
        case FloatSoftmax():
            parts = source.reshape(node.groups, -1, *source.shape[1:])
            powers = np.exp(parts - parts.max(axis=1, keepdims=True))
            return (powers / powers.sum(axis=1, keepdims=True)).reshape(source.shape)
        case _:
            assert_never(node)


def maximum(padded: npt.NDArray[Any], kernel: Pair, stride: Pair) -> npt.NDArray[Any]:
    """Greatest element of every window: ``[C, N, H, W] -> [C, N, OH, OW]``."""
    taps = _taps(padded, kernel, stride)
    most = next(taps).copy()
    for tap in taps:
        np.maximum(most, tap, out=most)
    return most


def total(source: npt.NDArray[Any], kernel: Pair, stride: Pair) -> npt.NDArray[Any]:
    """Sum of every window: ``[C, N, H, W] -> [C, N, OH, OW]``."""
    if kernel == source.shape[2:]:
        return source.sum(axis=(2, 3), keepdims=True)
    taps = _taps(source, kernel, stride)
    summed = next(taps).copy()
    for tap in taps:
        summed += tap
    return summed


def convolve(
    padded: npt.NDArray[Any], weight: FloatArray, bias: FloatArray, stride: Pair, groups: int
) -> npt.NDArray[Any]:
    """Convolve all images in the precision of ``padded``: ``[C, N, H, W] -> [M, N, OH, OW]``."""
    weight, bias = weight.astype(padded.dtype), bias.astype(padded.dtype)
    count, channels, *kernel = weight.shape
    window = (kernel[0], kernel[1])
    if channels == 1 and count == groups:
        return _depthwise(padded, weight[:, 0], bias, stride)
    matrix = weight.reshape(groups, count // groups, -1)
    sums = matrix @ columns(padded, window, stride, groups)  # [G, M / G, N * OH * OW]
    height, width = _size(padded, window, stride)
    sums = sums.reshape(count, -1, height, width)
    sums += bias[:, None, None, None]
    return sums


def columns(padded: npt.NDArray[Any], kernel: Pair, stride: Pair, groups: int) -> npt.NDArray[Any]:
    """Copy windows into columns: ``[C, N, H, W] -> [G, C / G * KH * KW, N * OH * OW]``."""
    channels, images = padded.shape[:2]
    height, width = _size(padded, kernel, stride)
    if kernel == (1, 1):
        return next(_taps(padded, kernel, stride)).reshape(groups, channels // groups, -1)
    taken = np.empty((channels, math.prod(kernel), images, height, width), padded.dtype)
    for index, tap in enumerate(_taps(padded, kernel, stride)):
        taken[:, index] = tap
    return taken.reshape(groups, -1, images * height * width)


def _depthwise(
    padded: npt.NDArray[Any], weight: npt.NDArray[Any], bias: npt.NDArray[Any], stride: Pair
) -> npt.NDArray[Any]:
    """Multiply and add tap by tap."""
    kernel = (weight.shape[1], weight.shape[2])
    height, width = _size(padded, kernel, stride)
    sums = np.empty((*padded.shape[:2], height, width), padded.dtype)

    def work(part: slice) -> None:
        factors = weight[part].reshape(-1, math.prod(kernel))
        made = sums[part]
        made[...] = bias[part, None, None, None]
        for index, tap in enumerate(_taps(padded[part], kernel, stride)):
            made += tap * factors[:, index, None, None, None]

    by_channels(len(weight), len(padded[0]) * height * width, work)
    return sums


def _taps(padded: npt.NDArray[Any], kernel: Pair, stride: Pair) -> Iterator[npt.NDArray[Any]]:
    """Yield what each position of a window sees, row by row: ``[..., H, W] -> [..., OH, OW]``."""
    height, width = _size(padded, kernel, stride)
    for row in range(kernel[0]):
        rows = slice(row, row + (height - 1) * stride[0] + 1, stride[0])
        for column in range(kernel[1]):
            columns = slice(column, column + (width - 1) * stride[1] + 1, stride[1])
            yield padded[..., rows, columns]


def _size(padded: npt.NDArray[Any], kernel: Pair, stride: Pair) -> Pair:
    height, width = padded.shape[-2:]
    return (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1


def pad(images: npt.NDArray[Any], pads: Pads, fill: float | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put a margin of ``fill``, one number or one a channel, around ``[C, N, H, W]``."""
    top, left, bottom, right = pads
    if not any(pads):
        return images
    channels, count, height, width = images.shape
    padded = np.empty((channels, count, top + height + bottom, left + width + right), images.dtype)
    padded[...] = np.reshape(np.asarray(fill), (-1, 1, 1, 1))
    padded[:, :, top : top + height, left : left + width] = images
    return padded
