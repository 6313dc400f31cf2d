"""Random valid networks of integers, for every law that holds of all of them."""

import math
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np

from hwquant.ir import (
    INPUT,
    MAX_GATED_BITS,
    Activation,
    ConcatLayer,
    Gate,
    Guess,
    InputCodes,
    IntArray,
    Layer,
    LevelTables,
    MacLayer,
    MaxPoolLayer,
    Pads,
    Pair,
    ProductTable,
    Provenance,
    QuantGraph,
    Residual,
    Tensor,
    Thresholds,
    WeightStatistics,
)
from tests.random_numbers import Numbers
from tests.random_units import KINDS, random_guess

MAX_GUESSED = 1 << 14  # the farthest step of a unit that guesses

PROVENANCE = Provenance(
    model="random",
    model_sha256="",
    hwquant="test",
    method="power",
    exponent=0.7,
    act_exponent=0.5,
    weight_bits=4,
    act_bits=4,
    edge_bits=8,
    accumulate="product",
    product_bits=7,
    activation="thresholds",
    mean=(0.0,),
    std=(1.0,),
    seconds=0.1,
    layout="NCHW",
    rounding="second_order",
    ranges="reach",
    equalize=False,
    search="weights",
    levels="rounded",
    norm=math.inf,
    weights=(WeightStatistics("conv", 27, 0.25, -0.5, 3.125),),
)
Window = tuple[Pair, Pair, Pads, Pair]  # kernel, stride, pads, output's extent
MAX_WIDE_TENSOR_BITS = 8  # of a packed code of two digits


@dataclass(frozen=True)
class Limits:
    """Largest networks to draw: small ones for RTL simulation, larger ones for golden alone."""

    layers: int = 6
    channels: int = 9
    size: int = 9  # rows and columns of the input
    kernel: int = 4
    input_bits: int = 8


def random_graph(rng: np.random.Generator, limits: Limits = Limits()) -> QuantGraph:
    """Draw a network of every kind of layer, of one and two digits."""
    draw = Drawing(rng, limits)
    for index in range(rng.integers(1, limits.layers + 1)):
        kind = rng.random()
        if kind < 0.15:
            draw.concats(f"layer{index}")
        elif kind < 0.3:
            draw.gated(f"layer{index}")
        else:
            draw.layer(f"layer{index}")
    draw.last_layer()
    return draw.graph()


def random_images(rng: np.random.Generator, graph: QuantGraph, count: int) -> IntArray:
    """Draw what the sensor may deliver, ``int64[N, C, H, W]``, both ends of its range included."""
    shape = (count, *graph.input.shape)
    top = 1 << graph.input.bits
    images = rng.integers(0, top, shape)
    ends = rng.integers(0, 2, shape) * (top - 1)
    return np.where(rng.random(shape) < 0.2, ends, images) + graph.input.low


