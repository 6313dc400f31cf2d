"""Claims about second digits in inner layers."""

from dataclasses import replace

import numpy as np
import pytest

from hwquant.float_graph import FloatActivation, FloatMatMul, Relu
from hwquant.ir import INPUT, MacLayer, QuantGraph
from hwquant.power import Grid
from hwquant.quantizer.budget import (
    EVERY,
    MOST_LOST,
    RESCUE_SHARE,
    Loss,
    losses_of_codes,
    rescue,
    spend,
    with_weights,
)
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.digits import (
    CodeKind,
    Digits,
    edge_digits,
    mac_layers,
    only_scales,
    same_digits,
)
from hwquant.quantizer.exponent import Site, act_noise, weight_noise
from hwquant.quantizer.lower import FloatLayer, FloatMac, lower
from hwquant.quantizer.quantize import quantize
from tests.float_graphs import NETWORKS, SHAPE, conv, graph

ALL = 3.0  # share that suffices for two digits by two in every layer
SHARES = (0.0, 0.1, 0.4, 1.0, ALL)


def even(layers: tuple[FloatLayer, ...]) -> dict[str, Loss]:
    """Losses of layers that lose equally much and cost equally much."""
    return {mac.name: Loss(1.0, 1.0, 100) for mac in mac_layers(layers)}


def drawn(layers: tuple[FloatLayer, ...], seed: int) -> dict[str, Loss]:
    rng = np.random.default_rng(seed)
    return {
        mac.name: Loss(rng.random(), rng.random(), int(rng.integers(1, 1000)))
        for mac in mac_layers(layers)
    }


def work(digits: Digits, layers: tuple[FloatLayer, ...], losses: dict[str, Loss]) -> int:
    return sum(digits.passes(mac) * losses[mac.name].macs for mac in mac_layers(layers))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bits", [(4, 4), (3, 4), (4, 8), (8, 4)])
def test_no_more_is_spent_than_given_and_nothing_that_fits_is_left(
    name: str, bits: tuple[int, int]
) -> None:
    layers = lower(graph(*NETWORKS[name]))
    for seed, share in enumerate(SHARES):
        losses, before = drawn(layers, seed), edge_digits(layers, bits, 8)
        after = spend(share, before, layers, losses)
        most = (1 + share) * work(before, layers, losses)
        assert work(after, layers, losses) <= most
        for mac in mac_layers(layers):
            if after.weights[mac.name] == 1 and bits[0] < 8 and not only_scales(mac):
                extra = after.passes(mac) * losses[mac.name].macs
                assert work(after, layers, losses) + extra > most, mac.name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_share_of_three_suffices_for_two_digits_everywhere(name: str) -> None:
    layers = lower(graph(*NETWORKS[name]))
    after = spend(ALL, edge_digits(layers, (4, 4), 8), layers, even(layers))
    for mac in mac_layers(layers):
        assert after.weights[mac.name] == (1 if only_scales(mac) else 2)
    assert {after.codes[mac.source] for mac in mac_layers(layers)} == {"wide"}


@pytest.mark.parametrize("name", NETWORKS)
def test_digits_are_never_taken_and_those_that_move_together_stay_alike(name: str) -> None:
    layers = lower(graph(*NETWORKS[name]))
    for seed, share in enumerate(SHARES):
        before = edge_digits(layers, (3, 4), 8)
        after = spend(share, before, layers, drawn(layers, seed))
        assert all(after.weights[layer] >= count for layer, count in before.weights.items())
        assert {after.codes[name] for name, kind in before.codes.items() if kind == "wide"} <= {
            "wide"
        }
        for group in same_digits(layers):
            assert len({after.codes[name] for name in group}) == 1


