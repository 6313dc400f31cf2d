"""The network as integers: ``QuantGraph``, the hub that golden, gateware and reports read.

Records are frozen, validated once on construction, and never checked again. ``docs/semantics.md``
says what the integers mean. The records of attention are in ``hwquant/ir_attention.py``, tensors
and what makes them in ``hwquant/ir_tensor.py``, where a network comes from in
``hwquant/provenance.py``; all of them are imported from here.
"""

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from hwquant.errors import BadInput
from hwquant.ir_attention import AttentionLayer, EmbeddingLayer, LayerNormLayer, MatMulLayer
from hwquant.ir_attention import SoftmaxLayer as SoftmaxLayer
from hwquant.ir_tensor import (
    INPUT,
    IntArray,
    Pads,
    Pair,
    Saturate,
    Staircase,
    Tensor,
)
from hwquant.ir_tensor import Activation as Activation
from hwquant.ir_tensor import FloatArray as FloatArray
from hwquant.ir_tensor import Guess as Guess
from hwquant.ir_tensor import Layout as Layout
from hwquant.ir_tensor import PowerNewton as PowerNewton
from hwquant.ir_tensor import PowerPade as PowerPade
from hwquant.ir_tensor import PowerTable as PowerTable
from hwquant.ir_tensor import Slopes as Slopes
from hwquant.ir_tensor import Thresholds as Thresholds
from hwquant.ir_tensor import Window as Window
from hwquant.provenance import Provenance
from hwquant.provenance import WeightStatistics as WeightStatistics

MAX_SKIP_SHIFT = 31
MAX_GATED_BITS = 42  # of a gated accumulator: golden holds it times a multiplier in 64 bits


@dataclass(frozen=True, eq=False)
class ProductTable:
    """``products[|qw|, qx]`` is the product of two codes, power undone; ``int[Lw + 1, Lx + 1]``.

    Those of weight 0 are 0: places without a channel have that weight and any code.
    """

    products: IntArray

    def __post_init__(self) -> None:
        if self.products[0].any():
            raise BadInput("ProductTable: products of weight 0 must be 0")


@dataclass(frozen=True, eq=False)
class LevelTables:
    """Each operand is decoded alone, ``int[Lw + 1]`` and ``int[Lx + 1]``, then multiplied."""

    weight_levels: IntArray
    act_levels: IntArray

    def __post_init__(self) -> None:
        if self.weight_levels[0]:
            raise BadInput("LevelTables: the level of weight 0 must be 0")


Arithmetic = ProductTable | LevelTables


@dataclass(frozen=True, eq=False)
class Residual:
    """A second operand, added before the activation in the units of ``multiplier`` (``int[M]``).

    Output channel ``m`` at pixel ``(y, x)`` takes channel ``m - channel_offset`` of ``source`` at
    ``(y * stride[0], x * stride[1])``, and 0 where that channel does not exist. Values are shifted
    left by ``value_shift``, so that one weighs about what a product weighs.
    """

    source: str
    stride: Pair
    channel_offset: int
    multiplier: IntArray
    value_shift: int = 0


@dataclass(frozen=True, eq=False)
class Gate:
    """A second operand of one pixel, ``C = M``, that multiplies (squeeze and excite).

    Output channel ``m`` is ``(acc + offset[m]) * gate[m]`` before ``multiplier``. ``gated_bits`` is
    the proved bound of that product, and of ``acc + offset`` alone, which is what a gate of 1 is.
    """

    source: str
    offset: IntArray
    gated_bits: int


