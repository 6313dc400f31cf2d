"""The accelerator computes docs/semantics.md in the cycles of the schedule, under any stalls."""

import dataclasses

import numpy as np
import pytest

from hwquant.errors import UnsupportedModel
from hwquant.ir import MacLayer, QuantGraph, Tensor, Thresholds
from hwquant.scheduler import weight_stream
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.program import Schedule
from hwquant.scheduler.schedule import schedule
from tests.gateware_bench import run_frames
from tests.placeable import altered_detail, features, placeable_graph
from tests.random_graphs import Drawing, Limits, random_graph, random_images
from tests.slow_golden import run

SMALL = Limits(layers=3, channels=7, size=6, kernel=3)
WIDE = Limits(layers=4, channels=12, size=4, kernel=3)


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


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("plan", "wants"),
    [
        (Plan(4, 4, 2), {"depthwise", "gate"}),
        (Plan(8, 4, 1), {"depthwise", "gaps", "depthwise pads"}),
        (Plan(2, 4, 2), {"9 loops", "gate"}),
        (Plan(4, 4, 1), {"gaps kept", "concat"}),
        (Plan(4, 2, 1), {"row of pixels", "gaps", "depthwise"}),
        (Plan(4, 8, 2), {"packed pads"}),
        (Plan(4, 8, 2), {"windows groups", "windows pads"}),
        (Plan(4, 8, 1), {"windows of two digits", "windows apart"}),
        (Plan(4, 8, 4), {"windows of digits", "windows of two words"}),
        (Plan(8, 8, 4), {"rows are awaited"}),
        (Plan(4, 4, 2), {"detailed residual", "detail pads"}),
        (Plan(4, 4, 1), {"detailed gate", "details unread"}),
        (Plan(8, 4, 2), {"detailed residual", "details pooled"}),
        (Plan(4, 8, 4), {"overlap", "pool after layers"}),
        (Plan(8, 8, 2), {"taps from pads", "gate"}),
        (Plan(8, 8, 4), {"taps apart", "taps of two digits"}),
        (Plan(16, 8, 4), {"taps of two words"}),
        (Plan(8, 8, 4), {"taps turn", "short tail"}),
        (Plan(8, 8, 1), {"taps turn", "taps apart", "short tail"}),
    ],
)
def test_every_kind_of_layer_equals_the_plan(plan: Plan, wants: set[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = placeable_graph(rng, WIDE, plan, wants=wants)
    program, images = schedule(graph, plan), random_images(rng, graph, 2)
    frames = run_frames(graph, program, images)
    np.testing.assert_array_equal(frames.values, golden(graph, images), f"seed {seed}")
    planned = [program.loading.cycles, *(step.cycles for step in program.layers)]
    assert frames.layer_cycles == planned


@pytest.mark.parametrize("seed", [1, 2])
def test_a_last_layer_of_several_taps_waits_for_its_output(seed: int) -> None:
    rng, plan = np.random.default_rng(seed), Plan(8, 8, 4)
    graph = placeable_graph(rng, WIDE, plan, wants={"taps of the last"})
    program, images = schedule(graph, plan), random_images(rng, graph, 2)
    frames = run_frames(graph, program, images, stalls=seed)
    np.testing.assert_array_equal(frames.values, golden(graph, images), f"seed {seed}")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_long_rows_of_pixels_equal_the_plan(seed: int) -> None:
    """Kernels (1, K) of one stride and lopsided pads: networks for sound."""
    rng, plan = np.random.default_rng(seed), Plan(4, 4, 1)
    draw = Drawing(rng, SMALL, (1, 150))
    window = ((1, 9), (1, 2), (0, 3, 0, 5), (1, 75))
    dense = draw.add_mac(draw.mac("dense", draw.tensors[0], window=window))
    window = ((1, 5), (1, 1), (0, 0, 0, 4), (1, 75))
    draw.add_mac(draw.mac("wide", dense, window=window))
    draw.last_layer()
    graph = draw.graph()
    program, images = schedule(graph, plan), random_images(rng, graph, 2)
    frames = run_frames(graph, program, images)
    np.testing.assert_array_equal(frames.values, golden(graph, images), f"seed {seed}")
    assert frames.cycles == program.cycles


@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_details_of_a_concat_equal_the_plan(seed: int) -> None:
    """A detailed concat, gaps between its parts, is added to what a layer makes of it."""
    rng, plan = np.random.default_rng(seed), Plan(8, 4, 2)
    draw = Drawing(rng, SMALL, (3, 4))
    like = dataclasses.replace(draw.tensors[0], parts=2, is_detailed=True)
    same = ((1, 1), (1, 1), (0, 0, 0, 0), (3, 4))

    def plain(name: str, source: Tensor, like: Tensor | None = None) -> Tensor:
        layer = draw.mac(name, source, window=same, like=like)
        return draw.add_mac(dataclasses.replace(layer, residual=None))

    whole = draw.concat("ab", [plain(name, draw.tensors[0], like) for name in "ab"])
    middle = plain("middle", whole)
    layer = draw.mac("sum", middle, window=same, channels=whole.channels)
    while layer.operand != whole.name:
        layer = draw.mac("sum", middle, window=same, channels=whole.channels)
    draw.add_mac(layer)
    draw.last_layer()
    graph = draw.graph()
    program, images = schedule(graph, plan), random_images(rng, graph, 2)
    assert "details of a concat" in features(graph, program)
    frames = run_frames(graph, program, images)
    np.testing.assert_array_equal(frames.values, golden(graph, images), f"seed {seed}")
    assert frames.cycles == program.cycles


@pytest.mark.parametrize("seed", range(6))
def test_frames_of_one_beat_follow_each_other(seed: int) -> None:
    rng, plan = np.random.default_rng(seed), Plan(4, 4, 2)
    graph = placeable_graph(rng, dataclasses.replace(SMALL, size=1), plan)
    images = random_images(rng, graph, 3)
    frames = run_frames(graph, schedule(graph, plan), images)
    np.testing.assert_array_equal(frames.values, golden(graph, images), f"seed {seed}")


@pytest.mark.parametrize(
    ("plan", "wants"),
    [
        (Plan(1, 2, 1, stream_bits=8), {"tiles"}),  # a beat a word
        (Plan(2, 4, 1, stream_bits=4), {"tiles", "gate", "tiles of a sum"}),
        (Plan(4, 4, 2, stream_bits=1), {"tiles", "concat", "tiles of a sum"}),
        (Plan(4, 4, 1, stream_bits=8), {"tiles", "depthwise", "depthwise pads"}),
        (Plan(2, 4, 2, stream_bits=8), {"10 loops"}),
        (Plan(8, 4, 2, stream_bits=4), {"tiles", "gaps kept"}),
        (Plan(4, 4, 2, stream_bits=2), {"tiles", "detailed residual"}),
        (Plan(4, 8, 2, stream_bits=4), {"tiles", "windows"}),
        (Plan(8, 8, 4, stream_bits=32), {"rows are awaited"}),
    ],
)
def test_streamed_weights_equal_the_plan(
    plan: Plan, wants: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_stream, "LEAST_WORDS", 1)  # so that the buffer is full at times
    rng = np.random.default_rng(1)
    graph = placeable_graph(rng, WIDE, plan, wants=wants)
    program, images = schedule(graph, plan), random_images(rng, graph, 2)
    expected = golden(graph, images)
    frames = run_frames(graph, program, images)
    np.testing.assert_array_equal(frames.values, expected)
    planned = [program.loading.cycles, *(step.cycles for step in program.layers)]
    assert frames.layer_cycles == planned
    assert frames.cycles == program.cycles
    stalled = run_frames(graph, program, images, stalls=1, reset_after=program.cycles // 2)
    np.testing.assert_array_equal(stalled.values, expected)


def test_plan_does_not_change_codes() -> None:
    plans = (
        Plan(1, 2, 1),
        Plan(4, 4, 1),
        Plan(8, 2, 1),
        Plan(2, 16, 1),
        Plan(2, 4, 1, stream_bits=4),
    )
    rng = np.random.default_rng(8)
    graph = placeable_graph(rng, WIDE, *plans, wants={"gate", "concat"})
    images = random_images(rng, graph, 1)
    expected = golden(graph, images)
    for plan in plans:
        values = run_frames(graph, schedule(graph, plan), images).values
        np.testing.assert_array_equal(values, expected, str(plan))


def test_one_altered_threshold_is_seen() -> None:
    for seed in range(100):
        graph, program, rng = draw(seed)
        altered, images = altered_threshold(graph), random_images(rng, graph, 4)
        if altered is None or np.array_equal(golden(altered, images), golden(graph, images)):
            continue  # no values between the two thresholds
        values = run_frames(altered, schedule(altered, program.plan), images).values
        assert not np.array_equal(values, golden(graph, images)), f"seed {seed}"
        return
    pytest.fail("no such network")


@pytest.mark.parametrize("want", ["detailed residual", "detailed gate"])
def test_one_altered_entry_of_a_detail_table_is_seen(want: str) -> None:
    plan = Plan(4, 4, 2)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        graph = placeable_graph(rng, SMALL, plan, wants={want})
        altered, images = altered_detail(graph), random_images(rng, graph, 2)
        if np.array_equal(golden(altered, images), golden(graph, images)):
            continue  # no operand has that digit
        values = run_frames(altered, schedule(altered, plan), images).values
        assert not np.array_equal(values, golden(graph, images)), f"seed {seed}"
        return
    pytest.fail("no such network")


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
