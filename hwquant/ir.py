"""The records that flow through hwquant: ``FloatGraph`` in, ``QuantGraph`` out.

``FloatGraph`` is the network as trained, reduced to eight kinds of node. ``QuantGraph`` is the
same network as integers; golden, gateware and reports read it and nothing else. Records are
frozen, validated once on construction, and never checked again. ``docs/semantics.md`` says what
the integers of a ``QuantGraph`` mean.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwquant.errors import BadInput

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Pair = tuple[int, int]  # (vertical, horizontal)
Pads = tuple[int, int, int, int]  # (top, left, bottom, right)
Layout = Literal["NCHW", "NHWC", "NCW", "NWC", "NF"]

INPUT = "input"  # the name of the input tensor of every graph

# ---------------------------------------------------------------- the network as trained


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


@dataclass(frozen=True)
class Relu:
    """``min(max(x, 0), ceiling)``; ``ceiling`` is ``None`` for ReLU and 6 for ReLU6."""

    ceiling: float | None


@dataclass(frozen=True)
class LeakyRelu:
    """``x`` where positive, else ``slope * x``; ``0 < slope < 1``."""

    slope: float


@dataclass(frozen=True)
class Silu:
    """``x * sigmoid(x)``."""


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
class Sigmoid:
    """``1 / (1 + exp(-x))``."""


@dataclass(frozen=True)
class Tanh:
    """Hyperbolic tangent."""


Function = Relu | LeakyRelu | Silu | Gelu | HardSwish | HardSigmoid | Sigmoid | Tanh


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


FloatNode = (
    FloatConv
    | FloatActivation
    | FloatAdd
    | FloatShortcut
    | FloatMaxPool
    | FloatAveragePool
    | FloatConcat
    | FloatMultiply
)


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """A network as trained, nodes in topological order; a tensor bears the name of its node.

    ``shapes`` gives ``(C, H, W)`` of the input tensor (named ``INPUT``) and of every node's output.
    ``layout`` is how the ONNX network takes its input; without an H there, H is 1, and F is C.
    ``notes`` are sentences for the user about what the import dropped or rewrote.
    """

    name: str
    sha256: str
    layout: Layout
    nodes: tuple[FloatNode, ...]
    shapes: dict[str, tuple[int, int, int]]
    output: str
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------- the network as integers


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of activation codes in one frame.

    A code has ``parts`` digits of ``act_bits`` bits, the most significant first in value and in
    the packed code ``digit_0 << act_bits | digit_1``. ``pad_code`` (``int[C]``, packed) is the code
    of real zero, read where a window hangs over the image.
    """

    name: str
    channels: int
    height: int
    width: int
    parts: int
    pad_code: IntArray


@dataclass(frozen=True, eq=False)
class ProductTable:
    """``products[|qw|, qx]`` is the product of two codes, power undone; ``int[Lw + 1, Lx + 1]``."""

    products: IntArray


@dataclass(frozen=True, eq=False)
class LevelTables:
    """Each operand is decoded alone, ``int[Lw + 1]`` and ``int[Lx + 1]``, then multiplied."""

    weight_levels: IntArray
    act_levels: IntArray


Arithmetic = ProductTable | LevelTables


@dataclass(frozen=True)
class Thresholds:
    """The staircase ``codes[number of thresholds <= v]``, exact; thresholds strictly increase."""

    thresholds: tuple[int, ...]
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.thresholds) + 1 or not self.thresholds:
            raise BadInput(
                f"Thresholds: {len(self.thresholds)} thresholds need one code more, "
                f"got {len(self.codes)}"
            )
        if any(b <= a for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise BadInput("Thresholds: thresholds must strictly increase")


@dataclass(frozen=True)
class PowerTable:
    """Segmented look-up on leading one and mantissa, for ``0 <= v < 2**value_bits``.

    ``v`` saturates to that range first. Below ``2**mantissa_bits`` the table is addressed by ``v``
    itself; above, with ``e = bit_length(v) - 1 - mantissa_bits``, by
    ``(e << mantissa_bits) + (v >> e)``: each octave has ``2**mantissa_bits`` segments.
    """

    value_bits: int
    mantissa_bits: int
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        want = (self.value_bits - self.mantissa_bits + 1) << self.mantissa_bits
        if not 1 <= self.mantissa_bits < self.value_bits or len(self.codes) != want:
            raise BadInput(
                f"PowerTable: {len(self.codes)} codes for value_bits={self.value_bits}, "
                f"mantissa_bits={self.mantissa_bits}; needs {want}"
            )


Activation = Thresholds | PowerTable


@dataclass(frozen=True, eq=False)
class Residual:
    """A second operand, added before the activation in the units of ``multiplier`` (``int[M]``).

    Output channel ``m`` at pixel ``(y, x)`` takes channel ``m - channel_offset`` of ``source`` at
    ``(y * stride[0], x * stride[1])``, and 0 where that channel does not exist.
    """

    source: str
    stride: Pair
    channel_offset: int
    multiplier: IntArray


@dataclass(frozen=True, eq=False)
class MacLayer:
    """Convolution, fully connected layer or average pool on the MAC array.

    ``weights`` are signed codes ``int[PW, M, C, KH, KW]``, ``PW`` digits; with ``shared`` the last
    two axes are 1 and every position of ``kernel`` uses the same weights (average pooling folded
    in).
    ``multiplier`` and ``bias`` are ``int[M]``. ``acc_bits`` and ``value_bits`` are proved bounds.
    ``activation`` is ``None`` in the last layer alone, whose outputs are the values themselves.
    """

    name: str
    source: str
    weights: IntArray
    kernel: Pair
    shared: bool
    stride: Pair
    pads: Pads
    multiplier: IntArray
    bias: IntArray
    shift: int
    residual: Residual | None
    activation: Activation | None
    acc_bits: int
    value_bits: int
    output: Tensor


@dataclass(frozen=True, eq=False)
class MaxPoolLayer:
    """Maximum of codes over a window."""

    name: str
    source: str
    kernel: Pair
    stride: Pair
    pads: Pads
    output: Tensor


Layer = MacLayer | MaxPoolLayer


@dataclass(frozen=True, eq=False)
class InputCodes:
    """The sensor's integers and their codes.

    Pixel ``x`` in ``low .. low + 2**bits - 1`` has packed code ``table[x - low]``.
    """

    bits: int
    low: int
    table: IntArray
    tensor: Tensor


@dataclass(frozen=True)
class Provenance:
    """Where a quantized network comes from: for reports only, nothing computes with it."""

    model: str
    model_sha256: str
    hwquant: str
    method: str
    exponent: float
    weight_bits: int
    act_bits: int
    edge_bits: int
    accumulate: str
    product_bits: int
    activation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seconds: float
    layout: str


@dataclass(frozen=True, eq=False)
class QuantGraph:
    """A network of integers: everything that golden and gateware need.

    ``part_shift`` is the weight, as a power of two, of one digit of an expanded code over the next.
    ``skip_levels`` (``int[Lx + 1]``) decodes a residual operand's digit.
    """

    weight_bits: int
    act_bits: int
    part_shift: int
    arithmetic: Arithmetic
    skip_levels: IntArray
    input: InputCodes
    layers: tuple[Layer, ...]
    provenance: Provenance

    def tensor(self, name: str) -> Tensor:
        """Return the tensor called ``name`` (``INPUT`` or a layer's)."""
        if name == INPUT:
            return self.input.tensor
        return next(layer.output for layer in self.layers if layer.name == name)
