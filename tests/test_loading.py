"""Rows of windows arrive, and are waited for, as a slow, obvious model says."""

import numpy as np
import pytest

from hwquant.ir import INPUT, QuantGraph, Thresholds
from hwquant.scheduler.placement import packings
from hwquant.scheduler.plan import FETCH_CYCLES, Plan
from hwquant.scheduler.program import Schedule
from hwquant.scheduler.schedule import schedule
from tests.by_hand import mac, network, tensor
from tests.placeable import placeable_graph
from tests.random_graphs import Limits
from tests.slow_loader import SlowLoader

LIMITS = Limits(layers=3, channels=8, size=9, kernel=3)
STAIRCASE = Thresholds((1, 5, 9), (0, 1, 2, 3))
PLANS = [Plan(4, 8, 1), Plan(8, 8, 4), Plan(16, 16, 8), Plan(64, 16, 8)]


def slow_cycles(program: Schedule) -> tuple[int, int]:
    """Return the cycles until the first layer starts, and those in which it then waits."""
    loader, first = SlowLoader(program), program.layers[0]
    loads = waits = 0
    while not loader.rows:
        loader.pass_cycle()
        loads += 1
    for _ in range(1 + FETCH_CYCLES):  # it is seen, and the layer starts
        loader.pass_cycle()
    for _ in range(first.layer.output.height):
        while not loader.rows:
            loader.pass_cycle()
            waits += 1
        for _ in range(first.walk_cycles // first.layer.output.height):
            loader.pass_cycle()
        loader.release(1)
    return loads + 1 - program.loading.lead_cycles, waits


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("wants", [{"windows"}, {"rows are awaited"}], ids=str)
def test_the_first_layer_waits_for_rows_as_the_slow_model_does(plan: Plan, wants: set[str]) -> None:
    for seed in range(5):
        graph = placeable_graph(np.random.default_rng(seed), LIMITS, plan, wants=wants)
        program = schedule(graph, plan)
        found = program.loading.cycles, program.layers[0].row_waits
        assert found == slow_cycles(program), f"seed {seed}"


def conv(channels: int, size: tuple[int, int], kernel: tuple[int, int]) -> QuantGraph:
    """Build a convolution without padding of two channels, and a layer that reads them."""
    out = (2, size[0] - kernel[0] + 1, size[1] - kernel[1] + 1)
    first = mac(np.ones((1, 2, channels, *kernel), int), out, "first", activation=STAIRCASE)
    last = mac(np.ones((1, 1, 2, 1, 1), int), (1, *out[1:]), source="first")
    return network(tensor(INPUT, (channels, *size)), [first, last])


@pytest.mark.parametrize(
    ("channels", "kernel", "words"), [(3, (3, 3), 2), (1, (10, 4), 3), (1, (4, 4), 1)]
)
def test_windows_fill_their_words(channels: int, kernel: tuple[int, int], words: int) -> None:
    program = schedule(conv(channels, (12, 12), kernel), Plan(16, 16, 8))
    assert program.input.groups == program.layers[0].loops.steps_per_sum == words
    assert program.loading.cycles < program.loading.beats
    assert program.bank_words[program.input.bank] >= program.input.ring >= 2 * program.input.row


def test_rows_are_stored_where_windows_save_no_cycle() -> None:
    graph, plan = conv(4, (1, 9), (1, 4)), Plan(4, 16, 2)
    assert [packing and packing.windows for packing in packings(graph, plan)] == [False, True]
    assert not schedule(graph, plan).input.ring


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (conv(9, (12, 12), (3, 3)), "a pixel fills more than half a word"),
        (conv(1, (12, 2), (3, 1)), "a line is shorter than the line buffer's delay"),
        (conv(1, (12, 12), (1, 1)), "a window is a pixel"),
    ],
)
def test_windows_are_left_out(graph: QuantGraph, reason: str) -> None:
    assert packings(graph, Plan(16, 16, 8)) == [None], reason
