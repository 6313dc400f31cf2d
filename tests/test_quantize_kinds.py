"""Claims about what the quantizer makes of every kind of layer and tensor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwquant import golden
from hwquant.activation import Kind
from hwquant.errors import UnsupportedModel
from hwquant.float_graph import FloatActivation, FloatMultiply, Function, Silu, Tanh
from hwquant.golden.mac import accumulate, prepare, requantize
from hwquant.importer.load import load
from hwquant.ir import INPUT, FloatArray, IntArray, MacLayer, QuantGraph, Tensor, Thresholds
from hwquant.quantizer import synthetic
from hwquant.quantizer.banks import separate
from hwquant.quantizer.calibrate import Values
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.lower import FloatMac, lower
from hwquant.quantizer.pixels import Pixels
from hwquant.quantizer.quantize import quantize
from hwquant.quantizer.ranges import Coding, Ranks
from tests.float_graphs import GATE, NETWORKS, SHAPE, SILU, conv, graph
from tests.float_model import evaluate
from tests.onnx_models import save

BITS = [(4, 4, 8), (3, 5, 6), (2, 2, 8), (8, 8, 8)]
NCHW = "float[N, 3, 9, 8]"


def _extremes() -> IntArray:
    """Two images: any pixels, and pixels that are black or white."""
    rng = np.random.default_rng(5)
    return np.stack([rng.integers(0, 256, SHAPE), 255 * rng.integers(0, 2, SHAPE)])


def _tensors(quantized: QuantGraph) -> list[Tensor]:
    return [quantized.input.tensor, *(layer.output for layer in quantized.layers)]


def _assert_bounds_hold(quantized: QuantGraph, image: IntArray) -> None:
    codes, macs = golden.trace(quantized, image), prepare(quantized)
    bits = {tensor.name: tensor.parts * quantized.act_bits for tensor in _tensors(quantized)}
    wide = {name: codes[name][..., np.newaxis] for name in codes}
    wide = {name: wide[name].astype("u1" if bits[name] <= 8 else "u2") for name in wide}
    for layer in quantized.layers:
        tensor = layer.output
        assert codes[layer.name].shape == (tensor.channels, tensor.height, tensor.width)
        if not isinstance(layer, MacLayer):
            continue
        mac = macs[layer.name]
        acc = accumulate(mac, wide[layer.source]).astype(np.int64)
        assert np.abs(acc).max() < 2 ** (layer.acc_bits - 1), layer.name
        values = requantize(replace(mac, staircase=None), acc, wide)
        assert np.abs(values).max() < 2 ** (layer.value_bits - 1), layer.name
        if layer.gate is not None and mac.skip_levels is not None:
            plain = acc + layer.gate.offset.reshape(-1, 1, 1, 1)
            gated = plain * mac.skip_levels[wide[layer.gate.source]]
            largest = max(np.abs(plain).max(), np.abs(gated).max())
            assert largest < 2 ** (layer.gate.gated_bits - 1), layer.name


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bits", BITS)
def test_proved_bounds_hold_in_every_layer(name: str, bits: tuple[int, int, int]) -> None:
    config = QuantConfig(weight_bits=bits[0], act_bits=bits[1], edge_bits=bits[2], std=(64.0,))
    if bits[0] == 3:
        config = replace(config, activation="table", method="uniform")
    quantized = quantize(graph(*NETWORKS[name]), config)
    for image in _extremes():
        _assert_bounds_hold(quantized, image)


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_computes_the_codes_that_the_quantizer_foresaw(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fine products; coarse ones are foreseen in the mean alone (`rounding_bias`)."""
    foreseen = list[IntArray]()
    ranks_of, ranks_of_pixels = Coding.ranks, Pixels.ranks

    def spy(self: Coding, values: Values) -> Ranks:
        ranks = ranks_of(self, values)
        foreseen.append(self.book.packed(4)[ranks])
        return ranks

    def spy_on_pixels(self: Pixels, values: Values, *range_: FloatArray) -> Ranks:
        ranks = ranks_of_pixels(self, values, *range_)
        foreseen.append(self.coding.book.packed(4)[ranks])
        return ranks

    monkeypatch.setattr(Coding, "ranks", spy)
    monkeypatch.setattr(Pixels, "ranks", spy_on_pixels)
    floating = graph(*NETWORKS[name])
    fine = QuantConfig(std=(16384.0,), input_bits=16, product_bits=16, levels="rounded")
    config = replace(fine, search="weights")
    quantized = quantize(floating, config)
    layers = separate(lower(floating), floating.shapes)
    macs = [layer.name for layer in layers if isinstance(layer, FloatMac)]
    assert len(foreseen) == len(macs)
    pixels = np.round(65535 * synthetic.images(*SHAPE)[:8]).astype(np.int64)
    codes = [golden.trace(quantized, image) for image in pixels]
    for tensor, wanted in zip([INPUT, *macs[:-1]], foreseen, strict=True):
        found = np.stack([of_image[tensor] for of_image in codes], axis=1)
        wrong = (found != wanted[:, : len(codes)]).mean()
        assert wrong < 0.1, f"{tensor}: {wrong:.1%}"


