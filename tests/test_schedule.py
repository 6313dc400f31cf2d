"""The program walks every address once and counts every cycle."""

import itertools

import numpy as np
import pytest

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.gateware.images import weight_words
from hwquant.ir import INPUT, MacLayer, Thresholds
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.program import Loops
from hwquant.scheduler.schedule import schedule
from tests.by_hand import mac, network, tensor
from tests.placeable import placeable_graph
from tests.random_graphs import Limits, random_graph

PLAN = Plan(4, 4, 1)


@pytest.mark.parametrize(
    ("digits", "is_truncated"), [((1, 2), False), ((2, 2), False), ((2, 2), True), ((2, 3), True)]
)
def test_steps_of_a_level_return_to_its_affine_address(
    digits: tuple[int, int], is_truncated: bool
) -> None:
    strides = (1, 5, -7, 13, 11, 0, 2, 30)
    loops = Loops((3, 2, 4, *digits, 1, 3, 2), strides, (0,) * 8, is_truncated)
    deltas = loops.deltas(loops.act_strides)
    address, walked = 0, []
    last = digits[0] - 1, digits[1] - 1
    indices = [
        index
        for index in itertools.product(*(range(count) for count in reversed(loops.counts)))
        if not is_truncated or index[::-1][3:5] != last
    ]
    for now, then in itertools.pairwise([*indices, indices[0]]):
        walked.append(address)
        level = max((i for i in range(8) if now[::-1][i] != then[::-1][i]), default=7)
        address += deltas[level]
    assert len(indices) == loops.steps_per_sum * loops.sums
    wanted = [
        sum(i * s for i, s in zip(index[::-1], loops.act_strides, strict=True)) for index in indices
    ]
    assert walked == wanted


@pytest.mark.parametrize("seed", range(20))
def test_weight_memory_is_as_deep_as_the_program_says(seed: int) -> None:
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=6), PLAN)
    program = schedule(graph, PLAN)
    code = range(1 << graph.weight_bits - 1)
    assert len(weight_words(graph, program, code)) == program.weight_words
    total = sum(step.cycles for step in program.layers) + program.loading.cycles
    assert total == program.cycles


@pytest.mark.parametrize(
    ("channels", "digits", "steps"),
    [
        # sums of one beat; 4 lanes of 16 rows
        (4, 1, 1),
        (8, 1, 2),
        (16, 1, 4),
        (24, 1, 4 + 2),
        (32, 1, 4 + 4),
        (8, 2, 2),
        (20, 2, 5 + 2),  # a word with a single chunk of two digits takes one more
    ],
)
def test_sums_wait_for_the_lanes_as_long_as_their_channels_take(
    channels: int, digits: int, steps: int
) -> None:
    activation = Thresholds((1, 5, 9), (0, 1, 2, 3))
    out = tensor("wide", (channels, 5, 3), digits)
    wide = mac(
        np.ones((1, channels, 16, 1, 1), int),
        (channels, 5, 3),
        "wide",
        activation=activation,
        output=out,
    )
    last = mac(np.ones((1, 1, channels, 1, 1), int), (1, 5, 3), source="wide")
    graph = network(tensor(INPUT, (16, 5, 3)), [wide, last])
    program = schedule(graph, Plan(16, 16, 4)).layers[0]
    assert program.steps == 5 * 3 * steps
    assert program.reads == 5 * 3 * -(-channels // 16)


@pytest.mark.parametrize("seed", range(5))
def test_details_cost_the_array_no_beat(seed: int) -> None:
    """One pass over the first digits, and the words of both digits in memory."""
    wants = {"details unread", "detailed residual"}
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=6), PLAN, wants=wants)
    for step in schedule(graph, PLAN).layers:
        digits = graph.tensor(step.layer.source).read_parts
        if isinstance(step.layer, MacLayer):
            beats = digits * len(step.layer.weights) * step.kernel[0] * step.kernel[1]
            assert step.loops.steps_per_sum == beats * step.walk.count
            assert (step.residual is None) == (step.layer.operand is None)
            if step.residual is not None:
                assert step.turn_cycles == step.residual.digits


@pytest.mark.parametrize("seed", range(20))
def test_macs_do_not_depend_on_the_plan(seed: int) -> None:
    plans = (PLAN, Plan(8, 8, 1), Plan(1, 2, 1))
    graph = placeable_graph(np.random.default_rng(seed), Limits(layers=6), *plans)
    macs = {tuple(step.macs for step in schedule(graph, plan).layers) for plan in plans}
    assert len(macs) == 1
    for step in schedule(graph, PLAN).layers:
        layer = step.layer
        if isinstance(layer, MacLayer) and not layer.shared:
            out = layer.output
            digits = len(graph.input.tables) if layer.source == INPUT else 1
            assert step.macs == out.height * out.width * layer.weights[0].size // digits


@pytest.mark.parametrize(
    ("rows", "cols", "lanes", "words"),
    [
        (3, 4, 1, "rows=3: must be a power of two in 1..64"),
        (4, 1, 1, "cols=1: must be a power of two in 2..64"),
        (4, 4, 4, "lanes=4: must be a power of two in 1..2"),
        (128, 4, 1, "rows=128"),
    ],
)
def test_plans_out_of_range_are_refused_with_the_range(
    rows: int, cols: int, lanes: int, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        Plan(rows, cols, lanes)


def test_lanes_that_do_not_divide_a_residuals_channels_are_refused_by_name() -> None:
    for seed in range(100):
        graph = random_graph(np.random.default_rng(seed), Limits(layers=6))
        moved = [
            layer.name
            for layer in graph.layers
            if isinstance(layer, MacLayer)
            and layer.residual is not None
            and layer.residual.channel_offset % 4
        ]
        if moved:
            with pytest.raises(UnsupportedModel) as refused:
                schedule(graph, Plan(8, 8, 4))
            if "in one bank" in str(refused.value):
                continue
            assert str(refused.value).startswith(f"{moved[0]}: residual moved by")
            return
    pytest.fail("no such network among the first hundred")
