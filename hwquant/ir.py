"""The records that flow through hwquant: ``FloatGraph`` in, ``QuantGraph`` out.

``FloatGraph`` is the network as trained, reduced to eight kinds of node. ``QuantGraph`` is the
same network as integers (``hwquant/integers.py``); golden, gateware and reports read it and nothing
else. Records are frozen, validated once on construction, and never checked again.
"""

from dataclasses import dataclass
from typing import Literal

from hwquant.integers import (
    INPUT,
    MAX_GATED_BITS,
    Activation,
    Arithmetic,
    ConcatLayer,
    FloatArray,
    Gate,
    InputCodes,
    IntArray,
    Layer,
    LevelTables,
    MacLayer,
    MaxPoolLayer,
    Pads,
    Pair,
    PowerTable,
    ProductTable,
    Provenance,
    QuantGraph,
    Residual,
    Tensor,
    Thresholds,
    sources_of,
)

__all__ = [
    "INPUT",
    "MAX_GATED_BITS",
    "Activation",
    "Arithmetic",
    "ConcatLayer",
    "FloatAdd",
    "FloatArray",
    "FloatAveragePool",
    "FloatConv",
    "FloatGraph",
    "FloatMaxPool",
    "FloatNode",
    "FloatRelu",
    "FloatShortcut",
    "Gate",
    "InputCodes",
    "IntArray",
    "Layer",
    "LevelTables",
    "MacLayer",
    "MaxPoolLayer",
    "Moments",
    "Pads",
    "Pair",
    "PowerTable",
    "ProductTable",
    "Provenance",
    "QuantGraph",
    "Residual",
    "Tensor",
    "Thresholds",
    "sources_of",
]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of a tensor, per channel: ``float[M]`` each."""

    mean: FloatArray
    std: FloatArray


@dataclass(frozen=True, eq=False)
class FloatConv:
    """Convolution or, with the kernel as large as the input, a fully connected layer.

    ``weight`` is ``float[M, C, KH, KW]``, ``bias`` ``float[M]``. ``moments`` are those of the
    output where a batch norm followed and was folded in (mean = beta, std = abs(gamma)), else
    ``None``.
    """

    name: str
    source: str
    weight: FloatArray
    bias: FloatArray
    stride: Pair
    pads: Pads
    moments: Moments | None


@dataclass(frozen=True)
class FloatRelu:
    """``min(max(x, 0), ceiling)``; ``ceiling`` is ``None`` for ReLU and 6 for ReLU6."""

    name: str
    source: str
    ceiling: float | None


@dataclass(frozen=True)
class FloatAdd:
    """Sum of two tensors of one shape."""

    name: str
    sources: tuple[str, str]


@dataclass(frozen=True)
class FloatShortcut:
    """Every ``stride``-th pixel, the channels moved up by ``channel_offset`` among zeros."""

    name: str
    source: str
    stride: Pair
    channels: int
    channel_offset: int


@dataclass(frozen=True)
class FloatMaxPool:
    """Maximum over a window; padding never wins."""

    name: str
    source: str
    kernel: Pair
    stride: Pair
    pads: Pads


@dataclass(frozen=True)
class FloatAveragePool:
    """Mean over a window without padding (global pooling: the window is the whole image)."""

    name: str
    source: str
    kernel: Pair
    stride: Pair


FloatNode = FloatConv | FloatRelu | FloatAdd | FloatShortcut | FloatMaxPool | FloatAveragePool


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """A network as trained, nodes in topological order; a tensor bears the name of its node.

    ``shapes`` gives ``(C, H, W)`` of the input tensor (named ``INPUT``) and of every node's output.
    ``layout`` is how the ONNX network takes its input: ``NCHW``, ``NHWC`` or ``NF``.
    ``notes`` are sentences for the user about what the import dropped or rewrote.
    """

    name: str
    sha256: str
    layout: Literal["NCHW", "NHWC", "NF"]
    nodes: tuple[FloatNode, ...]
    shapes: dict[str, tuple[int, int, int]]
    output: str
    notes: tuple[str, ...] = ()
