"""Claims about which layers and tensors have more bits."""

from dataclasses import replace

import pytest

from hwquant.ir import INPUT
from hwquant.quantizer.digits import (
    CodeKind,
    Digits,
    edge_digits,
    edge_layers,
    mac_layers,
    tensor_codes,
)
from hwquant.quantizer.lower import FloatCat, FloatMac, FloatMax, lower
from tests.float_graphs import NETWORKS, graph

EDGES = {
    "plain": {"stem", "last"},
    "one layer": {"only"},
    "two convolutions": {"stem", "last"},
    "depthwise": {"stem", "deep", "last"},
    "grouped": {"stem", "group", "last"},
    "pooled input": {"max", "relu", "last"},
    "squeeze and excite": {"stem", "gated", "last"},
    "sum of pools": {"stem", "avg", "add", "last"},
}
CODES: dict[str, dict[str, CodeKind]] = {
    "plain": {"stem": "wide"},
    "residual": {"stem": "detailed", "c1": "plain", "c2": "wide"},
    "shortcut": {"stem": "detailed", "c1": "wide"},
    "two convolutions": {"stem": "plain", "side": "detailed", "c1": "wide"},
    "linear between": {"stem": "plain", "linear": "wide"},
    "padded pool": {"stem": "wide", "max": "wide"},
    "pooled input": {"max": "wide", "relu": "wide"},
    "relu6": {"stem": "wide"},
    "concat": dict.fromkeys(("stem", "c1", "c2", "cat", "inner"), "wide"),
    "squeeze and excite": {
        "stem": "plain",
        "squeeze": "plain",
        "excite": "detailed",
        "gated": "wide",
        "inner": "wide",
    },
}


@pytest.mark.parametrize("name", EDGES)
def test_layers_at_the_edge(name: str) -> None:
    assert edge_layers(lower(graph(*NETWORKS[name]))) == EDGES[name]


@pytest.mark.parametrize("name", CODES)
def test_codes_of_tensors(name: str) -> None:
    kinds = tensor_codes(lower(graph(*NETWORKS[name])))
    found = {tensor: kinds[tensor] for tensor in CODES[name]}
    assert found == CODES[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_channel_of_one_weight_has_one_digit_but_with_a_gate(name: str) -> None:
    layers = lower(graph(*NETWORKS[name]))
    digits, edges = edge_digits(layers, (4, 4), 8), edge_layers(layers)
    for mac in mac_layers(layers):
        several = mac.name in edges and (mac.weight[0].size > 1 or mac.gate is not None)
        assert digits.weights[mac.name] == (2 if several else 1)


@pytest.mark.parametrize("reads", [INPUT, "stem"])
def test_passes_over_the_array_are_pairs_of_digits_but_the_last_of_pixels(reads: str) -> None:
    layers = lower(graph(*NETWORKS["plain"]))
    mac = replace(mac_layers(layers)[0], source=reads)
    for weights, wide in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 2)):
        digits = Digits({mac.name: weights}, {reads: "wide"}, wide)
        left_out = reads == INPUT and weights > 1 and wide > 1
        assert digits.passes(mac) == weights * wide - left_out


@pytest.mark.parametrize("name", NETWORKS)
def test_what_moves_codes_does_not_change_their_digits(name: str) -> None:
    layers = lower(graph(*NETWORKS[name]))
    kinds = tensor_codes(layers)
    assert kinds[INPUT] == "wide"
    for layer in layers:
        moved = (layer.source,) if isinstance(layer, FloatMax) else ()
        moved = layer.sources if isinstance(layer, FloatCat) else moved
        assert {kinds[source] for source in moved} <= {kinds[layer.name]}


@pytest.mark.parametrize("name", NETWORKS)
def test_operands_beside_the_array_never_have_plain_codes_alone(name: str) -> None:
    layers = lower(graph(*NETWORKS[name]))
    kinds = tensor_codes(layers)
    for layer in layers:
        if isinstance(layer, FloatMac) and layer.skip is not None:
            assert kinds[layer.skip.source] != "plain"
        if isinstance(layer, FloatMac) and layer.gate is not None:
            assert kinds[layer.gate] != "plain"
