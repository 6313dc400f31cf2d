"""Every cycle of a frame belongs to one component, and effort is counted as by hand."""

from dataclasses import replace

import numpy as np
import pytest

from hwquant.effort import Shares, activation_ace, mac_ace, measure
from hwquant.ir import (
    INPUT,
    ConcatLayer,
    Gate,
    MacLayer,
    MaxPoolLayer,
    QuantGraph,
    Residual,
    Saturate,
    Thresholds,
)
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.schedule import schedule
from tests.by_hand import mac, network, tensor
from tests.placeable import placeable_graph
from tests.random_graphs import Limits

PLANS = (Plan(4, 4, 1), Plan(4, 4, 2), Plan(8, 8, 2), Plan(4, 4, 1, stream_bits=1))
STAIRCASE = Thresholds((1, 5, 9), (0, 1, 2, 3))  # two comparisons


@pytest.mark.parametrize("seed", range(20))
def test_components_add_up_to_the_cycles_of_the_schedule(seed: int) -> None:
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=6), *PLANS)
    for plan in PLANS:
        program = schedule(graph, plan)
        load, *steps = measure(graph, program)
        assert (load.name, load.cycles.total) == ("load", program.loading.cycles)
        assert [step.name for step in steps] == [layer.name for layer in graph.layers]
        cycles = {step.name: step.cycles for step in program.layers}
        for step, layer in zip(steps, graph.layers, strict=True):
            parts = step.cycles
            assert parts.total == cycles.get(layer.name, 0), f"seed {seed}: {layer.name}"
            least = (parts.macs, parts.requantize, parts.activation, parts.pool, parts.other)
            assert min(least) >= 0
            match layer:
                case MacLayer():
                    assert parts.macs > 0
                    assert layer.activation is not None or parts.activation == 0
                case MaxPoolLayer():
                    assert parts.pool == parts.total
                case ConcatLayer():
                    assert parts.total == 0
                case _:
                    pytest.fail(f"{layer.name}: no such layer is drawn")
        assert load.cycles.total + sum(step.cycles.total for step in steps) == program.cycles


@pytest.mark.parametrize("seed", range(5))
def test_arithmetic_effort_does_not_depend_on_the_plan(seed: int) -> None:
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=6), *PLANS)
    efforts = {tuple(step.ace for step in measure(graph, schedule(graph, plan))) for plan in PLANS}
    assert len(efforts) == 1


def first_of_two(plan: Plan, size: int) -> Shares:
    """Cycles of a 1 x 1 kernel on 4 channels, whose sums are a beat, before another one."""
    staircase = Thresholds(tuple(range(1, 46, 3)), (0, *sorted((1, 2, 3) * 5)))
    layer = mac(np.ones((1, 4, 4, 1, 1), int), (4, size, size), "first", activation=staircase)
    last = mac(np.ones((1, 4, 4, 1, 1), int), (4, size, size), source="first")
    graph = network(tensor(INPUT, (4, size, size)), [layer, last])
    return measure(graph, schedule(graph, plan))[1].cycles


def test_waiting_for_lanes_is_the_requantizers() -> None:
    """The pipeline costs nothing: the next layer reads what was written long ago."""
    fetching, waits = 2, 25 * 3  # for one lane; for two 25
    assert first_of_two(Plan(4, 4, 1), 5) == Shares(macs=25, requantize=waits, other=fetching)
    assert first_of_two(Plan(4, 4, 2), 5) == Shares(macs=25, requantize=25, other=fetching)


def test_waiting_for_a_pixel_is_for_where_its_sum_is_meanwhile() -> None:
    array, drained, to_value = 1 + 1 + 3 + 1 + 1, 1, 4 + 5  # a chain of four, a tree of two
    to_code, to_word = 1 + 4, 1
    pipeline = 1 + 3 + array + drained + to_value + to_code + to_word
    wait = pipeline + 1 - (1 + 2 + 1)  # until the word can be read, as it is after fetching
    assert first_of_two(Plan(4, 8, 4), 1) == Shares(
        macs=1 + array,
        requantize=drained + to_value,
        activation=wait - (1 + 3 + array + drained + to_value),
        other=2 + 1 + 3,
    )


def test_effort_of_a_layer_is_that_counted_by_hand() -> None:
    layer = mac(
        np.ones((1, 2, 4, 1, 1), int),
        (2, 5, 5),
        multiplier=np.array([5, 9]),
        acc_bits=7,
        value_bits=11,
        activation=STAIRCASE,
    )
    found = mac_ace(graph_of(layer), layer, 200)
    assert found == Shares(macs=200 * 3 * 2, requantize=50 * 7 * 4, activation=50 * 11 * 3)