def graphs_equal(a: object, b: object) -> bool:
    """Compare two records field by field, arrays by type, shape and content."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(graphs_equal, a, b))
    if is_dataclass(a):
        return all(graphs_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


class Drawing(Numbers):
    """A network in the making: the numbers that all layers share, and the tensors so far."""

    def __init__(self, rng: np.random.Generator, limits: Limits, size: Pair | None = None) -> None:
        super().__init__(rng)
        self.limits = limits
        height, width = (int(n) for n in rng.integers(1, limits.size + 1, 2))
        if rng.random() < 0.1:
            height, width = 1, 4 * width
        channels = int(rng.integers(1, 5))
        self.tensors = [self._tensor(INPUT, channels, *(size or (height, width)))]
        bits = int(rng.integers(1, limits.input_bits + 1))
        low = int(rng.choice([0, -(1 << bits - 1)]))
        digits = int(rng.choice([d for d in range(1, channels + 1) if channels % d == 0]))
        tables = np.sort(rng.choice(self.held(self.tensors[0]), (digits, 1 << bits)))
        self.input = InputCodes(bits, low, tables, self.tensors[0])
        self.layers: list[Layer] = []

    def graph(self) -> QuantGraph:
        return QuantGraph(
            weight_bits=self.weight_bits,
            act_bits=self.act_bits,
            part_shift=self.part_shift,
            arithmetic=self.arithmetic,
            skip_levels=self.skip_levels,
            detail_tables=self.detail_tables,
            skip_shift=self.skip_shift,
            input=self.input,
            layers=tuple(self.layers),
            provenance=PROVENANCE,
        )

    def layer(self, name: str) -> None:
        source = self._recent()
        if self.rng.random() < 0.2:
            self._add(self._max_pool(name, source))
            return
        self.add_mac(self.mac(name, source, shared=bool(self.rng.random() < 0.2)))

    def concats(self, name: str) -> None:
        """Add layers of one extent and their concat; then, at times, grow it by another layer."""
        source = self._recent()
        window = self._window(source)
        like = source if self.rng.random() < 0.5 else self._tensor("", 1, 1, 1)
        parts = [
            self.add_mac(self.mac(f"{name}{at}", source, window=window, like=like))
            for at in "abc"[: self.rng.integers(2, 4)]
        ]
        if source.name != INPUT and source.kind == like.kind and self.rng.random() < 0.5:
            output = self._pooled(f"{name}p", source, window)
            self._add(MaxPoolLayer(output.name, source.name, *window[:3], output))
            parts.append(output)
        whole = self.concat(name, parts)
        while self.rng.random() < 0.5:
            same = ((1, 1), (1, 1), (0, 0, 0, 0), (whole.height, whole.width))
            grown = self.add_mac(self.mac(f"{whole.name}n", whole, window=same, like=like))
            whole = self.concat(f"{whole.name}w", [whole, grown])

    def concat(self, name: str, parts: list[Tensor]) -> Tensor:
        """Add the concat of tensors of one extent and one kind of codes."""
        channels = sum(part.channels for part in parts)
        pad_code = self.pad_code(parts[0].parts, channels)
        output = replace(parts[0], name=name, channels=channels, pad_code=pad_code)
        return self._add(ConcatLayer(name, tuple(part.name for part in parts), output))

    def gated(self, name: str) -> None:
        """Add squeeze and excite: a gate drawn from the whole image, and a layer that takes it."""
        source = self._recent()
        size = (source.height, source.width)
        all_of_it = (size, (1, 1), (0, 0, 0, 0), (1, 1))
        squeezed = self.mac(f"{name}s", source, shared=True, window=all_of_it)
        gate = self.add_mac(squeezed)
        layer = self.mac(name, source, gate=gate)
        if layer.output.channels != gate.channels:
            gate = self.add_mac(self.mac(f"{name}e", gate, channels=layer.output.channels))
            layer = self.mac(name, source, gate=gate)
        self.add_mac(layer)

    def _recent(self) -> Tensor:
        at = self.rng.integers(max(0, len(self.tensors) - 2), len(self.tensors))
        return self.tensors[int(at)]

    def add_mac(self, layer: MacLayer) -> Tensor:
        return self._add(replace(layer, activation=self._activation(layer)))

    def last_layer(self) -> None:
        layer = self.mac("last", self.tensors[-1], shared=bool(self.rng.random() < 0.5))
        zero = np.zeros(layer.output.channels, np.int64)
        output = replace(layer.output, parts=1, pad_code=zero, is_detailed=False)
        self._add(replace(layer, output=output))

    def _add(self, layer: Layer) -> Tensor:
        self.layers.append(layer)
        self.tensors.append(layer.output)
        return layer.output

    def _tensor(self, name: str, channels: int, height: int, width: int) -> Tensor:
        widest = 2 if 2 * self.act_bits <= MAX_WIDE_TENSOR_BITS else 1
        parts = int(self.rng.integers(1, widest + 1))
        is_detailed = parts == 2 and bool(self.rng.random() < 0.5)
        pad_code = self.pad_code(parts, channels)
        return Tensor(name, channels, height, width, parts, pad_code, is_detailed)

    def _window(self, source: Tensor) -> Window:
        """Draw kernel, stride and pads, and return the output's extent after them."""
        size = (source.height, source.width)
        kernel = [int(k) for k in self.rng.integers(1, self.limits.kernel + 1, 2)]
        stride = [int(s) for s in self.rng.integers(1, 4, 2)]
        if self.rng.random() < 0.2:
            kernel = [min(k, self.limits.kernel * 2) for k in size]
        before = [int(self.rng.integers(0, k)) for k in kernel]
        after = [int(self.rng.integers(0, k)) for k in kernel]
        for axis in range(2):
            if size[axis] + before[axis] + after[axis] < kernel[axis]:
                after[axis] = kernel[axis] - 1
        total = (n + b + a - k for n, b, a, k in zip(size, before, after, kernel, strict=True))
        out = tuple(t // s + 1 for t, s in zip(total, stride, strict=True))
        pads = (before[0], before[1], after[0], after[1])
        return (kernel[0], kernel[1]), (stride[0], stride[1]), pads, (out[0], out[1])

    def _max_pool(self, name: str, source: Tensor) -> MaxPoolLayer:
        window = self._window(source)
        output = self._pooled(name, source, window)
        return MaxPoolLayer(name, source.name, *window[:3], output)

    def _pooled(self, name: str, source: Tensor, window: Window) -> Tensor:
        height, width = window[3]
        pad_code = self.pad_code(source.parts, source.channels)
        return replace(source, name=name, height=height, width=width, pad_code=pad_code)

    def _groups(self, source: Tensor) -> tuple[int, int]:
        """Draw groups and output channels: dense, depthwise, or something between."""
        rng, most = self.rng, self.limits.channels
        kind = rng.random()
        if kind < 0.6:
            return 1, int(rng.integers(1, most + 1))
        if kind < 0.85:
            return source.channels, source.channels
        groups = int(rng.choice([g for g in range(1, most) if source.channels % g == 0]))
        return groups, groups * int(rng.integers(1, most // groups + 2))

    def mac(
        self,
        name: str,
        source: Tensor,
        *,
        shared: bool = False,
        window: Window | None = None,
        channels: int | None = None,
        gate: Tensor | None = None,
        like: Tensor | None = None,
        is_depthwise: bool = False,
    ) -> MacLayer:
        """Draw a layer without activation, with its bounds; its codes are like those of ``like``.

        Without ``channels``, ``like`` and ``is_depthwise`` those are drawn too.
        """
        rng = self.rng
        kernel, stride, pads, (height, width) = window or self._window(source)
        groups, channels_out = self._groups(source)
        if gate is not None and channels_out != gate.channels:
            channels = gate.channels
        if channels is not None:
            groups, channels_out = 1, channels
        if is_depthwise:
            groups = channels_out = source.channels
        output = self._tensor(name, channels_out, height, width)
        if like is not None:
            pad_code = self.pad_code(like.parts, channels_out)
            kind = (like.parts, pad_code, like.is_detailed)
            output = Tensor(name, channels_out, height, width, *kind)
        parts = int(rng.integers(1, 3))
        each = source.channels // groups
        shape = (parts, output.channels, each, *((1, 1) if shared else kernel))
        weights = rng.integers(-self.weight_top, self.weight_top + 1, shape)
        weights[rng.random(shape) < 0.2] = 0
        residual = None if gate else self._residual(source, output)
        layer = MacLayer(
            name=name,
            source=source.name,
            weights=weights,
            kernel=kernel,
            shared=shared,
            stride=stride,
            pads=pads,
            multiplier=rng.integers(0, 1 << rng.integers(1, 12), output.channels),
            bias=rng.integers(-5000, 5000, output.channels),
            shift=int(rng.integers(0, 12)),
            residual=residual,
            activation=None,
            acc_bits=0,
            value_bits=0,
            output=output,
            groups=groups,
            gate=gate and Gate(gate.name, rng.integers(-50, 50, output.channels), MAX_GATED_BITS),
        )
        return self._bounded(layer, source, gate)

    def _residual(self, source: Tensor, output: Tensor) -> Residual | None:
        """Draw an earlier tensor that has the output's extent after a stride, if there is one."""
        choices = [
            (tensor, (sv, sh))
            for tensor in self.tensors
            for sv in range(1, 4)
            for sh in range(1, 4)
            if tensor.name != source.name
            and tensor.channels <= output.channels
            and -(-tensor.height // sv) == output.height
            and -(-tensor.width // sh) == output.width
        ]
        if not choices or self.rng.random() < 0.2:
            return None
        tensor, stride = choices[int(self.rng.integers(len(choices)))]
        offset = int(self.rng.integers(0, output.channels - tensor.channels + 1))
        multiplier = self.rng.integers(0, 4000, output.channels)
        return Residual(tensor.name, stride, offset, multiplier)

    def _bounded(self, layer: MacLayer, source: Tensor, gate: Tensor | None) -> MacLayer:
        """Prove the bounds of a layer: those of its accumulators, its gated ones and its values."""
        match self.arithmetic:
            case ProductTable(products):
                largest = products[:, -1]
            case LevelTables(weight_levels, act_levels):
                largest = weight_levels * act_levels[-1]
        place = 1 << self.part_shift
        scale = np.array([place**i for i in range(len(layer.weights))][::-1])
        worst = largest[np.abs(layer.weights)] * scale.reshape(-1, 1, 1, 1, 1)
        full = sum(place**j for j in range(1 if source.is_detailed else source.parts))
        window = layer.kernel[0] * layer.kernel[1] if layer.shared else 1
        low, high = (
            sign
            * full
            * window
            * np.where(np.sign(layer.weights) == sign, worst, 0).sum(axis=(0, 2, 3, 4))
            for sign in (-1, 1)
        )
        layer = replace(layer, acc_bits=_signed_bits(low, high))
        if gate is not None and layer.gate is not None:
            top = self._skip_top(gate)
            low, high = low + layer.gate.offset, high + layer.gate.offset
            bits = _signed_bits(low * max(1, top), high * max(1, top))
            if bits > MAX_GATED_BITS:
                return self._bounded(replace(layer, gate=None), source, None)
            low, high = np.minimum(low * top, 0), np.maximum(high * top, 0)
            layer = replace(layer, gate=replace(layer.gate, gated_bits=max(2, bits)))
        skip = np.zeros(1, np.int64)
        if layer.residual is not None:
            tensor = next(t for t in self.tensors if t.name == layer.residual.source)
            skip = layer.residual.multiplier * (self._skip_top(tensor) << self.skip_shift)
        constant = layer.bias + (1 << layer.shift >> 1)
        low = (constant + low * layer.multiplier) >> layer.shift
        high = (constant + high * layer.multiplier + skip) >> layer.shift
        return replace(layer, value_bits=_signed_bits(low, high))

    def _skip_top(self, tensor: Tensor) -> int:
        """Return the largest level of a residual or gate."""
        return int(self.levels(tensor, self.held(tensor)).max())

    def _activation(self, layer: MacLayer) -> Activation:
        rng, held = self.rng, self.held(layer.output)
        reach = 1 << max(2, layer.value_bits - 1 - int(rng.integers(1, 4)))
        if rng.random() < 0.4:
            octaves = reach.bit_length() - 1
            per_octave = int(rng.integers(1, min(4, octaves)))
            count = (octaves - per_octave + 1) << per_octave
            return _guess(np.sort(rng.choice(held, count)), min(reach, MAX_GUESSED))
        thresholds = np.unique(rng.integers(-reach // 2, reach, max(1, len(held) - 1)))
        codes = np.sort(rng.choice(held, len(thresholds) + 1))
        if rng.random() < 0.2:  # SiLU and GELU fall before they rise
            codes[: len(codes) // 2] = codes[: len(codes) // 2][::-1].copy()
        return Thresholds(tuple(thresholds.tolist()), tuple(codes.tolist()))


def _guess(codes: IntArray, reach: int) -> Guess:
    """Draw a unit that guesses from numbers of its own, the same for the same codes."""
    rng = np.random.default_rng([len(codes), reach, int(codes.sum())])
    count = min(len(codes), reach) - 1
    thresholds = np.sort(rng.choice(reach + reach // 2, count, replace=False)) - reach // 2
    steps = Thresholds(tuple(thresholds.tolist()), tuple(codes[: count + 1].tolist()))
    return random_guess(rng, str(rng.choice(KINDS)), steps)


def _signed_bits(low: IntArray, high: IntArray) -> int:
    return int(max(np.abs(low).max(), np.abs(high).max())).bit_length() + 1
