"""The integers of a transformer's layers: which tensors are values, and what each layer computes.

What layer norms, softmaxes and embeddings read, the stream of residuals above all, are *values* of
``VALUE_BITS`` bits, no codes: no product is made with them, so bits are cheap there.
"""

import math
from collections.abc import Mapping
from typing import assert_never

import numpy as np

from hwquant.float_graph import FloatEmbedding, FloatLayerNorm, FloatMatMul, FloatSoftmax
from hwquant.ir import (
    AttentionLayer,
    EmbeddingLayer,
    FloatArray,
    IntArray,
    LayerNormLayer,
    MatMulLayer,
    SoftmaxLayer,
    Tensor,
)
from hwquant.ir_attention import NORM_BITS
from hwquant.quantizer.calibrate import Spread
from hwquant.quantizer.lower import FloatAttention, FloatLayer
from hwquant.quantizer.ranges import SMALLEST_RANGE, Coding
from hwquant.quantizer.requantize import Output, largest_shift, scaled

# Noise over signal of a small ViT's logits at W8A8, by the bits of its stream: 8: 0.0197,
# 10: 0.0018, 12: 0.0010, 16: 0.0010. Larger networks have channels that reach farther out.
VALUE_BITS = 16
VALUE_REACH = 16  # standard deviations of a channel that values cover
LOGIT_BITS = 8  # of a logit's fraction, to base 2
EXPONENTIAL_BITS = 20  # of the exponential of 0
LEVEL_BITS = 12  # of a decoded operand of a product, at least


def value_tensors(layers: tuple[FloatLayer, ...]) -> set[str]:
    """Names of the layers that make values."""
    readers = (FloatEmbedding, FloatLayerNorm, FloatSoftmax)
    return {layer.source for layer in layers if isinstance(layer, readers)}


def value_range(name: str, spread: Spread, layers: tuple[FloatLayer, ...]) -> float:
    """Largest real value of a tensor of values: logits have a unit of their own."""
    top = (1 << VALUE_BITS - 1) - 1
    if any(isinstance(layer, FloatSoftmax) and layer.source == name for layer in layers):
        return math.log(2) / (1 << LOGIT_BITS) * top
    return max(float((np.abs(spread.mean) + VALUE_REACH * spread.std).max()), SMALLEST_RANGE)


def attention_layer(
    node: FloatAttention,
    codings: Mapping[str, Coding],
    output: Output,
    tensor: Tensor,
    act_bits: int,
) -> AttentionLayer:
    """Turn a layer into integers; ``codings`` are those of its sources."""
    source = codings[node.source]
    match node:
        case FloatEmbedding():
            return _embedding(node, source, output, tensor)
        case FloatLayerNorm():
            return _layer_norm(node, source, output, tensor)
        case FloatMatMul():
            return _mat_mul(node, source, codings[node.operand], output, tensor, act_bits)
        case FloatSoftmax():
            return _softmax(node, output, tensor)
        case _:
            assert_never(node)


def _unit(values: Coding) -> float:
    """Real value of 1 in a tensor of values."""
    return float(values.scale[0]) / int(values.book.digits[-1, 0])


def _embedding(
    node: FloatEmbedding, source: Coding, output: Output, tensor: Tensor
) -> EmbeddingLayer:
    unit, zero = output.unit[:, None, None], output.zero[:, None, None]
    offset = (node.constant - zero) / unit
    multiplier, bias, shift = _fixed(_unit(source) / output.unit, offset)
    top = int(source.book.digits[-1, 0])
    return EmbeddingLayer(
        name=node.name,
        source=node.source,
        multiplier=multiplier,
        bias=bias,
        shift=shift,
        activation=output.activation,
        value_bits=_value_bits(multiplier[:, None, None] * top, bias, shift),
        output=tensor,
    )


def _layer_norm(
    node: FloatLayerNorm, source: Coding, output: Output, tensor: Tensor
) -> LayerNormLayer:
    channels = len(node.scale)
    ratio = math.sqrt(channels) / (1 << NORM_BITS) * node.scale / output.unit
    multiplier, bias, shift = _fixed(ratio, (node.bias - output.zero) / output.unit)
    return LayerNormLayer(
        name=node.name,
        source=node.source,
        epsilon=max(1, round(node.epsilon * channels**3 / _unit(source) ** 2)),
        multiplier=multiplier,
        bias=bias,
        shift=shift,
        activation=output.activation,
        value_bits=_value_bits(multiplier << NORM_BITS, bias, shift),
        output=tensor,
    )


def _mat_mul(
    node: FloatMatMul,
    source: Coding,
    operand: Coding,
    output: Output,
    tensor: Tensor,
    act_bits: int,
) -> MatMulLayer:
    left, left_step = _levels(source, act_bits)
    right, right_step = _levels(operand, act_bits)
    summed = len((operand if node.sums_channels else source).zero) // node.groups
    bound = summed * int(np.abs(left).max()) * int(np.abs(right).max())
    ratio = left_step * right_step * node.scale / output.unit
    multiplier, bias, shift = _fixed(ratio, -output.zero / output.unit)
    return MatMulLayer(
        name=node.name,
        source=node.source,
        operand=node.operand,
        groups=node.groups,
        sums_channels=node.sums_channels,
        source_levels=left,
        operand_levels=right,
        multiplier=multiplier,
        bias=bias,
        shift=shift,
        activation=output.activation,
        acc_bits=bound.bit_length() + 1,
        value_bits=_value_bits(multiplier * bound, bias, shift),
        output=tensor,
    )


def _levels(coding: Coding, act_bits: int) -> tuple[IntArray, float]:
    """Signed level of every packed code, and the real value of one; all channels have the same.

    Error
    -----
    At most half a level: ``2**-(LEVEL_BITS + 1)`` of the tensor's range.
    """
    book, zero, scale = coding.book, float(coding.zero[0]), float(coding.scale[0])
    top = (1 << act_bits) - 1
    one = top << max(0, LEVEL_BITS - act_bits)
    levels = np.zeros(1 << act_bits * book.parts, dtype=np.int64)
    levels[book.packed(act_bits)] = np.round((zero / scale + book.values) * one).astype(np.int64)
    return levels, scale / one


def _softmax(node: FloatSoftmax, output: Output, tensor: Tensor) -> SoftmaxLayer:
    count = 1 << LOGIT_BITS
    powers = 2.0 ** (EXPONENTIAL_BITS - np.arange(count) / count)
    one = round(1 / float(output.unit[0]))
    return SoftmaxLayer(
        name=node.name,
        source=node.source,
        groups=node.groups,
        exponentials=np.round(powers).astype(np.int64),
        one=one,
        activation=output.activation,
        value_bits=one.bit_length() + 1,
        output=tensor,
    )


def _fixed(ratio: FloatArray, offset: FloatArray) -> tuple[IntArray, IntArray, int]:
    """Multipliers, biases and the largest shift at which they fit their bits."""
    shift = largest_shift(ratio, offset)
    return scaled(ratio, shift), scaled(offset, shift), shift


def _value_bits(product: IntArray, bias: IntArray, shift: int) -> int:
    """Bits of ``(±product + bias + half) >> shift``."""
    largest = int((np.abs(product) + np.abs(bias)).max()) + (1 << shift >> 1)
    return ((largest >> shift) + 1).bit_length() + 1  # the floor of a negative is one lower
