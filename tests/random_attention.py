"""Random valid networks of integers with the layers of transformers."""

from dataclasses import replace

import numpy as np

from hwquant.ir import (
    EmbeddingLayer,
    IntArray,
    LayerNormLayer,
    MatMulLayer,
    QuantGraph,
    Residual,
    Saturate,
    SoftmaxLayer,
    Staircase,
    Tensor,
    Thresholds,
)
from tests.random_graphs import Drawing, Limits

ACC_BITS = 40  # more than any sum of a network as small as these


class AttentionDrawing(Drawing):
    """A network of blocks of attention, with the stream of residuals as values."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng, Limits(layers=1, channels=6, size=4))
        self.bits = int(rng.integers(6, 17))

    def draw(self) -> QuantGraph:
        heads, size = (int(n) for n in self.rng.integers(1, 4, 2))
        channels = heads * size
        stream = self.embedding(self.linear("patches", self.tensors[0], channels, is_values=True))
        for block in range(self.rng.integers(1, 3)):
            query, key, value = (
                self.linear(f"{part}{block}", self.layer_norm(f"n{part}{block}", stream), channels)
                for part in "qkv"
            )
            scores = self.mat_mul(f"scores{block}", query, key, heads, sums_channels=True)
            shares = self.softmax(f"shares{block}", scores, heads)
            mixed = self.mat_mul(f"mixed{block}", shares, value, heads, sums_channels=False)
            stream = self.linear(f"out{block}", mixed, channels, is_values=True, skip=stream)
        self.linear("last", self.layer_norm("norm", stream), 3, is_last=True)
        return self.graph()

    def stairs(self, output: Tensor, low: int, high: int) -> Staircase:
        """Draw a staircase with its steps from ``low`` to ``high``."""
        if output.value_bits:
            return Saturate(output.value_bits)
        held = self.held(output)
        thresholds = np.unique(self.rng.integers(low, high + 1, max(1, min(len(held) - 1, 40))))
        codes = self.rng.choice(held, len(thresholds) + 1)
        return Thresholds(tuple(thresholds.tolist()), tuple(codes.tolist()))

    def made(self, name: str, shape: tuple[int, int, int], *, is_values: bool) -> Tensor:
        tensor = self._tensor(name, *shape)
        if is_values:
            return replace(
                tensor,
                parts=1,
                pad_code=0 * tensor.pad_code,
                is_detailed=False,
                value_bits=self.bits,
            )
        return tensor

    def scales(self, count: int) -> IntArray:
        return self.rng.integers(-4000, 4000, count)

    def linear(
        self,
        name: str,
        source: Tensor,
        channels: int,
        *,
        is_values: bool = False,
        skip: Tensor | None = None,
        is_last: bool = False,
    ) -> Tensor:
        window = ((1, 1), (1, 1), (0, 0, 0, 0), (source.height, source.width))
        layer = self.mac(name, source, window=window, channels=channels)
        layer = replace(layer, residual=None, value_bits=ACC_BITS)
        if skip is not None:
            multiplier = self.rng.integers(0, 4000, channels)
            shift = int(self.rng.integers(0, 4))
            residual = Residual(skip.name, (1, 1), 0, multiplier, value_shift=shift)
            layer = replace(layer, residual=residual)
        output = self.made(name, layer.output.shape, is_values=is_values)
        stairs = self.stairs(output, -5000, 5000)
        layer = replace(layer, activation=None if is_last else stairs, output=output)
        return self._add(layer)

    def embedding(self, source: Tensor) -> Tensor:
        first = int(self.rng.integers(0, 3))
        height, width = source.height, source.width
        if first:
            height, width = first + height * width, 1
        output = self.made("embedding", (source.channels, height, width), is_values=True)
        bias = self.rng.integers(-9000, 9000, output.shape)
        multiplier, shift = self.scales(source.channels), int(self.rng.integers(0, 12))
        made = self.stairs(output, 0, 0)
        parts = (source.name, multiplier, bias, shift, made, ACC_BITS, output)
        return self._add(EmbeddingLayer(output.name, *parts))

    def layer_norm(self, name: str, source: Tensor) -> Tensor:
        output = self.made(name, source.shape, is_values=False)
        channels, shift = source.channels, int(self.rng.integers(8, 20))
        reach = 1 << 27 - shift
        epsilon, stairs = int(self.rng.integers(1, 1000)), self.stairs(output, -reach, reach)
        parts = (epsilon, self.scales(channels), self.scales(channels), shift, stairs, ACC_BITS)
        return self._add(LayerNormLayer(name, source.name, *parts, output))

    def mat_mul(
        self, name: str, source: Tensor, operand: Tensor, heads: int, *, sums_channels: bool
    ) -> Tensor:
        count = operand.channels
        if sums_channels:
            count = heads * operand.height * operand.width
        output = self.made(name, (count, *source.shape[1:]), is_values=sums_channels)
        left, right = (
            self.rng.integers(-300, 300, 1 << self.act_bits * part.parts)
            for part in (source, operand)
        )
        shift = int(self.rng.integers(0, 10))
        reach = 1 << 27 - shift
        layer = MatMulLayer(
            name=name,
            source=source.name,
            operand=operand.name,
            groups=heads,
            sums_channels=sums_channels,
            source_levels=left,
            operand_levels=right,
            multiplier=self.scales(count),
            bias=self.scales(count),
            shift=shift + 12 * sums_channels,
            activation=self.stairs(output, -reach, reach),
            acc_bits=ACC_BITS,
            value_bits=ACC_BITS + 12,
            output=output,
        )
        return self._add(layer)

    def softmax(self, name: str, source: Tensor, heads: int) -> Tensor:
        output = self.made(name, source.shape, is_values=False)
        bits, first = int(self.rng.integers(0, 6)), int(self.rng.integers(3, 21))
        count = 1 << bits
        table = np.round(2.0 ** (first - np.arange(count) / count)).astype(np.int64)
        one = int(self.rng.integers(1, 1 << 17))
        parts = (heads, table, one, self.stairs(output, 0, one), ACC_BITS, output)
        return self._add(SoftmaxLayer(name, source.name, *parts))


def random_attention(rng: np.random.Generator) -> QuantGraph:
    """Draw a transformer of one or two blocks, of codes of one and two digits."""
    return AttentionDrawing(rng).draw()