def test_all_digits_of_both_operands_count() -> None:
    """But for the product of last digits of pixels and weights, which is left out."""
    made = tensor("first", (4, 5, 5), parts=2)
    first = mac(
        np.ones((2, 4, 4, 1, 1), int), made.shape, "first", output=made, activation=STAIRCASE
    )
    layer = mac(np.ones((2, 2, 4, 1, 1), int), (2, 5, 5), source="first")
    graph = network(tensor(INPUT, (4, 5, 5), parts=2), [first, layer])
    assert mac_ace(graph, first, 400).macs == 400 * (3 * 2) * 3
    assert mac_ace(graph, layer, 200).macs == 200 * (3 * 2) * 4


@pytest.mark.parametrize(
    ("operand", "bits"),
    [
        (tensor("beside", (2, 5, 5)), 2),  # 3
        (tensor("beside", (2, 5, 5), parts=2), 5),  # 3 * 8 + 3
        (replace(tensor("beside", (2, 5, 5), parts=2), is_detailed=True), 7),  # 60 + 5
        (replace(tensor("beside", (2, 5, 5)), value_bits=9), 9),
    ],
)
def test_a_residual_adds_its_level_times_its_multiplier(operand: object, bits: int) -> None:
    plain = mac(np.ones((1, 2, 4, 1, 1), int), (2, 5, 5), acc_bits=7)
    residual = Residual("beside", (1, 1), 0, np.array([6, 6]))
    beside = mac(np.ones((1, 2, 4, 1, 1), int), (2, 5, 5), "beside", output=operand)
    if beside.output.value_bits:
        beside = replace(beside, activation=Saturate(9))
    elif beside.output.is_detailed:
        beside = replace(beside, activation=Thresholds((1,), (4, 15)))
    else:
        beside = replace(beside, activation=Thresholds((1,), (0, 3)))
    graph = network(tensor(INPUT, (4, 5, 5)), [beside, plain], part_shift=3)
    graph = replace(graph, detail_tables=np.array([[0, 10, 20, 60], [-3, 0, 4, 5]]))
    more = mac_ace(graph, replace(plain, residual=residual), 200)
    less = mac_ace(graph, plain, 200)
    assert more == replace(less, requantize=less.requantize + 50 * bits * 3)


def test_a_gate_multiplies_the_sum_before_the_multiplier_does() -> None:
    plain = mac(np.ones((1, 2, 4, 1, 1), int), (2, 1, 1), acc_bits=7, multiplier=np.array([5, 9]))
    gating = mac(np.ones((1, 2, 4, 1, 1), int), (2, 1, 1), "gate", activation=STAIRCASE)
    graph = network(tensor(INPUT, (4, 1, 1)), [gating, plain])
    gated = replace(plain, gate=Gate("gate", np.zeros(2, np.int64), 10))
    assert mac_ace(graph, gated, 8).requantize == 2 * (7 * 2 + 10 * 4)


def test_a_max_pool_compares_all_digits() -> None:
    pool = MaxPoolLayer("pool", INPUT, (2, 3), (1, 1), (0, 0, 0, 0), tensor("pool", (4, 4, 3), 2))
    last = mac(np.ones((1, 2, 4, 1, 1), int), (2, 4, 3), source="pool")
    graph = network(tensor(INPUT, (4, 5, 5), parts=2), [pool, last])
    found = measure(graph, schedule(graph, PLANS[0]))[1]
    assert found.ace == Shares(pool=4 * 4 * 3 * (2 * 3 - 1) * 4)


def test_a_code_costs_its_comparisons_or_its_shift() -> None:
    fifteen = Thresholds(tuple(range(15)), tuple(range(16)))
    assert activation_ace(fifteen, 21) == 21 * 4
    assert activation_ace(Thresholds(tuple(range(16)), tuple(range(17))), 21) == 21 * 5
    assert activation_ace(Thresholds(tuple(range(7)), tuple(range(8))), 21) == 21 * 3
    assert activation_ace(Thresholds(tuple(range(6)), tuple(range(7))), 21) == 21 * 6  # at once
    assert activation_ace(Saturate(16), 21) == 2 * 21
    assert activation_ace(None, 21) == 0


def graph_of(layer: MacLayer) -> QuantGraph:
    """Make a network of one layer on 4 channels of 5 x 5 pixels."""
    return network(tensor(INPUT, (4, 5, 5)), [layer])
