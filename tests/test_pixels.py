"""Claims about the codes of pixels."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwquant import golden
from hwquant.errors import UnsupportedModel
from hwquant.float_graph import FloatActivation, FloatAdd, FloatGraph, FloatMaxPool, Moments, Relu
from hwquant.importer.fold import depthwise
from hwquant.ir import INPUT, FloatArray, IntArray, MacLayer
from hwquant.power import Grid, activation_codebook
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.lower import lower
from hwquant.quantizer.pixels import (
    absorb_scale,
    exact_places,
    may_split,
    spell,
    split_pixels,
    whole_pixels,
)
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.schedule import schedule
from tests.float_graphs import conv, graph
from tests.float_model import evaluate

GRIDS = [
    Grid("uniform", 1.0, 15),
    Grid("uniform", 1.0, 3),
    *(Grid("power", a, 15, full) for a in (0.4, 0.5, 0.6, 0.8, 1.0) for full in (15, 18, 25, 31)),
    *(Grid("power", a, 3, full) for a in (0.5, 0.8) for full in (3, 5)),
]
LOW, HIGH = np.array([-2.0]), np.array([3.0])


def levels_of(tables: IntArray, grid: Grid, places: tuple[int, ...]) -> IntArray:
    return np.array(places) @ grid.whole[tables]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("bits", [1, 4, 8, 12])
def test_digits_spell_every_number(grid: Grid, bits: int) -> None:
    places = exact_places(grid, 2**bits - 1)
    if not places:
        assert grid.whole[1] > 1 or np.diff(grid.whole).max() > grid.top
        return
    numbers: IntArray = np.arange(2**bits, dtype=np.int64)
    tables = spell(grid.whole, places, numbers)
    np.testing.assert_array_equal(levels_of(tables, grid, places), numbers)


def test_uniform_digits_are_those_of_the_number() -> None:
    assert exact_places(Grid("uniform", 1.0, 15), 255) == (16, 1)
    assert exact_places(Grid("uniform", 1.0, 255), 255) == (1,)


def test_levels_that_are_not_whole_or_leave_gaps_spell_nothing() -> None:
    assert exact_places(Grid("power", 0.7, 15), 255) == ()
    assert exact_places(Grid("power", 0.25, 3, 40), 255) == ()


@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[7]], ids=str)
def test_split_pixels_stand_for_their_values_exactly(grid: Grid) -> None:
    pixels = split_pixels(grid, activation_codebook(grid, 1, 0), LOW, HIGH, 8)
    assert pixels is not None
    coding, values = pixels.coding, np.linspace(-2.0, 3.0, 256)
    ranks = pixels.ranks(values.reshape(1, 1, 1, -1), LOW, HIGH)
    assert ranks.shape == (pixels.digits, 1, 1, 256)
    np.testing.assert_allclose(coding.decode(ranks).sum(axis=0).ravel(), values, atol=1e-6)
    zero = coding.zero + coding.scale * coding.book.values[coding.pad_ranks()]
    assert abs(float(zero.sum())) < 5 / 255 / 2 + 1e-9


def test_two_digits_of_real_levels_tell_pixels_apart() -> None:
    grid = Grid("power", 0.5, 255)
    pixels = split_pixels(grid, activation_codebook(grid, 1, 0), LOW, HIGH, 8)
    assert pixels is not None
    values = np.linspace(-2.0, 3.0, 256)
    ranks = pixels.ranks(values.reshape(1, 1, 1, -1), LOW, HIGH)
    lost = pixels.coding.decode(ranks).sum(axis=0).ravel() - values
    assert pixels.digits == 2
    assert np.abs(lost).max() < 5 * np.diff(grid.levels).max() ** 2


def test_too_many_digits_are_not_split() -> None:
    grid = Grid("uniform", 1.0, 3)
    assert split_pixels(grid, activation_codebook(grid, 1, 0), LOW, HIGH, 8) is not None
    assert split_pixels(grid, activation_codebook(grid, 1, 0), LOW, HIGH, 9) is None


def test_whole_pixels_have_the_nearest_code() -> None:
    book = activation_codebook(Grid("power", 0.6, 15), 2, 3)
    pixels = whole_pixels(book, LOW, HIGH, 8)
    real = np.linspace(0, 1, 256)
    assert pixels.tables.shape == (1, 256)
    worst = np.abs(book.values[pixels.tables[0]] - real).max()
    assert worst <= np.diff(book.values).max() / 2 + 1e-12


def grey() -> FloatGraph:
    """Two layers on one channel."""
    stem, relu = conv("stem", INPUT, (6, 1, 3, 3)), FloatActivation("relu", "stem", Relu(None))
    return graph(stem, relu, conv("last", "relu", (4, 6, 3, 3)), shape=(1, 9, 8))


def test_digits_of_one_channel_are_channels_of_the_first_layer() -> None:
    quantized = quantize(grey(), QuantConfig(std=(64.0,), mean=(100.0,)))
    assert quantized.input.shape == (1, 9, 8)
    assert quantized.input.tensor.parts == 1
    first = quantized.layers[0]
    assert isinstance(first, MacLayer)
    assert first.channels_in == quantized.input.tensor.channels == len(quantized.input.tables)


def test_digits_of_a_pixel_are_one_channel_of_the_macs_that_are_reported() -> None:
    quantized = quantize(grey(), QuantConfig(std=(64.0,), mean=(100.0,)))
    first, _ = schedule(quantized, Plan(4, 8, 1)).layers
    out = quantized.layers[0].output
    assert len(quantized.input.tables) > 1
    assert first.macs == out.height * out.width * out.channels * 1 * 3 * 3


def test_padding_of_split_pixels_is_the_pixel_nearest_to_zero() -> None:
    quantized = quantize(grey(), QuantConfig(std=(64.0,), mean=(100.0,)))
    np.testing.assert_array_equal(quantized.input.tensor.pad_code, quantized.input.tables[:, 100])


def test_split_pixels_follow_the_float_network() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 9, 8))
    floating = grey()
    quantized = quantize(floating, QuantConfig(std=(64.0,), mean=(100.0,)))
    truth = evaluate(floating, (images - 100) / 64)
    found = golden.simulate(quantized, images).reshape(len(images), -1)
    assert np.corrcoef(found.ravel(), truth.reshape(len(images), -1).ravel())[0, 1] > 0.98


def test_edges_without_further_digits_have_one_code_a_pixel() -> None:
    quantized = quantize(grey(), QuantConfig(edge_bits=4))
    assert quantized.input.tensor.channels == 1


def test_digits_that_do_not_fit_in_a_word_are_refused() -> None:
    quantized = quantize(grey(), QuantConfig())
    assert quantized.input.tensor.channels == 3
    schedule(quantized, Plan(2, 4, 1))
    with pytest.raises(UnsupportedModel, match="input: a pixel has 3 digits; with cols=2"):
        schedule(quantized, Plan(2, 2, 1))


def test_only_plain_layers_of_one_channel_read_split_pixels() -> None:
    pool = FloatMaxPool("pool", INPUT, (2, 2), (2, 2), (0, 0, 0, 0))
    last = conv("last", "pool", (4, 1, 3, 3))
    assert may_split(lower(grey()), 1)
    assert not may_split(lower(grey()), 3)
    assert not may_split(lower(graph(pool, last, shape=(1, 8, 8))), 1)


# ---------------------------------------------------------------- a scale of the pixels


SCALE, SHIFT = np.array([0.5, 0.25, 2.0]), np.array([-1.0, 0.0, 3.0])


def scaled(scale: FloatArray = SCALE, **changes: Any) -> FloatGraph:
    """Make a network that first scales and shifts its input."""
    first = replace(depthwise("scale", INPUT, scale, SHIFT), **changes)
    return graph(first, conv("a", "scale", (5, 3, 3, 3)), FloatActivation("r", "a", Relu(None)))


def integers(network: FloatGraph, config: QuantConfig) -> list[IntArray]:
    """Return what quantization makes of a network."""
    made = quantize(network, config)
    macs = [layer for layer in made.layers if isinstance(layer, MacLayer)]
    of_layers = [part for mac in macs for part in (mac.weights, mac.multiplier, mac.bias)]
    return [made.input.tables, np.array(made.input.tensor.pad_code), *of_layers]


def test_scale_of_pixels_is_one_with_that_of_the_user() -> None:
    """``(x - 8) / 4``, scaled and shifted, is ``(x - mean) / std``."""
    std = 4 / SCALE
    user = QuantConfig(mean=(8.0,), std=(4.0,))
    both = QuantConfig(mean=tuple(8 - std * SHIFT), std=tuple(std))
    nodes = (conv("a", INPUT, (5, 3, 3, 3)), FloatActivation("r", "a", Relu(None)))
    for one, other in zip(integers(scaled(), user), integers(graph(*nodes), both), strict=True):
        np.testing.assert_array_equal(one, other)


def test_absorbed_scale_is_a_layer_less_and_the_same_function() -> None:
    whole = scaled()
    found, low, high = absorb_scale(whole, np.zeros(3), np.full(3, 255.0))
    assert [node.name for node in found.nodes] == ["a", "r"]
    np.testing.assert_array_equal((low, high), (SHIFT, 255 * SCALE + SHIFT))
    images = np.random.default_rng(4).normal(size=(2, *whole.shapes[INPUT]))
    behind = images * SCALE[:, None, None] + SHIFT[:, None, None]
    np.testing.assert_allclose(evaluate(found, behind), evaluate(whole, images), rtol=1e-12)


@pytest.mark.parametrize(
    "kept",
    [
        scaled(-SCALE),
        scaled(SCALE * [1, 0, 1]),
        scaled(moments=Moments(SHIFT, SCALE)),
        scaled(stride=(2, 2)),
        scaled(pads=(1, 1, 1, 1)),
        graph(depthwise("scale", INPUT, SCALE, SHIFT)),
        graph(depthwise("scale", INPUT, SCALE, SHIFT), FloatAdd("a", ("scale", INPUT))),
        graph(conv("a", INPUT, (3, 3, 1, 1))),
    ],
    ids=["negative", "zero", "batch norm", "stride", "pads", "output", "in use", "mixing"],
)
def test_what_is_more_than_a_scale_of_pixels_stays(kept: FloatGraph) -> None:
    found, low, high = absorb_scale(kept, np.zeros(3), np.ones(3))
    assert found is kept
    assert (low.tolist(), high.tolist()) == ([0, 0, 0], [1, 1, 1])
