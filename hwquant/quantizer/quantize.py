"""The data-free quantizer: ``FloatGraph`` and ``QuantConfig`` in, ``QuantGraph`` out.

Two passes over synthetic images. The float pass (`quantizer.calibrate`) finds ranges and means.
Then the layers become integers one after the other, each shown what the layers before it, quantized
already, make of the images: its weights are rounded for those inputs, their scale brings its spread
back to that of the float pass, and its bias the mean.
"""

import time
from collections import Counter
from dataclasses import replace
from typing import assert_never

import numpy as np
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from hwquant import __version__, activation
from hwquant.errors import UnsupportedModel
from hwquant.float_graph import (
    FloatEmbedding,
    FloatGraph,
    FloatLayerNorm,
    FloatMatMul,
    FloatSoftmax,
    Function,
)
from hwquant.functions import evaluate
from hwquant.ir import (
    INPUT,
    Arithmetic,
    AttentionLayer,
    ConcatLayer,
    FloatArray,
    InputCodes,
    Layer,
    MaxPoolLayer,
    Provenance,
    QuantGraph,
    Saturate,
    Tensor,
)
from hwquant.power import (
    Grid,
    activation_codebooks,
    choose_part_shift,
    level_tables,
    product_table,
    value_codebook,
    weight_codebooks,
)
from hwquant.quantizer import attention, synthetic
from hwquant.quantizer.banks import separate
from hwquant.quantizer.budget import losses_of_codes, rescue, spend, with_weights
from hwquant.quantizer.calibrate import (
    Values,
    calibrate,
    channel_mean,
    column,
    covariance,
    gated,
    joined,
    lost_spread,
    operands,
    rearranged,
    skipped,
)
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.digits import edge_digits, edge_layers, factors_of, mac_layers
from hwquant.quantizer.equalize import equalize
from hwquant.quantizer.exponent import START, Site, find_grids, search_errors
from hwquant.quantizer.float_model import attend, read_last
from hwquant.quantizer.lower import FloatAttention, FloatCat, FloatLayer, FloatMac, FloatMax, lower
from hwquant.quantizer.pixels import absorb_scale, choose_pixels
from hwquant.quantizer.ranges import (
    Coding,
    Ranks,
    least_error_range,
    scales_by_channel,
    side_by_side,
    tensor_range,
)
from hwquant.quantizer.requantize import (
    Numbers,
    Operand,
    Output,
    array_sums,
    encode_weights,
    mac_layer,
    rounding_bias,
)
from hwquant.quantizer.statistics import weight_statistics


def quantize(graph: FloatGraph, config: QuantConfig) -> QuantGraph:
    """Quantize a trained network without data.

    Deterministic: the same graph and configuration give the same integers.

    Raises
    ------
    BadInput
        If ``mean`` or ``std``, or the sensor's integers, do not match the network's input.
    UnsupportedModel
        If the network has no layer, or a gate that may be negative.

    Source
    ------
    PowerQuant, algorithms 1 and 2, appendix F; Nagel et al. 2019 (ranges from batch-norm
    statistics, section 4.2: bias correction). Differs: the bias is corrected by what the quantized
    layers make of synthetic images.
    """
    start = time.perf_counter()
    # many small products: threads wait for each other longer than they compute
    with threadpool_limits(limits=1, user_api="blas"):
        build = _Quantizer(graph, config)
        quantized = tuple(build.layer(layer) for layer in build.layers)
    packed = {kind: book.packed(config.act_bits) for kind, book in build.act_books.items()}
    codes = {name: packed[kind] for name, kind in build.digits.codes.items()}
    return QuantGraph(
        weight_bits=config.weight_bits,
        act_bits=config.act_bits,
        part_shift=build.part_shift,
        arithmetic=build.arithmetic,
        skip_levels=build.numbers.skip_levels,
        detail_tables=build.numbers.detail_tables,
        skip_shift=build.numbers.skip_shift,
        input=build.input,
        layers=activation.choose_units(quantized, config.activation, config.max_code_error, codes),
        provenance=build.provenance(time.perf_counter() - start),
    )


