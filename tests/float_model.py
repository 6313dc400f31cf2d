"""A slow, obvious executor of ``FloatGraph``, to compare an imported network with its ONNX."""

import math
from typing import assert_never

import numpy as np
from scipy.special import erf

from hwquant.float_graph import (
    Elu,
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
    Function,
    Gelu,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Mish,
    Relu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from hwquant.ir import INPUT, FloatArray, Pads, Pair


def evaluate(graph: FloatGraph, images: FloatArray) -> FloatArray:
    """Compute the network's output: ``float[N, C, H, W] -> float[N, M, OH, OW]``."""
    tensors = {INPUT: images}
    assert images.shape[1:] == graph.shapes[INPUT]
    for node in graph.nodes:
        tensors[node.name] = _compute(node, tensors)
        assert tensors[node.name].shape[1:] == graph.shapes[node.name], node.name
    return tensors[graph.output]


def _compute(node: FloatNode, tensors: dict[str, FloatArray]) -> FloatArray:
    match node:
        case FloatConv():
            parts = np.split(tensors[node.source], node.groups, axis=1)
            weights = np.split(node.weight, node.groups)
            sums = [_convolve(node, *pair) for pair in zip(parts, weights, strict=True)]
            return np.concatenate(sums, axis=1) + node.bias[:, None, None]
        case FloatActivation():
            return function(node.function, tensors[node.source])
        case FloatAdd():
            return tensors[node.sources[0]] + tensors[node.sources[1]]
        case FloatShortcut():
            kept = tensors[node.source][:, :, :: node.stride[0], :: node.stride[1]]
            count, channels, height, width = kept.shape
            moved = np.zeros((count, node.channels, height, width))
            moved[:, node.channel_offset : node.channel_offset + channels] = kept
            return moved
        case FloatMaxPool():
            source = tensors[node.source]
            return _windows(source, node.kernel, node.stride, node.pads, -np.inf).max((4, 5))
        case FloatAveragePool():
            source = tensors[node.source]
            return _windows(source, node.kernel, node.stride, (0, 0, 0, 0), 0.0).mean((4, 5))
        case FloatConcat():
            return np.concatenate([tensors[name] for name in node.sources], axis=1)
        case FloatMultiply():
            return tensors[node.source] * tensors[node.gate]
        case FloatEmbedding():
            source = tensors[node.source]
            pixels = source.reshape(*source.shape[:2], -1)
            made = np.tile(node.constant.reshape(len(node.constant), -1), (len(source), 1, 1))
            made[:, :, made.shape[2] - pixels.shape[2] :] += pixels
            return made.reshape(len(source), *node.constant.shape)
        case FloatLayerNorm():
            source = tensors[node.source]
            mean, variance = source.mean(1, keepdims=True), source.var(1, keepdims=True)
            scale, bias = node.scale[:, None, None], node.bias[:, None, None]
            return (source - mean) / np.sqrt(variance + node.epsilon) * scale + bias
        case FloatMatMul():
            return _heads(node, tensors[node.source], tensors[node.operand])
        case FloatSoftmax():
            parts = np.split(tensors[node.source], node.groups, axis=1)
            powers = [np.exp(part) for part in parts]
            return np.concatenate([power / power.sum(1, keepdims=True) for power in powers], axis=1)
        case _:
            assert_never(node)


def _heads(node: FloatMatMul, source: FloatArray, operand: FloatArray) -> FloatArray:
    """Matrices of tokens and channels, image by image and head by head."""
    made = list[FloatArray]()
    for image, other in zip(source, operand, strict=True):
        heads = list[FloatArray]()
        for left, right in zip(
            np.split(image.reshape(len(image), -1), node.groups),
            np.split(other.reshape(len(other), -1), node.groups),
            strict=True,
        ):
            right = right if node.sums_channels else right.T  # [channels in, channels out]
            heads.append(right.T @ left * node.scale)
        made.append(np.concatenate(heads).reshape(-1, *image.shape[1:]))
    return np.stack(made)


def function(kind: Function, x: FloatArray) -> FloatArray:
    """Compute an activation function as its formula has it."""
    match kind:
        case Relu():
            return np.minimum(np.maximum(x, 0), np.inf if kind.ceiling is None else kind.ceiling)
        case LeakyRelu():
            return np.where(x > 0, x, kind.slope * x)
        case Elu():
            return np.where(x > 0, x, kind.slope * (np.exp(x) - 1))
        case Softplus():
            return np.log1p(np.exp(x))
        case Silu():
            return x / (1 + np.exp(-kind.slope * x))
        case Mish():
            return x * np.tanh(np.log1p(np.exp(x)))
        case Gelu(is_tanh=True):
            return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        case Gelu():
            return x / 2 * (1 + erf(x / math.sqrt(2)))
        case HardSwish():
            return x * np.minimum(np.maximum(x + 3, 0), 6) / 6
        case HardSigmoid():
            return np.minimum(np.maximum(kind.slope * x + kind.offset, 0), 1)
        case HardTanh():
            return np.minimum(np.maximum(x, kind.low), kind.high)
        case Sigmoid():
            return 1 / (1 + np.exp(-x))
        case Tanh():
            return np.tanh(x)
        case _:
            assert_never(kind)


def _convolve(node: FloatConv, images: FloatArray, weight: FloatArray) -> FloatArray:
    kernel = (weight.shape[2], weight.shape[3])
    windows = _windows(images, kernel, node.stride, node.pads, 0.0)
    return np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def _windows(images: FloatArray, kernel: Pair, stride: Pair, pads: Pads, fill: float) -> FloatArray:
    """Cut the windows out: ``float[N, C, H, W] -> float[N, C, OH, OW, KH, KW]``."""
    top, left, bottom, right = pads
    padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1]]
