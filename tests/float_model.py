"""A slow, obvious executor of ``FloatGraph``, to compare an imported network with its ONNX."""

from typing import assert_never

import numpy as np

from hwquant.ir import (
    INPUT,
    FloatAdd,
    FloatArray,
    FloatAveragePool,
    FloatConv,
    FloatGraph,
    FloatMaxPool,
    FloatNode,
    FloatRelu,
    FloatShortcut,
    Pads,
    Pair,
)


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
            kernel = (node.weight.shape[2], node.weight.shape[3])
            windows = _windows(tensors[node.source], kernel, node.stride, node.pads, 0.0)
            sums = np.tensordot(windows, node.weight, axes=((1, 4, 5), (1, 2, 3)))
            return (sums + node.bias).transpose(0, 3, 1, 2)
        case FloatRelu():
            return np.clip(tensors[node.source], 0, node.ceiling)
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
        case _:
            assert_never(node)


def _windows(images: FloatArray, kernel: Pair, stride: Pair, pads: Pads, fill: float) -> FloatArray:
    """Cut the windows out: ``float[N, C, H, W] -> float[N, C, OH, OW, KH, KW]``."""
    top, left, bottom, right = pads
    padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1]]