@dataclass(frozen=True, eq=False)
class MacLayer:
    """Convolution, fully connected layer or average pool on the MAC array.

    ``weights`` are signed codes ``int[PW, M, C / groups, KH, KW]``, ``PW`` digits; with ``shared``
    the last two axes are 1 and every position of ``kernel`` uses the same weights (average pooling
    folded in). Of ``groups`` equal runs of output channels each reads its own run of input
    channels; ``groups = C = M`` is a depthwise layer.
    ``multiplier`` and ``bias`` are ``int[M]``. ``acc_bits`` and ``value_bits`` are proved bounds.
    ``activation`` is ``None`` in the last layer alone, whose outputs are the values themselves.
    At most one of ``residual`` and ``gate`` is there.

    Raises
    ------
    BadInput
        If it has both, channels that ``groups`` does not divide, a negative multiplier, or a gate
        of too many bits.
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
    activation: Staircase | None
    acc_bits: int
    value_bits: int
    output: Tensor
    groups: int = 1
    gate: Gate | None = None

    def __post_init__(self) -> None:
        channels_out = self.weights.shape[1]
        if self.groups < 1 or channels_out % self.groups:
            raise BadInput(f"{self.name}: {channels_out} channels in groups={self.groups}")
        if (self.multiplier < 0).any() or (self.residual and (self.residual.multiplier < 0).any()):
            raise BadInput(f"{self.name}: a negative multiplier; the lanes' have no sign")
        if self.gate is None:
            return
        if self.residual is not None:
            raise BadInput(f"{self.name}: a residual and a gate; at most one of them")
        if not 2 <= self.gate.gated_bits <= MAX_GATED_BITS:
            raise BadInput(
                f"{self.name}: gated_bits={self.gate.gated_bits}; permitted 2..{MAX_GATED_BITS}"
            )

    @property
    def channels_in(self) -> int:
        """Channels of the source."""
        return self.weights.shape[2] * self.groups

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads the input channel of its own number."""
        return self.groups > 1 and self.weights.shape[1:3] == (self.groups, 1)

    @property
    def operand(self) -> str | None:
        """The tensor that the residual or the gate reads, if there is one."""
        given = self.residual or self.gate
        return given.source if given else None

    def inputs(self) -> IntArray:
        """Return the input channels that each output channel reads, ``int[M, C / groups]``."""
        channels_out, each = self.weights.shape[1:3]
        group = np.arange(channels_out, dtype=np.int64) // (channels_out // self.groups)
        return group[:, np.newaxis] * each + np.arange(each, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class MaxPoolLayer:
    """Maximum of codes over a window; the output's codes have the source's digits."""

    name: str
    source: str
    kernel: Pair
    stride: Pair
    pads: Pads
    output: Tensor


@dataclass(frozen=True, eq=False)
class ConcatLayer:
    """The channels of several tensors, one tensor after the other.

    Costs nothing in hardware: the sources are written where the whole lies. A tensor is therefore a
    part of one whole only, but a concat may be part of another.

    Raises
    ------
    BadInput
        If it has fewer than two sources, or the network's input among them.
    """

    name: str
    sources: tuple[str, ...]
    output: Tensor

    def __post_init__(self) -> None:
        if len(self.sources) < 2 or INPUT in self.sources:
            raise BadInput(
                f"{self.name}: concat of {', '.join(self.sources)}; "
                "needs two tensors or more, and not the network's input"
            )


Layer = MacLayer | MaxPoolLayer | ConcatLayer | AttentionLayer


def is_truncated(source: str, groups: int, digits: Pair) -> bool:
    """Whether a MAC layer leaves out the products of last digits, which are the least.

    ``digits`` are those that it has of a weight and reads of a code. So it is of pixels, if both
    are several and every output channel reads all inputs.
    """
    return source == INPUT and groups == 1 and min(digits) > 1


def passes(source: str, groups: int, digits: Pair) -> int:
    """Return how often a MAC layer passes the array: once for each product of digits."""
    return digits[0] * digits[1] - is_truncated(source, groups, digits)


def sources_of(layer: Layer) -> tuple[str, ...]:
    """Return the names of the tensors that a layer reads."""
    match layer:
        case MacLayer():
            return (layer.source,) if layer.operand is None else (layer.source, layer.operand)
        case MaxPoolLayer():
            return (layer.source,)
        case ConcatLayer():
            return layer.sources
        case EmbeddingLayer() | LayerNormLayer() | SoftmaxLayer():
            return (layer.source,)
        case MatMulLayer():
            return layer.source, layer.operand
        case _:
            assert_never(layer)


@dataclass(frozen=True, eq=False)
class InputCodes:
    """The sensor's integers and their codes.

    A pixel has ``C`` integers ``x`` in ``low .. low + 2**bits - 1``. Channel ``d * C + c`` of the
    tensor has packed code ``tables[d, x[c] - low]``; ``tables`` is ``int[D, 2**bits]``.
    """

    bits: int
    low: int
    tables: IntArray
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of a frame of pixels."""
        return self.tensor.channels // len(self.tables), self.tensor.height, self.tensor.width


@dataclass(frozen=True, eq=False)
class QuantGraph:
    """A network of integers: everything that golden and gateware need.

    ``part_shift`` is the weight, as a power of two, of one digit of an expanded code over the next.
    ``skip_levels`` (``int[Lx + 1]``) decodes a digit of a residual or a gate. The two digits of a
    detailed one stand for the sum of their entries in ``detail_tables`` (``int[2, Lx + 1]``), of
    which those of the second may be negative. The level of a residual, but not of a gate, is
    shifted left by ``skip_shift`` before its multiplier.

    Raises
    ------
    BadInput
        Naming the layer or the field, if a layer's source, gate or digits are not what it needs, a
        table has not the digits' size, or a detailed code stands for less than 0.
    """

    weight_bits: int
    act_bits: int
    part_shift: int
    arithmetic: Arithmetic
    skip_levels: IntArray
    detail_tables: IntArray
    skip_shift: int
    input: InputCodes
    layers: tuple[Layer, ...]
    provenance: Provenance

    def __post_init__(self) -> None:
        codes = 1 << self.act_bits
        if self.skip_levels.shape != (codes,) or self.detail_tables.shape != (2, codes):
            shapes = f"{self.skip_levels.shape} and {self.detail_tables.shape}"
            raise BadInput(f"skip_levels and detail_tables of {shapes}; act_bits={self.act_bits}")
        if not 0 <= self.skip_shift <= MAX_SKIP_SHIFT:
            raise BadInput(f"skip_shift={self.skip_shift}; permitted 0..{MAX_SKIP_SHIFT}")
        self._check_details(self.input.tensor, self.input.tables.ravel())
        for layer in self.layers:
            self._check_kinds(layer)
            if isinstance(layer, MacLayer):
                self._check_mac(layer)
            elif isinstance(layer, MaxPoolLayer | ConcatLayer):
                self._check_moved(layer)

    def _check_details(self, tensor: Tensor, codes: IntArray) -> None:
        digits = np.stack([codes >> self.act_bits, codes]) & (1 << self.act_bits) - 1
        levels = self.detail_tables[[[0], [1]], digits].sum(axis=0)
        if tensor.is_detailed and levels.min() < 0:
            raise BadInput(f"{tensor.name}: a code stands for {levels.min()}; permitted 0 and up")

    def _check_kinds(self, layer: Layer) -> None:
        """Refuse codes where a layer reads values, and values where it reads codes."""
        operand = layer.residual.source if isinstance(layer, MacLayer) and layer.residual else None
        reads_values = isinstance(layer, EmbeddingLayer | LayerNormLayer | SoftmaxLayer)
        for source in map(self.tensor, sources_of(layer)):
            if source.name != operand and bool(source.value_bits) != reads_values:
                kinds = ("values", "codes") if reads_values else ("codes", "values")
                raise BadInput(f"{layer.name}: reads {kinds[0]}; {source.name} has {kinds[1]}")
        if isinstance(layer, AttentionLayer):
            layer.check_sources([self.tensor(name) for name in sources_of(layer)])
            made: Staircase | None = layer.activation
        else:
            made = layer.activation if isinstance(layer, MacLayer) else None
        if made is not None and not isinstance(made, Saturate):
            self._check_details(layer.output, np.array(made.codes))
        bits = made.bits if isinstance(made, Saturate) else 0
        if layer.output.value_bits != bits:
            raise BadInput(
                f"{layer.name}: makes values of {bits} bits; its output has "
                f"value_bits={layer.output.value_bits}"
            )

    def _check_mac(self, layer: MacLayer) -> None:
        channels = self.tensor(layer.source).channels
        if layer.channels_in != channels:
            weights = f"weights for {layer.channels_in} channels"
            raise BadInput(f"{layer.name}: {weights}; {layer.source} has {channels}")
        if layer.gate is not None:
            gate, want = self.tensor(layer.gate.source), (layer.output.channels, 1, 1)
            if gate.shape != want:
                raise BadInput(f"{layer.name}: gate of shape {gate.shape}; needs {want}")

    def _check_moved(self, layer: MaxPoolLayer | ConcatLayer) -> None:
        *parts, whole = *map(self.tensor, sources_of(layer)), layer.output
        fits = sum(part.channels for part in parts) == whole.channels
        fits &= {part.kind for part in parts} == {whole.kind}
        if isinstance(layer, ConcatLayer):
            fits &= {part.shape[1:] for part in parts} == {whole.shape[1:]}
        if not fits:
            *given, made = [f"{t.shape} of {t.kind}" for t in (*parts, whole)]
            raise BadInput(f"{layer.name}: {', '.join(given)}; makes no {made}")

    def digits(self, layer: MacLayer) -> Pair:
        """Return how many digits a layer has of a weight and reads of a code."""
        return len(layer.weights), self.tensor(layer.source).read_parts

    def is_truncated(self, layer: MacLayer) -> bool:
        """Whether a layer leaves out the products of last digits."""
        return is_truncated(layer.source, layer.groups, self.digits(layer))

    def tensor(self, name: str) -> Tensor:
        """Return the tensor called ``name`` (``INPUT`` or a layer's)."""
        if name == INPUT:
            return self.input.tensor
        return next(layer.output for layer in self.layers if layer.name == name)
