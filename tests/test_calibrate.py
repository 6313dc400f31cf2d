"""Claims about the float pass over synthetic images."""

import numpy as np
import pytest

from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConv,
    FloatGraph,
    Moments,
    Tanh,
)
from hwquant.ir import INPUT, FloatArray
from hwquant.quantizer import calibrate as calibration
from hwquant.quantizer import float_model, synthetic
from hwquant.quantizer.calibrate import (
    MOST_RESTORED,
    NARROWEST,
    WIDEST,
    WINDOWS,
    Calibration,
    Values,
    calibrate,
    channel_std,
    convolve_layer,
    covariance,
    lost_spread,
)
from hwquant.quantizer.float_model import pad
from hwquant.quantizer.lower import FloatCat, FloatMac, FloatMax, lower
from tests.float_graphs import NETWORKS, SHAPE, conv, graph

SOME: Values = np.moveaxis(np.random.default_rng(2).normal(size=(5, *SHAPE)), 1, 0)


def moments(seed: int, channels: int) -> Moments:
    rng = np.random.default_rng(seed)
    return Moments(rng.normal(0, 1, channels), rng.uniform(0.5, 1.5, channels))


def run(floating: FloatGraph, images: Values = SOME) -> Calibration:
    return calibrate(floating, lower(floating), images)


def tensors(floating: FloatGraph) -> dict[str, FloatArray]:
    """Every tensor of the float model, ``[C, N * H * W]``."""
    images = np.moveaxis(SOME, 0, 1)
    made = float_model.stream(floating, images, np.float64)
    return {n.name: np.moveaxis(t, 1, 0).reshape(t.shape[1], -1).copy() for n, t in made}


@pytest.mark.parametrize("name", NETWORKS)
def test_without_moments_every_layer_computes_what_the_float_model_computes(name: str) -> None:
    floating = graph(*NETWORKS[name])
    found, wanted, checked = run(floating), tensors(floating), 0
    for layer in lower(floating):
        assert isinstance(layer, FloatMac | FloatMax | FloatCat), layer.name
        pools = isinstance(layer, FloatMac) and layer.shared  # sums before it multiplies
        if layer.tensor in wanted and wanted[layer.tensor].shape[1] <= 320:  # all are sampled
            samples = found.spreads[layer.name].samples
            np.testing.assert_allclose(samples, wanted[layer.tensor], rtol=0, atol=1e-13 * pools)
            checked += 1
    assert checked


def test_every_matched_layer_has_the_stored_mean_and_standard_deviation() -> None:
    stored = {name: moments(seed, 6) for seed, name in enumerate("abcd")}
    nodes = (
        conv("a", INPUT, (6, 3, 3, 3), moments=stored["a"]),
        conv("b", "a", (6, 6, 3, 3), moments=stored["b"]),
        FloatActivation("f", "b", Tanh()),
        conv("c", "f", (6, 1, 3, 3), groups=6, moments=stored["c"]),
        conv("d", "c", (6, 6, 1, 1), moments=stored["d"]),
    )
    spreads = run(graph(*nodes)).spreads
    for name, wanted in stored.items():
        samples = spreads[name].samples
        before = np.arctanh(samples) if name == "b" else samples
        np.testing.assert_allclose(before.mean(axis=1), wanted.mean, atol=1e-9)
        np.testing.assert_allclose(before.std(axis=1), wanted.std, rtol=1e-9)


def test_lost_spread_is_one_factor_for_all_channels_that_vary() -> None:
    sums = np.random.default_rng(3).normal(size=(3, 50, 4, 4))
    std = channel_std(sums) * [1.1, 1.2, 5.0]
    sums[2] = 7.0  # a channel that does not vary says nothing
    assert lost_spread(sums, std) == pytest.approx(1.32**0.5)
    assert lost_spread(0.1 * sums, std) == MOST_RESTORED
    assert lost_spread(10 * sums, std) == 1 / MOST_RESTORED
    assert lost_spread(sums, 0 * std) == 1


