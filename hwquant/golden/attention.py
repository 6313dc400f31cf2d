"""The layers of transformers as golden computes them; tensors are ``[C, H, W, N]``.

Divisions are integer divisions of rounded quotients, and the square root is Newton's, in integers.
"""

from typing import assert_never

import numpy as np

from hwquant.golden.staircase import Integers, Stairs
from hwquant.ir import (
    AttentionLayer,
    EmbeddingLayer,
    IntArray,
    LayerNormLayer,
    MatMulLayer,
    SoftmaxLayer,
)
from hwquant.ir_attention import NORM_BITS

LARGEST_SHIFT = 62  # a larger one leaves as little of an exponential: nothing


def attend(layer: AttentionLayer, stairs: Stairs, tensors: dict[str, Integers]) -> Integers:
    """Compute a layer's output of a batch."""
    source = tensors[layer.source]
    match layer:
        case EmbeddingLayer():
            values = _embed(layer, source)
        case LayerNormLayer():
            values = _normalize(layer, source)
        case MatMulLayer():
            values = _multiply(layer, source, tensors[layer.operand])
        case SoftmaxLayer():
            values = _softmax(layer, source)
        case _:
            assert_never(layer)
    return stairs(values)


def _embed(layer: EmbeddingLayer, source: Integers) -> IntArray:
    channels, images = source.shape[0], source.shape[-1]
    bias = layer.bias.reshape(channels, -1, 1) + (1 << layer.shift >> 1)
    values = np.repeat(bias, images, axis=2)
    pixels = source.reshape(channels, -1, images) * layer.multiplier.reshape(-1, 1, 1)
    values[:, values.shape[1] - pixels.shape[1] :] += pixels
    values >>= layer.shift
    return values.reshape(*layer.bias.shape, images)


def _normalize(layer: LayerNormLayer, source: Integers) -> IntArray:
    """Deviations from the mean over their root of squares, scaled.

    Error
    -----
    Of a share, at most ``1/2 + 2**16 / r`` in units of ``2**-16``, r the root before rounding down.
    """
    values = source.astype(np.int64)
    deviations = len(values) * values - values.sum(axis=0)
    root = square_root((deviations * deviations).sum(axis=0) + layer.epsilon)
    shares = (deviations << NORM_BITS + 1) + root
    shares //= 2 * root
    shares *= layer.multiplier.reshape(-1, 1, 1, 1)
    shares += (layer.bias + (1 << layer.shift >> 1)).reshape(-1, 1, 1, 1)
    shares >>= layer.shift
    return shares


def square_root(squares: IntArray) -> IntArray:
    """Largest integers whose squares are not above ``squares``, which are from 1 to 2**62 - 1.

    Newton's iterations from above fall until they are exact, and then no further.

    Source
    ------
    I-BERT (Kim et al. 2021), algorithm 4.
    """
    root = np.full_like(squares, 1 << 31)
    while True:
        lower = (root + squares // root) >> 1
        if (lower >= root).all():
            return root
        np.minimum(root, lower, out=root)


def _multiply(layer: MatMulLayer, source: Integers, operand: Integers) -> IntArray:
    images, heads = source.shape[-1], layer.groups
    left = np.take(layer.source_levels, source).reshape(heads, -1, *source.shape[1:])
    right = np.take(layer.operand_levels, operand).reshape(heads, len(operand) // heads, -1, images)
    if not layer.sums_channels:
        right = right.swapaxes(1, 2)  # of either: [heads, summed, made, N]
    acc = np.zeros((heads, right.shape[2], *source.shape[1:]), np.int64)
    for k in range(left.shape[1]):
        acc += left[:, k, np.newaxis] * right[:, k, :, np.newaxis, np.newaxis]
    values = acc.reshape(-1, *source.shape[1:])
    values *= layer.multiplier.reshape(-1, 1, 1, 1)
    values += (layer.bias + (1 << layer.shift >> 1)).reshape(-1, 1, 1, 1)
    values >>= layer.shift
    return values


def _softmax(layer: SoftmaxLayer, source: Integers) -> IntArray:
    """Shares of exponentials to base 2: a table for the fraction, a shift for the integer.

    Error
    -----
    Of an exponential at most 1; of a share at most ``1/2 + one * n / exponentials[0]`` over n
    channels (proof: the largest exponential is exact, and the sum at least as large).

    Source
    ------
    I-ViT (Li and Gu 2023), Shiftmax: exponentials by shifts. Differs: the fraction is a table's, so
    that the error is rounding alone.
    """
    logits = source.astype(np.int64).reshape(layer.groups, -1, *source.shape[1:])
    below = logits.max(axis=1, keepdims=True) - logits
    count = len(layer.exponentials)
    shift = np.minimum(below >> count.bit_length() - 1, LARGEST_SHIFT)
    powers = (layer.exponentials[below & count - 1] + (1 << shift >> 1)) >> shift
    total = powers.sum(axis=1, keepdims=True)
    return ((2 * layer.one * powers + total) // (2 * total)).reshape(source.shape)
