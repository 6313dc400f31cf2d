"""The layers of transformers, as integers: embeddings, layer norms, products, softmaxes.

Tokens are the pixels of an image, row by row. Every layer ends as a MAC layer does: a value that is
proved to fit ``value_bits`` goes through ``activation``. ``docs/semantics.md`` is normative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwquant.errors import BadInput
from hwquant.ir_tensor import IntArray, Staircase, Tensor

NORM_BITS = 16  # of a normalized deviation's fraction
PROBABILITY_BITS = 56  # of an exponential times ``one``, at most
MAX_SUM_BITS = 62


@dataclass(frozen=True, eq=False)
class EmbeddingLayer:
    """Constants plus the pixels of a tensor of values, row by row, which are the last of them.

    ``multiplier`` is ``int[C]``, ``bias`` ``int[C, OH, OW]``; constants before the first pixel stay
    alone (class token).
    """

    name: str
    source: str
    multiplier: IntArray
    bias: IntArray
    shift: int
    activation: Staircase
    value_bits: int
    output: Tensor

    def check_sources(self, sources: Sequence[Tensor]) -> None:
        """Raise `BadInput` where source and output do not go together."""
        (source,) = sources
        fits = source.channels == self.output.channels
        fits &= source.height * source.width <= self.output.height * self.output.width
        _require(fits and self.bias.shape == self.output.shape, self.name, sources, self.output)


@dataclass(frozen=True, eq=False)
class LayerNormLayer:
    """Every pixel's channels less their mean, over their standard deviation; from values.

    ``epsilon`` is added to the sum of squares; ``multiplier`` and ``bias`` are ``int[C]``, and the
    multiplier may be negative.
    """

    name: str
    source: str
    epsilon: int
    multiplier: IntArray
    bias: IntArray
    shift: int
    activation: Staircase
    value_bits: int
    output: Tensor

    def __post_init__(self) -> None:
        if self.epsilon < 1:
            raise BadInput(f"{self.name}: epsilon={self.epsilon}; permitted 1 and up")

    def check_sources(self, sources: Sequence[Tensor]) -> None:
        """Raise `BadInput` where source and output do not go together, or squares overflow."""
        (source,) = sources
        _require(source.shape == self.output.shape, self.name, sources, self.output)
        # C times the deviations: their squares are the largest where all of the channels' are
        largest = (source.channels**3 << 2 * (source.value_bits - 1)) + self.epsilon
        if largest >> MAX_SUM_BITS:
            raise BadInput(
                f"{self.name}: squares of {source.channels} values of {source.value_bits} bits "
                f"sum up to more than {MAX_SUM_BITS} bits"
            )


@dataclass(frozen=True, eq=False)
class MatMulLayer:
    """Product of two tensors of codes, head by head: a grouped 1x1 layer with a tensor as weights.

    ``groups`` heads are runs of channels in either tensor. If ``sums_channels``, output channel u
    of a head is the product of the source's channels and the operand's channels at pixel u (scores,
    ``q @ k.T``); if not, output channel d is the product of the source's channels and the operand's
    pixels of channel d (mixed values, ``p @ v``). ``source_levels`` and ``operand_levels`` decode
    packed codes, signed, ``int[2**(act_bits * parts)]``; ``multiplier`` and ``bias`` are
    ``int[M]``.
    """

    name: str
    source: str
    operand: str
    groups: int
    sums_channels: bool
    source_levels: IntArray
    operand_levels: IntArray
    multiplier: IntArray
    bias: IntArray
    shift: int
    activation: Staircase
    acc_bits: int
    value_bits: int
    output: Tensor

    def check_sources(self, sources: Sequence[Tensor]) -> None:
        """Raise `BadInput` where source, operand and output do not go together."""
        source, operand = sources
        pixels = operand.height * operand.width
        summed, made = operand.channels, pixels * self.groups
        if not self.sums_channels:
            summed, made = made, summed
        fits = self.groups > 0 and not operand.channels % self.groups
        fits &= source.channels == summed
        fits &= self.output.shape == (made, *source.shape[1:])
        _require(fits, self.name, sources, self.output)
        bits = self.acc_bits + int(np.abs(self.multiplier).max()).bit_length()
        if bits > MAX_SUM_BITS:
            raise BadInput(f"{self.name}: scaled sums of {bits} bits; permitted {MAX_SUM_BITS}")


@dataclass(frozen=True, eq=False)
class SoftmaxLayer:
    """Shares of exponentials, over each of ``groups`` runs of channels; from values.

    A value is a logarithm to base 2 in units of ``1 / len(exponentials)``, a power of two;
    ``exponentials[f]`` is the exponential of ``-f``, scaled so that ``exponentials[0]`` is a power
    of two. A share of 1 is the value ``one``.

    Raises
    ------
    BadInput
        If the table's length or first entry is no power of two, it rises, or ``one`` is too large.
    """

    name: str
    source: str
    groups: int
    exponentials: IntArray
    one: int
    activation: Staircase
    value_bits: int
    output: Tensor

    def __post_init__(self) -> None:
        table = self.exponentials
        powers = len(table).bit_count() == 1 and int(table[0]).bit_count() == 1
        if not powers or (np.diff(table) > 0).any() or table[-1] * 2 < table[0]:
            raise BadInput(f"{self.name}: exponentials must fall from a power of two to its half")
        if not 0 < self.one * int(table[0]) < 1 << PROBABILITY_BITS:
            raise BadInput(
                f"{self.name}: one={self.one} times {table[0]}; permitted {PROBABILITY_BITS} bits"
            )

    def check_sources(self, sources: Sequence[Tensor]) -> None:
        """Raise `BadInput` where source and output do not go together."""
        (source,) = sources
        fits = source.shape == self.output.shape and self.groups > 0
        fits &= not source.channels % max(self.groups, 1)
        _require(fits, self.name, sources, self.output)


AttentionLayer = EmbeddingLayer | LayerNormLayer | MatMulLayer | SoftmaxLayer


def _require(fits: bool, name: str, sources: Sequence[Tensor], output: Tensor) -> None:
    if not fits:
        shapes = " and ".join(str(source.shape) for source in sources)
        raise BadInput(f"{name}: {shapes} make no {output.shape}")
