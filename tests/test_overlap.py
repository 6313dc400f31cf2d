"""No layer starts before what it needs is there, and none a cycle later than it can."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwquant.importer.load import load
from hwquant.ir import INPUT, QuantGraph, Thresholds
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.program import Schedule
from hwquant.scheduler.schedule import schedule
from tests.by_hand import mac, network, tensor
from tests.placeable import placeable_graph
from tests.random_graphs import Limits
from tests.slow_overlap import collisions, replay

SMALL = Limits(layers=6, channels=12, size=6, kernel=3)
PLANS = [
    Plan(4, 4, 1),
    Plan(8, 8, 4),
    Plan(2, 8, 2),
    Plan(8, 4, 1),
    Plan(4, 4, 2, stream_bits=2),
    Plan(4, 8, 2, "ice40up5k"),
]
STAIRCASE = Thresholds((1, 5, 9), (0, 1, 2, 3))


def found(graph: QuantGraph, program: Schedule) -> list[str]:
    return collisions(program, replay(graph, program))


def assert_least(graph: QuantGraph, program: Schedule, seed: int) -> None:
    """Nothing collides, and would if any layer that waits did so a cycle less."""
    assert not found(graph, program), f"seed {seed}"
    for at, step in enumerate(program.layers[:-1]):
        assert step.flush == 0 or found(graph, sooner(program, at)), f"seed {seed}, {step.name}"


def sooner(program: Schedule, at: int) -> Schedule:
    """Let the layer after layer ``at`` start a cycle earlier."""
    layers = list(program.layers)
    layers[at] = replace(layers[at], cycles=layers[at].cycles - 1)
    return replace(program, layers=tuple(layers))


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_layers_overlap_without_a_collision_and_as_far_as_they_can(plan: Plan) -> None:
    for seed in range(8):
        graph = placeable_graph(np.random.default_rng(seed), SMALL, plan)
        assert_least(graph, schedule(graph, plan), seed)


@pytest.mark.parametrize(
    ("plan", "wants"),
    [
        (Plan(4, 8, 2), {"gate"}),
        (Plan(4, 8, 2), {"concat", "gaps"}),
        (Plan(4, 8, 2), {"detailed residual"}),
        (Plan(4, 8, 2), {"truncated later"}),
        (Plan(8, 8, 2), {"taps apart", "taps turn"}),
        (Plan(16, 8, 4), {"taps from pads"}),
        (Plan(2, 4, 1, stream_bits=8), {"tiles of a sum"}),
        (Plan(8, 8, 2, stream_bits=8), {"taps in tiles"}),
    ],
)
def test_any_kind_of_layer_overlaps_as_far_as_it_can(plan: Plan, wants: set[str]) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        graph = placeable_graph(rng, SMALL, plan, wants=wants)
        assert_least(graph, schedule(graph, plan), seed)


@pytest.mark.parametrize(
    "name", ["mlperf_ic_resnet8", "mlperf_vww_mobilenetv1", "fmnist_silu_se", "fmnist_densenet"]
)
def test_layers_of_trained_networks_overlap_without_a_collision(name: str, shared: Path) -> None:
    graph = quantize(load(shared / "models" / f"{name}.onnx"), QuantConfig())
    program = schedule(graph, Plan(16, 16, 4))
    assert not found(graph, program)
    waiting = [at for at, step in enumerate(program.layers[:-1]) if step.flush]
    assert all(found(graph, sooner(program, at)) for at in waiting[:8])


def test_a_frame_ends_with_the_words_that_nobody_reads() -> None:
    many = Thresholds(tuple(range(1, 46, 3)), (0, *sorted((1, 2, 3) * 5)))
    unread = mac(np.ones((1, 4, 4, 1, 1), int), (4, 1, 1), "unread", activation=many)
    last = mac(np.ones((1, 1, 4, 1, 1), int), (1, 1, 1))
    graph = network(tensor(INPUT, (4, 1, 1)), [unread, last])
    program = schedule(graph, Plan(4, 4, 1))
    assert program.layers[0].flush > 2  # until the drain turns to the last layer
    assert_least(graph, program, 0)


def test_images_overlap_at_once_and_pixels_wait_for_the_last_word() -> None:
    wide = mac(np.ones((1, 8, 4, 1, 1), int), (8, 5, 5), "wide", activation=STAIRCASE)
    last = mac(np.ones((1, 4, 8, 1, 1), int), (4, 5, 5), source="wide")
    image = network(tensor(INPUT, (4, 5, 5)), [wide, last])
    assert schedule(image, Plan(4, 4, 1)).layers[0].flush == 0
    wide = mac(np.ones((1, 8, 4, 1, 1), int), (8, 1, 1), "wide", activation=STAIRCASE)
    last = mac(np.ones((1, 4, 8, 1, 1), int), (4, 1, 1), source="wide")
    pixel = network(tensor(INPUT, (4, 1, 1)), [wide, last])
    to_accumulators = 1 + 3 + (1 + 1 + 3 + 1)  # walk, memory, array
    to_code = 4 + 5 + 2  # operands, requantize, three comparisons at once
    written = to_accumulators + 4 + to_code + 1  # four turns, a word
    second_read = 1 + 2 + 3 + 1  # the next cycle, fetching, the lanes' pace less one, walk
    assert schedule(pixel, Plan(4, 4, 1)).layers[0].flush == written + 1 - second_read
