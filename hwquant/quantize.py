"""The data-free quantizer: ``FloatGraph`` and ``QuantConfig`` in, ``QuantGraph`` out."""

import math
import time
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import numpy as np

from hwquant import __version__, activation
from hwquant.edges import edge_layers, wide_tensors
from hwquant.errors import BadInput, UnsupportedModel
from hwquant.exponent import (
    HIGHEST,
    LOWEST,
    Search,
    Site,
    find_exponent,
    noise_to_signal,
    weight_error,
)
from hwquant.float_graph import FloatGraph, Relu
from hwquant.ir import (
    INPUT,
    Arithmetic,
    FloatArray,
    InputCodes,
    Layer,
    MaxPoolLayer,
    Provenance,
    QuantGraph,
    Tensor,
)
from hwquant.lower import FloatCat, FloatLayer, FloatMac, FloatMax, lower
from hwquant.moments import Spread, spreads
from hwquant.power import (
    Grid,
    Method,
    activation_codebook,
    choose_part_shift,
    level_tables,
    product_table,
    skip_levels,
    weight_codebook,
)
from hwquant.ranges import Coding, pixel_coding, tensor_coding
from hwquant.requantize import Numbers, mac_layer, product_matrix

MAX_TABLE_BITS = 10  # weight_bits + act_bits of the largest product table chosen by default
MAX_ACT_PARTS = 2

Accumulate = Literal["product", "levels"]


@dataclass(frozen=True)
class QuantConfig:
    """How to quantize; ``exponent`` and ``accumulate`` ``None`` mean: choose.

    ``search`` is the error that a chosen exponent makes least: that of the ``weights`` alone, as in
    the paper, or the noise of ``both`` operands.

    The network's input is ``(x - mean) / std`` of the sensor's integers x, ``mean`` and ``std`` one
    number or one per channel.

    Raises
    ------
    BadInput
        If a field is out of its range; the message has the range.
    """

    weight_bits: int = 4
    act_bits: int = 4
    edge_bits: int = 8
    method: Method = "power"
    exponent: float | None = None
    search: Search = "both"
    accumulate: Accumulate | None = None
    product_bits: int = 7
    activation: Literal["thresholds", "table"] = "thresholds"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    input_bits: int = 8
    input_signed: bool = False
    bias_correction: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (
            ("weight_bits", 2, 8),
            ("act_bits", 2, 8),
            ("edge_bits", max(self.weight_bits, self.act_bits), 8),
            ("product_bits", 4, 16),
            ("input_bits", 1, 16),
        ):
            value = getattr(self, name)
            _require(low <= value <= high, name, value, f"{low}..{high}")
        for name, choices in (
            ("method", ("power", "uniform", "log")),
            ("search", ("weights", "both")),
            ("accumulate", ("product", "levels", None)),
        ):
            value = getattr(self, name)
            _require(value in choices, name, value, ", ".join(str(c or "auto") for c in choices))
        _require(
            self.activation in ("thresholds", "table"),
            "activation",
            self.activation,
            "thresholds, table; pade and newton are not in this version",
        )
        if self.exponent is not None:
            ranged = LOWEST <= self.exponent <= HIGHEST
            _require(ranged, "exponent", self.exponent, f"{LOWEST}..{HIGHEST}, or auto")
        _require(len(self.mean) > 0, "mean", self.mean, "one number, or one per channel")
        positive = len(self.std) > 0 and all(s > 0 for s in self.std)
        _require(positive, "std", self.std, "positive, one number or one per channel")


def _require(claim: bool, name: str, value: object, permitted: str) -> None:
    if not claim:
        raise BadInput(f"{name}={value}: permitted {permitted}")


def quantize(graph: FloatGraph, config: QuantConfig) -> QuantGraph:
    """Quantize a trained network without data.

    Deterministic: the same graph and configuration give the same integers.

    Raises
    ------
    BadInput
        If ``mean`` or ``std`` does not match the network's input channels.
    UnsupportedModel
        If the network has no layer.

    Source
    ------
    PowerQuant, algorithms 1 and 2, appendix F; Nagel et al. 2019 (ranges and bias correction from
    batch-norm statistics).
    """
    start = time.perf_counter()
    layers = lower(graph)
    build = _Quantizer(graph, config, layers)
    quantized = tuple(build.layer(layer) for layer in layers)
    return QuantGraph(
        weight_bits=config.weight_bits,
        act_bits=config.act_bits,
        part_shift=build.part_shift,
        arithmetic=build.arithmetic,
        skip_levels=build.numbers.skip_levels,
        input=build.input,
        layers=quantized,
        provenance=build.provenance(time.perf_counter() - start),
    )


