"""Tensors that are alive together never share a word, and no layer reads one bank twice."""

import dataclasses

import numpy as np
import pytest

from hwquant.errors import UnsupportedModel
from hwquant.fpga.devices import SPRAM_WORDS
from hwquant.ir import INPUT, ConcatLayer, MacLayer, QuantGraph, sources_of
from hwquant.scheduler.placement import Packing, Placement, operand_of, packings, place
from hwquant.scheduler.plan import Plan
from tests.placeable import placeable_graph
from tests.random_graphs import Limits, random_graph

PLAN = Plan(4, 4, 1)
IN_SPRAMS = Plan(4, 4, 1, "ice40up5k")
BOTH = pytest.mark.parametrize("plan", [PLAN, IN_SPRAMS], ids=["block RAMs", "SPRAMs"])


def placed(graph: QuantGraph, plan: Plan = PLAN) -> tuple[dict[str, Placement], tuple[int, int]]:
    return place(graph, plan, packings(graph, plan)[0])


def words(place: Placement) -> set[tuple[int, int]]:
    """Return the (bank, address) pairs that a tensor occupies."""
    if place.ring:
        return {(place.bank, place.base + word) for word in range(place.ring)}
    pixels = range(place.base, place.base + place.height * place.width * place.pitch, place.pitch)
    planes = range(0, place.plane * (1 if place.split else place.digits), place.plane)
    banks = (0, 1) if place.split else (place.bank,)
    return {
        (bank, plane + pixel + word)
        for bank in banks
        for plane in planes
        for pixel in pixels
        for word in range(place.groups)
    }


@BOTH
@pytest.mark.parametrize("seed", range(30))
def test_live_tensors_do_not_overlap(seed: int, plan: Plan) -> None:
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=8), plan)
    for packing in packings(graph, plan):
        assert_apart(graph, plan, packing, seed)


def assert_apart(graph: QuantGraph, plan: Plan, packing: Packing | None, seed: int) -> None:
    places, depths = place(graph, plan, packing)
    if packing is not None and packing.windows:  # the loader and this layer write at once
        assert places[INPUT].bank != places[packing.layer.name].bank
    names = [INPUT, *(layer.name for layer in graph.layers[:-1])]
    for at, layer in enumerate(graph.layers):
        later = {name for la in graph.layers[at:] for name in sources_of(la)}
        alive = [name for name in names[: at + 1] if name in later]
        alive += [layer.name] if layer.name in places else []
        taken: set[tuple[int, int]] = set()
        for name in {leaf for tensor in alive for leaf in leaves(graph, tensor)}:
            assert not taken & words(places[name]), f"seed {seed}: {name} overlaps in {layer.name}"
            taken |= words(places[name])
        assert all(address < depths[bank] for bank, address in taken)


def leaves(graph: QuantGraph, name: str) -> list[str]:
    """Return the tensors that are written as ``name``: its parts, if it is a concat."""
    layer = next((la for la in graph.layers if la.name == name), None)
    if isinstance(layer, ConcatLayer):
        return [leaf for part in layer.sources for leaf in leaves(graph, part)]
    return [name]


@pytest.mark.parametrize("seed", range(30))
def test_a_concat_is_the_words_of_its_parts(seed: int) -> None:
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=8), PLAN)
    places, _ = placed(graph)
    for layer in graph.layers:
        if isinstance(layer, ConcatLayer):
            parts = [words(places[name]) for name in layer.sources]
            assert words(places[layer.name]) == set().union(*parts), f"seed {seed}: {layer.name}"


@pytest.mark.parametrize("seed", range(30))
def test_source_and_operand_lie_in_different_banks(seed: int) -> None:
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=8), PLAN)
    places, _ = placed(graph)
    for layer in graph.layers:
        operand = operand_of(layer)
        if isinstance(layer, MacLayer) and operand is not None:
            assert not places[layer.source].split
            assert places[layer.source].bank != places[operand].bank


@pytest.mark.parametrize("seed", range(30))
def test_no_layer_writes_to_an_spram_that_it_reads(seed: int) -> None:
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=8), IN_SPRAMS)
    places, depths = placed(graph, IN_SPRAMS)
    assert not any(depth % SPRAM_WORDS for depth in depths)
    for layer in graph.layers[:-1]:
        if not isinstance(layer, ConcatLayer):
            read = {spram for name in sources_of(layer) for spram in sprams(places[name])}
            assert not read & sprams(places[layer.name]), f"seed {seed}: {layer.name}"


def sprams(place: Placement) -> set[tuple[int, int]]:
    """Return the SPRAMs, (bank, number), in which a tensor lies."""
    return {(bank, address // SPRAM_WORDS) for bank, address in words(place)}


def test_what_sprams_do_not_suit_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    graph = placeable_graph(rng, Limits(layers=4), IN_SPRAMS)
    large = dataclasses.replace(graph.input.tensor, height=400, width=400)
    graph = dataclasses.replace(graph, input=dataclasses.replace(graph.input, tensor=large))
    with pytest.raises(UnsupportedModel, match=r"takes \d+ words; an SPRAM holds 16384"):
        placed(graph, IN_SPRAMS)
    while True:  # until a layer reads one part of a concat and writes another
        graph = random_graph(rng, Limits(layers=8))
        try:
            placed(graph)
            placed(graph, IN_SPRAMS)
        except UnsupportedModel as error:
            if "reads and writes parts of" in str(error):
                break


def test_a_layer_that_adds_its_own_input_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    while True:
        graph = random_graph(rng, Limits(layers=6))
        found = [i for i, la in enumerate(graph.layers) if isinstance(la, MacLayer) and la.residual]
        if found:
            at = found[0]
            break
    layer = graph.layers[at]
    assert isinstance(layer, MacLayer)
    assert layer.residual is not None
    same = dataclasses.replace(layer.residual, source=layer.source)
    layers = list(graph.layers)
    layers[at] = dataclasses.replace(layer, residual=same)
    with pytest.raises(UnsupportedModel, match=f"{layer.name}: adds its own input"):
        placed(dataclasses.replace(graph, layers=tuple(layers)))