def test_only_edges_have_several_digits() -> None:
    quantized = quantize(graph(*NETWORKS["two convolutions"]), QuantConfig())
    macs = [layer for layer in quantized.layers if isinstance(layer, MacLayer)]
    assert {mac.name: len(mac.weights) for mac in macs} == {
        "stem": 2, "side": 1, "c1": 1, "last": 2,
    }  # fmt: skip
    digits = {mac.name: (mac.output.parts, mac.output.is_detailed) for mac in macs[:-1]}
    assert digits == {"stem": (1, False), "side": (2, True), "c1": (2, False)}
    tensor = quantized.input.tensor
    assert (tensor.parts, tensor.is_detailed) == (2, False)


def test_depthwise_layers_have_the_edges_bits() -> None:
    quantized = quantize(graph(*NETWORKS["depthwise"]), QuantConfig())
    digits = [len(m.weights) for m in quantized.layers if isinstance(m, MacLayer)]
    assert digits == [2, 2, 2]
    grouped = quantize(graph(*NETWORKS["depthwise"]), QuantConfig(edge_bits=4)).layers
    assert [len(m.weights) for m in grouped if isinstance(m, MacLayer)] == [1, 1, 1]


@pytest.mark.parametrize("bits", [4, 8])
def test_no_code_has_several_digits_where_the_edge_has_no_more_bits(bits: int) -> None:
    config = QuantConfig(weight_bits=bits, act_bits=bits, edge_bits=bits)
    for name in ("residual", "squeeze and excite", "concat of different zeros"):
        quantized = quantize(graph(*NETWORKS[name]), config)
        assert {(t.parts, t.is_detailed) for t in _tensors(quantized)} == {(1, False)}
        assert quantized.part_shift == 0


def test_residual_and_gate_read_both_digits_of_detailed_codes() -> None:
    residual = quantize(graph(*NETWORKS["residual"]), QuantConfig())
    assert residual.tensor("stem").is_detailed
    assert residual.tensor("stem").read_parts == 1
    gated = quantize(graph(*NETWORKS["squeeze and excite"]), QuantConfig())
    layer = next(x for x in gated.layers if isinstance(x, MacLayer) and x.gate is not None)
    assert layer.gate is not None
    assert gated.tensor(layer.gate.source).is_detailed


@pytest.mark.parametrize("name", ["silu", "gelu", "leaky", "hard swish", "sigmoid", "tanh"])
def test_every_layer_with_a_function_has_its_own_staircase(name: str) -> None:
    layers = quantize(graph(*NETWORKS[name]), QuantConfig()).layers
    first, second = (layer.activation for layer in layers[:2] if isinstance(layer, MacLayer))
    assert isinstance(first, Thresholds)
    assert isinstance(second, Thresholds)
    assert first != second


@pytest.mark.parametrize(
    "name", ["linear between", "residual", "squeeze and excite", "silu", "leaky"]
)
@pytest.mark.parametrize("kind", ["table", "pade", "newton", "auto"])
def test_exact_units_do_not_change_the_network(kind: Kind, name: str) -> None:
    exact = quantize(graph(*NETWORKS[name]), QuantConfig())
    other = quantize(graph(*NETWORKS[name]), QuantConfig(activation=kind))
    units = [layer.activation for layer in other.layers if isinstance(layer, MacLayer)]
    assert not any(isinstance(unit, Thresholds) for unit in units)
    images = _extremes()
    np.testing.assert_array_equal(golden.simulate(other, images), golden.simulate(exact, images))


def test_padding_of_a_tensor_with_a_zero_point_is_not_code_zero() -> None:
    for name in ("silu", "gelu", "leaky", "tanh"):
        quantized = quantize(graph(*NETWORKS[name]), QuantConfig(std=(64.0,)))
        assert (quantized.tensor("stem").pad_code > 0).all()
    quantized = quantize(graph(*NETWORKS["relu"]), QuantConfig(std=(64.0,)))
    assert not quantized.tensor("stem").pad_code.any()


@pytest.mark.parametrize("function", [Silu(), Tanh(), None])
def test_gate_that_may_be_negative_is_refused(function: Function | None) -> None:
    gate = () if function is None else (FloatActivation("gate", "excite", function),)
    multiply = FloatMultiply("gated", "relu", "gate" if gate else "excite")
    floating = graph(*SILU, *GATE, *gate, multiply, conv("last", "gated", (5, 8, 1, 1)))
    with pytest.raises(UnsupportedModel, match=r"^gated: gate excite below 0"):
        quantize(floating, QuantConfig())


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w_4_3_1_1) r = Relu(c) y = Conv<group=4>(r, w_4_1_3_3)",
        "c = Conv(x, w_4_3_3_3) y = HardSwish(c)",
        "c = Conv(x, w_4_3_3_3) y = LeakyRelu(c)",
        "y = Concat<axis=1>(x, x)",
        "c = Conv(x, w_4_3_1_1) r = Relu(c) g = GlobalAveragePool(r) y = Mul(r, g)",
    ],
)
def test_imported_network_is_followed_at_eight_bits(tmp_path: Path, body: str) -> None:
    floating = load(save(tmp_path, NCHW, body, rank=4))
    config = QuantConfig(weight_bits=8, act_bits=8, std=(64.0,))
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 9, 8))
    truth = evaluate(floating, images / 64.0)
    values = golden.simulate(quantize(floating, config), images).astype(np.float64)
    values *= (values * truth).sum() / (values * values).sum()
    assert np.sqrt(((values - truth) ** 2).mean()) < 0.05 * truth.std()