def test_sums_are_matched_before_the_skip_is_added() -> None:
    nodes = (
        conv("a", INPUT, (8, 3, 3, 3), moments=moments(1, 8)),
        conv("b", "a", (8, 8, 3, 3), moments=moments(2, 8)),
        FloatAdd("sum", ("b", "a")),
    )
    found, (_, stored, _) = run(graph(*nodes)), nodes
    assert isinstance(stored, FloatConv)
    assert stored.moments is not None
    sums = found.spreads["b"].samples - found.spreads["a"].samples
    np.testing.assert_allclose(sums.mean(axis=1), stored.moments.mean, atol=1e-9)
    np.testing.assert_allclose(sums.std(axis=1), stored.moments.std, rtol=1e-9)
    assert found.spreads["a"].is_stored
    assert not found.spreads["b"].is_stored
    spread = found.spreads["b"]
    np.testing.assert_allclose(spread.mean, spread.samples.mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(spread.std, spread.samples.std(axis=1), rtol=1e-9)


@pytest.mark.parametrize(("stretch", "gain"), [(100.0, WIDEST), (0.001, NARROWEST)])
def test_channels_are_not_stretched_without_limit(stretch: float, gain: float) -> None:
    plain = run(graph(conv("a", INPUT, (8, 3, 3, 3)))).spreads["a"]
    far = Moments(np.full(8, 3.0), stretch * plain.std)
    samples = run(graph(conv("a", INPUT, (8, 3, 3, 3), moments=far))).spreads["a"].samples
    np.testing.assert_allclose(samples.mean(axis=1), far.mean, atol=1e-9)
    np.testing.assert_allclose(samples.std(axis=1), gain * plain.std, rtol=1e-9)


def test_responses_are_the_means_of_sums_and_skip() -> None:
    floating = graph(*NETWORKS["shortcut"])
    found, wanted = run(floating).responses["c1"], tensors(floating)
    np.testing.assert_allclose(found.sums, wanted["c1"].mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.skip, wanted["down"].mean(axis=1), rtol=1e-12)
    assert not found.skip[[0, 1, 10, 11]].any()


def test_response_of_a_gated_layer_is_the_mean_of_the_product() -> None:
    floating = graph(*NETWORKS["squeeze and excite"])
    found = run(floating).responses["gated"]
    np.testing.assert_allclose(found.sums, tensors(floating)["gated"].mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "groups"), [((7, 3, 3, 2), 1), ((6, 1, 3, 3), 3), ((4, 3, 1, 1), 1)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_covariance_predicts_the_variance_of_any_sum(
    shape: tuple[int, int, int, int], groups: int, stride: int
) -> None:
    """``w C w`` is the variance of a channel's outputs, padding included."""
    (mac,) = lower(graph(conv("a", INPUT, shape, stride, groups)))
    assert isinstance(mac, FloatMac)
    padding = np.array([0.5, -1.0, 2.0])
    assert SOME[0].size <= WINDOWS, "no window is left out"
    sums = convolve_layer(mac, SOME, mac.weight, mac.bias, padding)
    weight = mac.weight.reshape(groups, shape[0] // groups, -1)
    found = np.einsum("gmk,gkl,gml->gm", weight, covariance(mac, SOME, padding), weight)
    np.testing.assert_allclose(found.ravel(), sums.var(axis=(1, 2, 3)), rtol=1e-9)


def test_covariance_of_a_folded_pool_is_that_of_its_sums() -> None:
    nodes = (FloatAveragePool("mean", INPUT, (4, 4), (2, 2)), conv("a", "mean", (5, 3, 1, 1)))
    (mac,) = lower(graph(*nodes))
    assert isinstance(mac, FloatMac)
    assert mac.shared
    sums = convolve_layer(mac, SOME, mac.weight, mac.bias)
    weight = mac.weight[:, :, 0, 0]
    found = np.einsum("mk,kl,ml->m", weight, covariance(mac, SOME, 0)[0], weight)
    np.testing.assert_allclose(found, sums.var(axis=(1, 2, 3)), rtol=1e-9)


def test_covariance_of_many_windows_is_estimated_from_a_part() -> None:
    images = np.moveaxis(synthetic.images(3, 32, 32), 1, 0)
    (mac,) = lower(graph(conv("a", INPUT, (5, 3, 3, 3)), shape=(3, 32, 32)))
    assert isinstance(mac, FloatMac)
    sums = convolve_layer(mac, images, mac.weight, mac.bias)
    weight = mac.weight.reshape(5, -1)
    found = np.einsum("mk,kl,ml->m", weight, covariance(mac, images, 0)[0], weight)
    ratio = found / sums.var(axis=(1, 2, 3))
    assert 0.8 < np.median(ratio) < 1.25
    assert (np.abs(np.log(ratio)) < 0.5).all()


def test_padding_is_one_value_a_channel() -> None:
    (mac,) = lower(graph(conv("a", INPUT, (5, 3, 3, 3))))
    assert isinstance(mac, FloatMac)
    fill = np.array([1.0, 2.0, 3.0])
    wide = pad(SOME, (1, 1, 1, 1), fill)
    assert [set(wide[c, :, 0].ravel()) for c in range(3)] == [{1.0}, {2.0}, {3.0}]
    np.testing.assert_array_equal(wide[:, :, 1:-1, 1:-1], SOME)


def test_covariance_of_many_inputs_is_cut_into_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (mac,) = lower(graph(conv("a", INPUT, (6, 3, 2, 2), groups=1)))
    assert isinstance(mac, FloatMac)
    (whole,) = covariance(mac, SOME, 0)
    monkeypatch.setattr(calibration, "MOST_INPUTS", 5)  # of 12: two runs would have 6, three have 4
    runs = covariance(mac, SOME, 0)
    assert runs.shape == (3, 4, 4)
    for index, run in enumerate(runs):
        part = slice(4 * index, 4 * index + 4)
        np.testing.assert_allclose(run, whole[part, part], rtol=1e-12)
