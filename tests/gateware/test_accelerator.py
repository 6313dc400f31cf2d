"""The accelerator computes docs/semantics.md in the cycles of the schedule, under any stalls."""

import dataclasses

import numpy as np
import pytest

from hwquant.errors import UnsupportedModel
from hwquant.ir import MacLayer, QuantGraph, Thresholds
from hwquant.plan import Plan
from hwquant.schedule import Schedule, schedule
from tests.gateware_bench import run_frames
from tests.random_graphs import Limits, random_graph, random_images
from tests.slow_golden import run

SMALL = Limits(layers=3, channels=7, size=6, kernel=3)


def draw(seed: int) -> tuple[QuantGraph, Schedule, np.random.Generator]:
    """Draw a network and a plan that it can run on."""
    rng = np.random.default_rng(seed)
    while True:
        graph = random_graph(rng, SMALL)
        lanes = int(2 ** rng.integers(0, 3))
        cols = max(2 * lanes, int(2 ** rng.integers(1, 4)))
        rows = max(lanes, int(2 ** rng.integers(0, 4)))
        try:
            return graph, schedule(graph, Plan(rows, cols, lanes)), rng
        except UnsupportedModel:
            continue  # a residual moved by channels that these lanes do not divide


def golden(graph: QuantGraph, images: np.ndarray) -> np.ndarray:
    return run(graph, images)[graph.layers[-1].name]


@pytest.mark.parametrize("seed", range(10))
def test_codes_and_cycles_equal_the_plan(seed: int) -> None:
    graph, program, rng = draw(seed)
    images = random_images(rng, graph, 2)
    frames = run_frames(graph, program, images)
    np.testing.assert_array_equal(frames.values, golden(graph, images), f"seed {seed}")
    assert frames.cycles == program.cycles
    planned = [program.loading.cycles, *(step.cycles for step in program.layers)]
    assert frames.layer_cycles == planned


@pytest.mark.parametrize("seed", range(100, 105))
def test_stalls_do_not_change_codes(seed: int) -> None:
    graph, program, rng = draw(seed)
    images = random_images(rng, graph, 2)
    frames = run_frames(graph, program, images, stalls=seed)
    np.testing.assert_array_equal(frames.values, golden(graph, images), f"seed {seed}")


@pytest.mark.parametrize("seed", range(200, 203))
def test_reset_at_any_time_starts_afresh(seed: int) -> None:
    graph, program, rng = draw(seed)
    images = random_images(rng, graph, 1)
    at = int(rng.integers(1, program.cycles))
    frames = run_frames(graph, program, images, reset_after=at)
    np.testing.assert_array_equal(frames.values, golden(graph, images), f"seed {seed}, reset {at}")


def test_plan_does_not_change_codes() -> None:
    graph, _, rng = draw(7)
    images = random_images(rng, graph, 1)
    expected = golden(graph, images)
    for plan in (Plan(1, 2, 1), Plan(4, 4, 1), Plan(8, 2, 1), Plan(2, 16, 1)):
        values = run_frames(graph, schedule(graph, plan), images).values
        np.testing.assert_array_equal(values, expected, str(plan))


def test_one_altered_threshold_is_seen() -> None:
    seed = next(seed for seed in range(50) if altered_threshold(draw(seed)[0]) is not None)
    graph, program, rng = draw(seed)
    altered = altered_threshold(graph)
    assert altered is not None
    images = random_images(rng, graph, 4)
    values = run_frames(altered, schedule(altered, program.plan), images).values
    assert not np.array_equal(values, golden(graph, images)), f"seed {seed}"


def altered_threshold(graph: QuantGraph) -> QuantGraph | None:
    """Move the lowest threshold of the last staircase past the second; ``None`` without one."""
    for at, layer in reversed(list(enumerate(graph.layers))):
        if isinstance(layer, MacLayer) and isinstance(layer.activation, Thresholds):
            record = layer.activation
            low = record.thresholds[1] - 1
            changed = Thresholds((low, *record.thresholds[1:]), record.codes)
            layers = list(graph.layers)
            layers[at] = dataclasses.replace(layer, activation=changed)
            return dataclasses.replace(graph, layers=tuple(layers))
    return None