def test_most_noise_for_a_multiply_accumulate_comes_first() -> None:
    layers = lower(graph(*NETWORKS["residual"]))
    inner = [mac for mac in mac_layers(layers) if mac.name in ("c1", "c2")]
    assert [mac.name for mac in inner] == ["c1", "c2"]
    before = edge_digits(layers, (4, 4), 8)
    losses = even(layers) | {"c1": Loss(3.0, 0.0, 100), "c2": Loss(7.0, 0.0, 200)}
    share = 200 / work(before, layers, losses)
    assert spend(share, before, layers, losses).weights == {**before.weights, "c2": 2}
    cheap = losses | {"c1": Loss(4.0, 0.0, 100)}
    assert spend(share, before, layers, cheap).weights == {**before.weights, "c1": 2}
    codes = losses | {"c1": Loss(0.0, 4.0, 100)}
    after = spend(share, before, layers, codes)
    (source,) = {mac.source for mac in inner if mac.name == "c1"}
    assert (after.codes[source], after.weights) == ("wide", before.weights)


def test_a_layer_that_loses_nothing_gets_nothing() -> None:
    layers = lower(graph(*NETWORKS["two convolutions"]))
    before = edge_digits(layers, (4, 4), 8)
    losses = {mac.name: Loss(0.0, 0.0, 1) for mac in mac_layers(layers)}
    assert spend(ALL, before, layers, losses) == before


def test_tensors_that_others_than_mac_layers_read_stay_as_they_are() -> None:
    def mac(name: str, source: str) -> FloatMac:
        weight, bias = np.ones((1, 1, 1, 1)), np.zeros(1)
        return FloatMac(
            name, source, weight, bias, (1, 1), False, (1, 1), (0, 0, 0, 0), 1,
            skip=None, gate=None, function=None, tensor=name,
        )  # fmt: skip

    layers: tuple[FloatLayer, ...] = (
        mac("stem", INPUT),
        mac("query", "stem"),
        mac("key", "stem"),
        FloatMatMul("scores", "query", "key", 1, sums_channels=True),
        mac("inner", "query"),
        mac("last", "inner"),
    )
    plain: dict[str, CodeKind] = {layer.name: "plain" for layer in layers}
    weights = {"stem": 2, "query": 1, "key": 1, "inner": 1, "last": 2}
    before = Digits(weights, {**plain, INPUT: "wide"}, wide=2)
    after = spend(ALL, before, layers, even(layers))
    assert {name for name in plain if after.codes[name] == "wide"} == {"stem", "inner"}


def test_losses_are_the_noise_on_the_grids_and_the_work_of_a_pass() -> None:
    layers = lower(graph(*NETWORKS["sum of pools"]))
    rng = np.random.default_rng(3)
    sites = dict[FloatMac, Site]()
    for mac in mac_layers(layers):
        channels = mac.weight.shape[1] * mac.groups
        samples = rng.random((channels, 50))
        sites[mac] = Site(mac.weight, mac.groups, samples, np.ones(channels))
    grids = Grid("power", 0.6, 7), Grid("power", 0.5, 15)
    shapes = {mac.tensor: (99, 4, 5) for mac in sites}
    of_codes = losses_of_codes(sites, grids[1], shapes)
    found = with_weights(of_codes, sites, grids[0])
    for mac, site in sites.items():
        outputs = len(mac.weight) * 4 * 5
        taps = mac.weight.shape[1] * mac.kernel[0] * mac.kernel[1]
        few = Site(site.weight, site.groups, site.samples[:, ::EVERY], site.scale)
        assert found[mac.name] == Loss(
            weight_noise([site])([grids[0]]).item(),
            act_noise([few])([grids[1]]).item(),
            outputs * taps,
        )
        assert of_codes[mac.name] == replace(found[mac.name], weights=0.0)


def cheap(layers: tuple[FloatLayer, ...], lost: dict[str, float]) -> dict[str, Loss]:
    """Losses of codes in layers of which one costs next to nothing beside the last."""
    *others, last = mac_layers(layers)
    dear = {last.name: Loss(0.0, lost.get(last.name, 0.0), 10**6)}
    return dear | {mac.name: Loss(0.0, lost.get(mac.name, 0.0), 1) for mac in others}


