"""The network as trained: ``FloatGraph``, which the importer makes and the quantizer reads.

Records are frozen; ``hwquant/ir.py`` has the same network as integers.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from hwquant.ir import FloatArray, Layout, Pads, Pair

Integers = Literal["uint8", "int8"]
Number = TypeVar("Number", bound=np.number[Any])


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of a tensor, per channel: ``float[M]`` each."""

    mean: FloatArray
    std: FloatArray


@dataclass(frozen=True, eq=False)
class FloatConv:
    """Convolution or, with the kernel as large as the input, a fully connected layer.

    ``weight`` is ``float[M, C / groups, KH, KW]``, ``bias`` ``float[M]``; the g-th run of
    ``M / groups`` output channels reads the g-th run of ``C / groups`` input channels (depthwise: C
    groups). ``moments`` are those of the output where a batch norm followed and was folded in
    (mean = beta, std = abs(gamma)), else ``None``.
    """

    name: str
    source: str
    weight: FloatArray
    bias: FloatArray
    stride: Pair
    pads: Pads
    moments: Moments | None
    groups: int = 1


def per_input(numbers: npt.NDArray[Number], groups: int, outputs: int) -> npt.NDArray[Number]:
    """Lay one number an input channel along a convolution's weights: ``[C] -> [M, C / groups]``."""
    return np.repeat(numbers.reshape(groups, -1), outputs // groups, axis=0)


@dataclass(frozen=True)
class Relu:
    """``min(max(x, 0), ceiling)``; ``ceiling`` is ``None`` for ReLU and 6 for ReLU6."""

    ceiling: float | None


@dataclass(frozen=True)
class LeakyRelu:
    """``x`` where positive, else ``slope * x``; ``0 < slope < 1``."""

    slope: float


@dataclass(frozen=True)
class Elu:
    """``x``, and ``slope * (exp(x) - 1)`` where x < 0; ``slope > 0``."""

    slope: float


@dataclass(frozen=True)
class Softplus:
    """``log(1 + exp(x))``."""


@dataclass(frozen=True)
class Mish:
    """``x * tanh(softplus(x))``."""


@dataclass(frozen=True)
class Silu:
    """``x * sigmoid(slope * x)``; ``slope > 0`` is 1 for SiLU and 1.702 for QuickGELU."""

    slope: float = 1.0


@dataclass(frozen=True)
class Gelu:
    """``x * normal_cdf(x)``; ``is_tanh`` is its approximation by tanh."""

    is_tanh: bool


@dataclass(frozen=True)
class HardSwish:
    """``x * min(max(x / 6 + 1 / 2, 0), 1)``."""


@dataclass(frozen=True)
class HardSigmoid:
    """``min(max(slope * x + offset, 0), 1)``; ``slope > 0``, ``0 < offset < 1``."""

    slope: float
    offset: float


@dataclass(frozen=True)
class HardTanh:
    """``min(max(x, low), high)``; ``low < 0 < high``, which may be infinite."""

    low: float
    high: float


@dataclass(frozen=True)
class Sigmoid:
    """``1 / (1 + exp(-x))``."""


@dataclass(frozen=True)
class Tanh:
    """Hyperbolic tangent."""


Function = (
    Relu
    | LeakyRelu
    | Elu
    | Softplus
    | Silu
    | Mish
    | Gelu
    | HardSwish
    | HardSigmoid
    | HardTanh
    | Sigmoid
    | Tanh
)


@dataclass(frozen=True)
class FloatActivation:
    """A function of every element."""

    name: str
    source: str
    function: Function


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


@dataclass(frozen=True)
class FloatConcat:
    """The channels of ``sources`` one after another."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class FloatMultiply:
    """``source``, ``(C, H, W)``, times ``gate``, ``(C, 1, 1)``."""

    name: str
    source: str
    gate: str


@dataclass(frozen=True, eq=False)
class FloatEmbedding:
    """``constant`` (``float[C, H, W]``) plus the source's pixels, row by row, as its last ones.

    As many pixels as the source has: a position embedding; more: class tokens before the pixels.
    """

    name: str
    source: str
    constant: FloatArray


@dataclass(frozen=True, eq=False)
class FloatLayerNorm:
    """Every pixel's channels, normalized, times ``scale`` plus ``bias`` (``float[C]`` each)."""

    name: str
    source: str
    scale: FloatArray
    bias: FloatArray
    epsilon: float


@dataclass(frozen=True)
class FloatMatMul:
    """Product of two tensors, head by head, times ``scale``; heads are ``groups`` runs of channels.

    If ``sums_channels``, output channel u of a head is the product of the source's channels and the
    operand's channels at pixel u (``q @ k.T``); if not, output channel d is the product of the
    source's channels and the operand's pixels of channel d (``p @ v``). Pixels are the source's.
    """

    name: str
    source: str
    operand: str
    groups: int
    sums_channels: bool
    scale: float = 1.0


@dataclass(frozen=True)
class FloatSoftmax:
    """Softmax over each of ``groups`` runs of channels."""

    name: str
    source: str
    groups: int


FloatNode = (
    FloatConv
    | FloatActivation
    | FloatAdd
    | FloatShortcut
    | FloatMaxPool
    | FloatAveragePool
    | FloatConcat
    | FloatMultiply
    | FloatEmbedding
    | FloatLayerNorm
    | FloatMatMul
    | FloatSoftmax
)


def sources(node: FloatNode) -> tuple[str, ...]:
    """Names of the tensors that a node reads."""
    match node:
        case FloatAdd() | FloatConcat():
            return node.sources
        case FloatMultiply():
            return node.source, node.gate
        case FloatMatMul():
            return node.source, node.operand
        case _:
            return (node.source,)


def with_source(node: FloatNode, old: str, new: str) -> FloatNode:
    """Let a node read ``new`` where it reads ``old``."""

    def swapped(name: str) -> str:
        return new if name == old else name

    match node:
        case FloatAdd():
            left, right = map(swapped, node.sources)
            return replace(node, sources=(left, right))
        case FloatConcat():
            return replace(node, sources=tuple(map(swapped, node.sources)))
        case FloatMultiply():
            return replace(node, source=swapped(node.source), gate=swapped(node.gate))
        case FloatMatMul():
            return replace(node, source=swapped(node.source), operand=swapped(node.operand))
        case _:
            return replace(node, source=swapped(node.source))


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """A network as trained, nodes in topological order; a tensor bears the name of its node.

    ``shapes`` gives ``(C, H, W)`` of the input tensor (named ``INPUT``) and of every node's output.
    ``layout`` is how the ONNX network takes its input; without an H there, H is 1, and F is C.
    ``notes`` are sentences for the user about what the import dropped or rewrote. ``integers`` is
    the type of an input that takes the sensor's integers as they are; ``None``: it takes floats.
    """

    name: str
    sha256: str
    layout: Layout
    nodes: tuple[FloatNode, ...]
    shapes: dict[str, tuple[int, int, int]]
    output: str
    notes: tuple[str, ...] = ()
    integers: Integers | None = None