def exponent_errors(graph: FloatGraph, config: QuantConfig, exponent: float) -> dict[str, float]:
    """Errors that a search may make least, at one exponent."""
    build = _Quantizer(graph, replace(config, exponent=exponent))
    return search_errors(build.sites, build.weight_grid, build.act_grid, config.norm)


def search_sites(graph: FloatGraph, config: QuantConfig) -> list[Site]:
    """Layers that `quantize` would choose the exponents for."""
    return _Quantizer(graph, replace(config, exponent=START, levels="rounded")).sites


class _Quantizer:
    """The choices of one run, and what the layers so far make of the synthetic images."""

    def __init__(self, graph: FloatGraph, config: QuantConfig) -> None:
        graph, low, high = absorb_scale(graph, *config.pixel_range(graph))
        graph = equalize(graph) if config.equalize else graph
        layers = separate(lower(graph), graph.shapes)
        self.graph, self.config, self.layers = graph, config, layers
        self.values = attention.value_tensors(layers)
        images = np.moveaxis(synthetic.images(*graph.shapes[INPUT]), 1, 0)
        images = (column(low, images) + column(high - low, images) * images).astype(np.float32)
        self.calibration = calibrate(graph, layers, images)
        self.edges, self.last = edge_layers(layers), layers[-1]
        self.factors = factors_of(layers)
        bits = config.weight_bits, config.act_bits
        self.digits = edge_digits(layers, bits, config.edge_bits)
        every = {mac: self._site(mac) for mac in mac_layers(layers)}
        self.sites = self._inner(every)
        self.weight_grid, self.act_grid = self._grids()
        losses = losses_of_codes(every, self.act_grid, graph.shapes)
        if config.rescue:
            self.digits = rescue(self.digits, layers, losses)
        if config.extra_macs:
            losses = with_weights(losses, every, self.weight_grid)
            self.digits = spend(config.extra_macs, self.digits, layers, losses)
        parts = {*self.digits.weights.values()}
        self.part_shift = choose_part_shift(
            self.weight_grid, self.act_grid, max(parts), self.digits.wide
        )
        self.arithmetic = self._arithmetic()
        self.numbers = Numbers.of(self.arithmetic, self.weight_grid, self.act_grid, self.part_shift)
        self.act_books = activation_codebooks(self.act_grid, self.digits.wide, self.part_shift)
        self.value_book = value_codebook(attention.VALUE_BITS)
        self.weight_books = weight_codebooks(self.weight_grid, parts, self.part_shift)
        self.activations = {
            kind: activation.thresholds(book, config.act_bits)
            for kind, book in self.act_books.items()
        }
        self.reads = Counter(name for layer in layers for name in operands(layer))
        books = self.act_books["plain"], self.act_books["wide"]
        of_pixels = config.input_bits, config.edge_bits
        self.pixels = choose_pixels(layers, self.act_grid, books, low, high, of_pixels)
        self.input = self._input()
        self.codings, self.tensors = {INPUT: self.pixels.coding}, {INPUT: self.input.tensor}
        self.ranks = dict[str, Ranks]()
        self.read, self.beside = dict[str, Values](), dict[str, Values]()
        self._keep(INPUT, self.pixels.coding, self.pixels.ranks(images, low, high))

    def layer(self, layer: FloatLayer) -> Layer:
        """Turn one layer into integers; its sources are done already."""
        match layer:
            case FloatMac():
                done = self._mac(layer)
            case FloatMax() | FloatCat():
                done = self._rearrangement(layer)
            case FloatEmbedding() | FloatLayerNorm() | FloatMatMul() | FloatSoftmax():
                done = self._attention(layer)
            case _:
                assert_never(layer)
        self.tensors[layer.name] = done.output
        for name in read_last(self.reads, operands(layer)):
            del self.ranks[name], self.read[name], self.beside[name]
        return done

    def provenance(self, seconds: float) -> Provenance:
        """Say where the network comes from."""
        config = self.config
        return Provenance(
            model=self.graph.name,
            model_sha256=self.graph.sha256,
            hwquant=__version__,
            method=config.method,
            exponent=self.weight_grid.exponent,
            act_exponent=self.act_grid.exponent,
            weight_bits=config.weight_bits,
            act_bits=config.act_bits,
            edge_bits=config.edge_bits,
            accumulate=config.form,
            product_bits=config.product_width,
            activation=config.activation,
            mean=config.mean,
            std=config.std,
            seconds=seconds,
            layout=self.graph.layout,
            rounding=config.rounding,
            ranges=config.ranges,
            equalize=config.equalize,
            search=config.search_used,
            levels=config.levels_used,
            norm=config.norm,
            weights=weight_statistics(self.layers),
            extra_macs=config.extra_macs,
        )

    def _rearrangement(self, layer: FloatMax | FloatCat) -> MaxPoolLayer | ConcatLayer:
        match layer:
            case FloatMax():
                coding = self.codings[layer.source]
                done = MaxPoolLayer(
                    layer.name,
                    layer.source,
                    layer.kernel,
                    layer.stride,
                    layer.pads,
                    self._tensor(layer.name, layer.tensor, coding),
                )
            case FloatCat():
                coding = side_by_side([self.codings[name] for name in layer.sources])
                tensor = self._tensor(layer.name, layer.tensor, coding)
                done = ConcatLayer(layer.name, layer.sources, tensor)
            case _:
                assert_never(layer)
        self._keep(layer.name, coding, rearranged(layer, self.ranks))
        return done

    def _attention(self, layer: FloatAttention) -> AttentionLayer:
        coding, output = self._output(layer.name, None)
        tensor = self._tensor(layer.name, layer.name, coding)
        self._keep(layer.name, coding, coding.ranks(attend(layer, self.beside)))
        return attention.attention_layer(layer, self.codings, output, tensor, self.config.act_bits)

    def _mac(self, mac: FloatMac) -> Layer:
        source = self.codings[mac.source]
        if mac.source == INPUT:
            mac = replace(mac, weight=np.tile(mac.weight, (1, self.pixels.digits, 1, 1)))
        read = self.read[mac.source]
        book = self.weight_books[self.digits.weights[mac.name]]
        moment = covariance(mac, read, source.padding())
        kernel = encode_weights(mac, source, book, moment, self.config.rounding)
        sums = array_sums(source, kernel, read, self.ranks[mac.source], self.numbers)
        if self.config.variance_correction:
            factor = lost_spread(sums, self.calibration.responses[mac.name].std)
            kernel = kernel.scaled(factor)
            sums *= factor
            sums += column((1 - factor) * mac.bias, sums)
        inside, behind = self._corrections(mac, sums)
        correction = inside + behind
        is_rounded = self.config.levels_used == "rounded"
        if mac.gate is None and self.config.bias_correction and is_rounded:
            odds = self._odds(mac.source)
            correction -= rounding_bias(source, kernel, odds, self.numbers)
        output = None
        coding = source  # of the last layer, whose outputs have no codes
        if mac.name != self.last.name:
            coding, output = self._output(mac.name, mac.function)
            response = self.calibration.responses[mac.name]
            before = joined(mac, sums + column(inside, sums), self.beside, response)
            before += column(behind, before)
            made = before if mac.function is None else evaluate(mac.function, before)
            self._keep(mac.name, coding, coding.ranks(made))
        name = mac.gate or (mac.skip and mac.skip.source)
        if mac.gate is not None and self.codings[mac.gate].zero.any():
            raise UnsupportedModel(f"{mac.name}: gate {mac.gate} below 0; hwquant takes none")
        return mac_layer(
            mac,
            source,
            kernel,
            Operand(name, self.codings[name]) if name else None,
            correction,
            output,
            self._tensor(mac.name, mac.tensor, coding),
            self.numbers,
        )

    def _corrections(self, mac: FloatMac, sums: Values) -> tuple[FloatArray, FloatArray]:
        """Find what brings means back, ``float[M]`` each: to sums, and behind gate and skip."""
        nothing = np.zeros(len(mac.bias))
        if not self.config.bias_correction:
            return nothing, nothing
        response = self.calibration.responses[mac.name]
        lost = response.sums - channel_mean(gated(mac, sums, self.beside))
        if mac.gate is not None:
            return nothing, lost
        return lost, response.skip - channel_mean(skipped(mac, sums.shape, self.beside))

    def _output(self, name: str, function: Function | None) -> tuple[Coding, Output]:
        """Choose the codes of a layer's output, and the staircase that makes them."""
        spread = self.calibration.spreads[name]
        if name in self.values:
            reach = np.full_like(spread.mean, attention.value_range(name, spread, self.layers))
            made, book = Saturate(attention.VALUE_BITS), self.value_book
            return Coding(0 * reach, reach, book), Output(0 * reach, reach / made.top, made)
        kind = self.digits.codes[name]
        book = self.act_books[kind]
        bits = self.config.edge_bits if kind == "wide" else self.config.act_bits
        match self.config.ranges:
            case "reach":
                zero, scale = tensor_range(spread, bits)
            case "omse":
                zero, scale = least_error_range(spread, bits, book)
        if name in self.factors:
            scale = np.full_like(scale, scale.max())
        coding = Coding(zero, scale, book)
        if function is None or scales_by_channel(spread):
            unit = scale / activation.FULL_SCALE
            return coding, Output(zero, unit, self.activations[kind])
        staircase, step = activation.function_thresholds(
            function, book, float(zero[0]), float(scale[0]), self.config.act_bits
        )
        return coding, Output(np.zeros_like(zero), np.full_like(zero, step), staircase)

    def _keep(self, name: str, coding: Coding, ranks: Ranks) -> None:
        """Remember a tensor's codes, and what they stand for, until its last reader is done."""
        if self.reads[name]:
            self.codings[name], self.ranks[name] = coding, ranks
            self.read[name] = coding.decode_read(ranks)
            is_detailed = coding.book.is_detailed
            self.beside[name] = coding.decode(ranks) if is_detailed else self.read[name]

    def _odds(self, name: str) -> FloatArray:
        """Share of every code in a tensor, ``float[C, n]``."""
        ranks = self.ranks[name].reshape(len(self.ranks[name]), -1)
        count = len(self.codings[name].book.values)
        cells = ranks + count * np.arange(len(ranks))[:, None]
        found = np.bincount(cells.ravel(), minlength=count * len(ranks))
        return found.reshape(len(ranks), count) / ranks.shape[1]

    def _grids(self) -> tuple[Grid, Grid]:
        """Grids of weights and of activations."""
        config = self.config
        if config.method != "power":
            weights, acts = (Grid(config.method, 1.0, top) for top in config.tops)
            return weights, acts
        bits = config.product_width if config.levels_used == "whole" else None
        sites, search, norm = self.sites, config.search_used, config.norm
        return find_grids(sites, config.tops, search, norm, config.exponent, bits)

    def _inner(self, sites: dict[FloatMac, Site]) -> list[Site]:
        """Layers that exponents are chosen for: the inner ones, whose codes have one digit."""
        kinds = self.digits.codes
        inner = [mac for mac in sites if mac.name not in self.edges and kinds[mac.source] != "wide"]
        return [sites[mac] for mac in inner or sites]

    def _site(self, mac: FloatMac) -> Site:
        spread = self.calibration.spreads[mac.source]
        zero, scale = tensor_range(spread, self.config.act_bits)
        samples = (spread.samples - zero[:, None]) / scale[:, None]
        return Site(mac.weight, mac.groups, np.clip(samples, 0, 1), scale)

    def _arithmetic(self) -> Arithmetic:
        if self.config.form == "product":
            return product_table(self.weight_grid, self.act_grid, self.config.product_width)
        return level_tables(self.weight_grid, self.act_grid)

    def _input(self) -> InputCodes:
        coding = self.pixels.coding
        tables = coding.book.packed(self.config.act_bits)[self.pixels.tables]
        tensor = self._tensor(INPUT, INPUT, coding)
        return InputCodes(self.config.input_bits, self.config.lowest_pixel, tables, tensor)

    def _tensor(self, name: str, tensor: str, coding: Coding) -> Tensor:
        channels, height, width = self.graph.shapes[tensor]
        channels *= self.pixels.digits if name == INPUT else 1
        book = coding.book
        pad_code = book.packed(self.config.act_bits)[coding.pad_ranks()]
        bits = attention.VALUE_BITS if book.is_value else 0
        return Tensor(name, channels, height, width, book.parts, pad_code, book.is_detailed, bits)