@pytest.mark.parametrize("name", NETWORKS)
def test_codes_that_lose_too_much_get_a_second_digit_and_no_others(name: str) -> None:
    layers = lower(graph(*NETWORKS[name]))
    before = edge_digits(layers, (4, 4), 8)
    wide = {tensor for tensor, kind in before.codes.items() if kind == "wide"}
    for mac in mac_layers(layers)[:-1]:
        assert rescue(before, layers, cheap(layers, {mac.name: MOST_LOST})) == before
        after = rescue(before, layers, cheap(layers, {mac.name: 1.01 * MOST_LOST}))
        (group,) = (each for each in same_digits(layers) if mac.source in each)
        assert {t for t, kind in after.codes.items() if kind == "wide"} == wide | group
        assert after.weights == before.weights


def test_rescue_costs_no_more_than_its_share() -> None:
    layers = lower(graph(*NETWORKS["residual"]))
    before = edge_digits(layers, (4, 4), 8)
    for macs in (1, 100):
        losses = {mac.name: Loss(0.0, 1.0, macs) for mac in mac_layers(layers)}
        assert rescue(before, layers, losses) == before
        (plain,) = {m.source for m in mac_layers(layers) if m.name == "c2"}
        assert before.codes[plain] == "plain"
        total = work(before, layers, losses)
        losses["fc"] = Loss(0.0, 0.0, round(total / RESCUE_SHARE))
        after = rescue(before, layers, losses)
        assert work(after, layers, losses) <= (1 + RESCUE_SHARE) * work(before, layers, losses)
        assert after.codes[plain] == "wide"


def test_one_digit_of_eight_bits_is_not_rescued() -> None:
    layers = lower(graph(*NETWORKS["residual"]))
    before = edge_digits(layers, (4, 8), 8)
    assert rescue(before, layers, cheap(layers, {"c1": 1.0, "c2": 1.0})) == before


def test_a_layer_that_is_shown_a_constant_loses_a_finite_amount() -> None:
    (mac,) = mac_layers(lower(graph(*NETWORKS["one layer"])))
    constant = Site(mac.weight, 1, np.full((3, 50), 0.34), np.full(3, 1e6))
    with np.errstate(all="raise"):
        losses = losses_of_codes({mac: constant}, Grid("power", 0.5, 15), {mac.tensor: SHAPE})
    assert MOST_LOST < losses["only"].codes < np.inf


@pytest.mark.parametrize(("largest", "digits"), [(1.0, 1), (50.0, 2)])
def test_signals_that_drown_beside_a_channel_nobody_reads_are_rescued(
    largest: float, digits: int
) -> None:
    gain = np.array([largest, *[1.0] * 7])
    stem, inner = conv("stem", INPUT, (8, 3, 3, 3)), conv("inner", "relu", (2, 8, 1, 1))
    unread = np.array([0.0, *[1.0] * 7])
    network = graph(
        replace(stem, weight=stem.weight * gain.reshape(-1, 1, 1, 1)),
        FloatActivation("relu", "stem", Relu(None)),
        replace(inner, weight=inner.weight * unread.reshape(1, -1, 1, 1)),
        FloatActivation("r1", "inner", Relu(None)),
        conv("last", "r1", (5, 2, 5, 5)),
    )
    assert parts(quantize(network, QuantConfig()))["inner"] == (1, digits)
    assert parts(quantize(network, QuantConfig(rescue=False)))["inner"] == (1, 1)


def parts(quantized: QuantGraph) -> dict[str, tuple[int, int]]:
    """Digits of weights, and of what the array reads, by layer."""
    return {
        layer.name: (len(layer.weights), quantized.tensor(layer.source).read_parts)
        for layer in quantized.layers
        if isinstance(layer, MacLayer)
    }


@pytest.mark.parametrize("bits", [3, 4])
def test_integers_have_the_digits_that_were_bought(bits: int) -> None:
    floating = graph(*NETWORKS["residual"])
    none, all_ = (
        quantize(floating, QuantConfig(weight_bits=bits, extra_macs=share)) for share in (0.0, ALL)
    )
    edge = -(-8 // bits)
    edges = {"stem": (edge, 2), "mean": (1, 2), "fc": (edge, 2)}  # a pool has weights of 1
    assert parts(none) == edges | {"c1": (1, 1), "c2": (1, 1)}
    assert parts(all_) == edges | {"c1": (2, 2), "c2": (2, 2)}
    assert (none.provenance.extra_macs, all_.provenance.extra_macs) == (0.0, ALL)