def exponent_errors(graph: FloatGraph, config: QuantConfig, exponent: float) -> tuple[float, float]:
    """Both errors that a search may make least, at one exponent: of weights, of both operands."""
    build = _Quantizer(graph, replace(config, exponent=exponent), lower(graph))
    return (
        weight_error(build.sites, build.weight_top)(exponent),
        noise_to_signal(build.sites, build.weight_top, build.act_top)(exponent),
    )


class _Quantizer:
    """The choices of one run, and the codings of the tensors so far."""

    def __init__(
        self, graph: FloatGraph, config: QuantConfig, layers: tuple[FloatLayer, ...]
    ) -> None:
        self.graph, self.config = graph, config
        self.edge_parts = min(MAX_ACT_PARTS, math.ceil(config.edge_bits / config.act_bits))
        self.wide, self.edges, self.last = wide_tensors(layers), edge_layers(layers), layers[-1]
        pixels = self._pixel_range()
        self.spreads = spreads(graph, _uniform(*pixels))
        self.weight_top, self.act_top = 2 ** (config.weight_bits - 1) - 1, 2**config.act_bits - 1
        self.sites = self._sites(layers)
        self.exponent = self._choose_exponent()
        self.weight_grid = Grid(config.method, self.exponent, self.weight_top)
        self.act_grid = Grid(config.method, self.exponent, self.act_top)
        self.weight_parts = math.ceil(config.edge_bits / config.weight_bits)
        self.part_shift = choose_part_shift(
            self.weight_grid, self.act_grid, self.weight_parts, self.edge_parts
        )
        self.accumulate = config.accumulate or (
            "product" if config.weight_bits + config.act_bits <= MAX_TABLE_BITS else "levels"
        )
        self.arithmetic = self._arithmetic()
        self.numbers = Numbers(
            product_matrix(self.arithmetic),
            skip_levels(self.act_grid),
            self.part_shift,
            config.bias_correction,
        )
        self.act_books = {
            parts: activation_codebook(self.act_grid, parts, self.part_shift)
            for parts in {1, self.edge_parts}
        }
        self.weight_books = {
            parts: weight_codebook(self.weight_grid, parts, self.part_shift)
            for parts in {1, self.weight_parts}
        }
        self.activations = {
            parts: activation.build(book, config.act_bits, config.activation)
            for parts, book in self.act_books.items()
        }
        self.input, coding = self._input(*pixels)
        self.codings, self.tensors = {INPUT: coding}, {INPUT: self.input.tensor}

    def layer(self, layer: FloatLayer) -> Layer:
        """Turn one layer into integers; its sources are done already."""
        done = self._layer(layer)
        self.tensors[layer.name] = done.output
        return done

    def _layer(self, layer: FloatLayer) -> Layer:
        match layer:
            case FloatMac():
                return self._mac(layer)
            case FloatMax():
                coding = self.codings[layer.source]
                self.codings[layer.name] = coding
                return MaxPoolLayer(
                    name=layer.name,
                    source=layer.source,
                    kernel=layer.kernel,
                    stride=layer.stride,
                    pads=layer.pads,
                    output=self._tensor(layer.name, layer.tensor, coding),
                )
            case FloatCat():
                raise UnsupportedModel(f"{layer.name}: Concat cannot be quantized yet")
            case _:
                assert_never(layer)

    def provenance(self, seconds: float) -> Provenance:
        """Say where the network comes from."""
        config = self.config
        return Provenance(
            model=self.graph.name,
            model_sha256=self.graph.sha256,
            hwquant=__version__,
            method=config.method,
            exponent=self.exponent,
            weight_bits=config.weight_bits,
            act_bits=config.act_bits,
            edge_bits=config.edge_bits,
            accumulate=self.accumulate,
            product_bits=config.product_bits,
            activation=config.activation,
            mean=config.mean,
            std=config.std,
            seconds=seconds,
            layout=self.graph.layout,
        )

    def _mac(self, layer: FloatMac) -> Layer:
        if layer.function is not None and not isinstance(layer.function, Relu):
            raise UnsupportedModel(f"{layer.name}: {layer.function} cannot be quantized yet")
        if layer.gate is not None:
            raise UnsupportedModel(f"{layer.name}: Mul of two tensors cannot be quantized yet")
        book = self.act_books[self.edge_parts if layer.name in self.wide else 1]
        coding = tensor_coding(self.spreads[layer.tensor], book)
        self.codings[layer.name] = coding
        is_last = layer is self.last
        return mac_layer(
            replace(layer, weight=dense(layer.weight, layer.groups), groups=1),
            source=self.codings[layer.source],
            source_tensor=self.tensors[layer.source],
            skip=self.codings[layer.skip.source] if layer.skip else None,
            output=None if is_last else coding,
            tensor=self._tensor(layer.name, layer.tensor, coding),
            weight_book=self.weight_books[self.weight_parts if layer.name in self.edges else 1],
            activation=None if is_last else self.activations[book.parts],
            numbers=self.numbers,
        )

    def _choose_exponent(self) -> float:
        if self.config.method != "power":
            return 1.0
        if self.config.exponent is not None:
            return self.config.exponent
        return find_exponent(self.sites, self.weight_top, self.act_top, self.config.search)

    def _sites(self, layers: tuple[FloatLayer, ...]) -> list[Site]:
        """Layers that the exponent is chosen for: the inner ones, whose codes have one digit."""
        tensors = {INPUT: INPUT} | {layer.name: layer.tensor for layer in layers}
        macs = [layer for layer in layers if isinstance(layer, FloatMac)]
        inner = [mac for mac in macs if mac.name not in self.edges]
        return [
            Site(dense(mac.weight, mac.groups), self.spreads[tensors[mac.source]])
            for mac in inner or macs
        ]

    def _arithmetic(self) -> Arithmetic:
        if self.accumulate == "product":
            return product_table(self.weight_grid, self.act_grid, self.config.product_bits)
        return level_tables(self.weight_grid, self.act_grid)

    def _pixel_range(self) -> tuple[FloatArray, FloatArray]:
        """Real value of the lowest and of the highest pixel, ``float[C]`` each."""
        channels = self.graph.shapes[INPUT][0]
        for name in ("mean", "std"):
            count = len(getattr(self.config, name))
            _require(count in (1, channels), name, f"{count} numbers", f"1 or {channels} of them")
        mean = np.broadcast_to(np.array(self.config.mean, dtype=np.float64), (channels,))
        std = np.broadcast_to(np.array(self.config.std, dtype=np.float64), (channels,))
        return (self._low - mean) / std, (self._low + 2**self.config.input_bits - 1 - mean) / std

    @property
    def _low(self) -> int:
        return -(2 ** (self.config.input_bits - 1)) if self.config.input_signed else 0

    def _input(self, low: FloatArray, high: FloatArray) -> tuple[InputCodes, Coding]:
        bits = self.config.input_bits
        book = self.act_books[self.edge_parts]
        ranks = book.rank(np.linspace(0.0, 1.0, 2**bits))
        coding = pixel_coding(low, high, book, ranks)
        table = book.packed(self.config.act_bits)[ranks]
        tensor = self._tensor(INPUT, INPUT, coding)
        return InputCodes(bits, self._low, table, tensor), coding

    def _tensor(self, name: str, tensor: str, coding: Coding) -> Tensor:
        channels, height, width = self.graph.shapes[tensor]
        pad_code = coding.book.packed(self.config.act_bits)[coding.pad_ranks()]
        return Tensor(name, channels, height, width, coding.book.parts, pad_code)


def dense(weight: FloatArray, groups: int) -> FloatArray:
    """Fill a grouped weight up with zeros: ``float[M, C / groups, ...] -> float[M, C, ...]``."""
    count, channels, *kernel = weight.shape
    blocks = weight.reshape(groups, count // groups, channels, *kernel)
    filled = np.zeros((groups, count // groups, groups, channels, *kernel))
    every = np.arange(groups)
    filled[every, :, every] = blocks
    return filled.reshape(count, groups * channels, *kernel)


def _uniform(low: FloatArray, high: FloatArray) -> Spread:
    """Moments of pixels that are uniform on their range."""
    return Spread((low + high) / 2, (high - low) / math.sqrt(12))
