"""Tensors that are alive together never share a word, and no layer reads one bank twice."""

import dataclasses

import numpy as np
import pytest

from hwquant.errors import UnsupportedModel
from hwquant.ir import INPUT, MacLayer, QuantGraph
from hwquant.placement import Placement, packed_kernel, place, residual_of
from hwquant.plan import Plan
from tests.random_graphs import Limits, random_graph

PLAN = Plan(4, 4, 1)


def placed(graph: QuantGraph) -> tuple[dict[str, Placement], tuple[int, int]]:
    return place(graph, PLAN, packed_kernel(graph, PLAN))


def words(place: Placement) -> set[tuple[int, int]]:
    """Return the (bank, address) pairs that a tensor occupies."""
    span = range(place.base, place.base + place.words)
    banks = (0, 1) if place.split else (place.bank,)
    return {(bank, address) for bank in banks for address in span}


@pytest.mark.parametrize("seed", range(30))
def test_live_tensors_do_not_overlap(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed), Limits(layers=8))
    places, depths = placed(graph)
    names = [INPUT, *(layer.name for layer in graph.layers[:-1])]
    for at, layer in enumerate(graph.layers):
        reads = {layer.source, residual_of(layer)} - {None}
        later = {la.source for la in graph.layers[at:]} | {
            residual_of(la) for la in graph.layers[at:]
        }
        alive = [name for name in names[: at + 1] if name in later or name in reads]
        alive += [layer.name] if layer.name in places else []
        taken: set[tuple[int, int]] = set()
        for name in alive:
            assert not taken & words(places[name]), f"seed {seed}: {name} overlaps in {layer.name}"
            taken |= words(places[name])
        assert all(address < depths[bank] for bank, address in taken)


@pytest.mark.parametrize("seed", range(30))
def test_source_and_residual_lie_in_different_banks(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed), Limits(layers=8))
    places, _ = placed(graph)
    for layer in graph.layers:
        residual = residual_of(layer)
        if residual is not None:
            assert not places[layer.source].split
            assert places[layer.source].bank != places[residual].bank


def test_a_layer_that_adds_its_own_input_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    while True:
        graph = random_graph(rng, Limits(layers=6))
        at = next((i for i, la in enumerate(graph.layers) if residual_of(la) is not None), None)
        if at is not None:
            break
    layer = graph.layers[at]
    assert isinstance(layer, MacLayer)
    assert layer.residual is not None
    same = dataclasses.replace(layer.residual, source=layer.source)
    layers = list(graph.layers)
    layers[at] = dataclasses.replace(layer, residual=same)
    with pytest.raises(UnsupportedModel, match=f"{layer.name}: adds its own input"):
        placed(dataclasses.replace(graph, layers=tuple(layers)))
