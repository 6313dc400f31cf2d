"""Tiles walk what layers walked before, and waits are those of a slow, obvious model."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.ir import QuantGraph
from hwquant.scheduler import weight_stream
from hwquant.scheduler.plan import FETCH_CYCLES, RELEASE_DELAY, Plan
from hwquant.scheduler.program import SUM_LEVELS, LayerProgram, Schedule
from hwquant.scheduler.schedule import schedule
from tests.placeable import placeable_graph
from tests.random_graphs import Limits
from tests.slow_loader import SlowLoader

LIMITS = Limits(layers=4, channels=20, size=4, kernel=3)
SHAPES = [(1, 2, 1), (2, 4, 1), (2, 8, 2), (4, 4, 2), (8, 4, 1), (16, 4, 2)]


def draw(seed: int, shape: tuple[int, int, int], bits: int = 1) -> tuple[QuantGraph, Plan]:
    plan = Plan(*shape, stream_bits=bits)
    return placeable_graph(np.random.default_rng(seed), LIMITS, plan), plan


def walked(program: LayerProgram) -> list[tuple[int, int]]:
    """Return the addresses of all steps of a layer in their order."""
    loops = program.loops
    steps = itertools.product(*(range(count) for count in reversed(loops.counts)))
    strides = (loops.act_strides[::-1], loops.weight_strides[::-1])
    return [
        (
            sum(i * stride for i, stride in zip(step, strides[0], strict=True)),
            sum(i * stride for i, stride in zip(step, strides[1], strict=True)),
        )
        for step in steps
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_a_layer_reads_the_same_tile_by_tile(seed: int, shape: tuple[int, int, int]) -> None:
    graph, plan = draw(seed, shape)
    pairs = zip(schedule(graph, plan).layers, schedule(graph, Plan(*shape)).layers, strict=True)
    for streamed, whole in pairs:
        steps = walked(streamed)
        assert Counter(steps) == Counter(walked(whole))
        size = len(steps) // streamed.tiles
        for tile in range(streamed.tiles):
            words = {word for _, word in steps[tile * size : (tile + 1) * size]}
            first = tile * streamed.tile_words
            assert words == set(range(first, first + max(1, streamed.tile_words)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_tiles_make_whole_words_and_the_last_layer_whole_pixels(
    seed: int, shape: tuple[int, int, int]
) -> None:
    graph, plan = draw(seed, shape)
    for program in schedule(graph, plan).layers:
        channels = program.walk.row_groups // program.tiles * plan.rows
        assert program.tiles == 1 or channels % plan.cols == 0
        if program.output is None and program.layer.output.height * program.layer.output.width > 1:
            assert program.tiles == 1
        elif program.output is not None:
            assert program.output.groups % program.tiles == 0


def test_a_tile_is_one_row_group_where_rows_fill_words() -> None:
    graph, plan = draw(1, (4, 4, 2))
    middle = [p for p in schedule(graph, plan).layers if p.kind == "mac" and p.output]
    assert any(program.tiles > 1 for program in middle)
    for program in middle:
        assert program.tiles == program.walk.row_groups // program.walk.repeat


# ---------------------------------------------------------------- waits


def slow_waits(program: Schedule, beats: int) -> list[int]:
    """Return the waits of each layer, cycle by cycle."""
    loading = program.loading
    sizes = [step.tile_words for step in program.layers for _ in range(step.tiles)]
    total, depth = sum(sizes), program.buffer_words
    cycle, beat, written, released = -loading.lead_cycles, 0, 0, 0
    loader = SlowLoader(program)
    releases: list[tuple[int, int]] = []
    there: dict[int, int] = {}  # words -> the first cycle in which so many may be read
    found: list[int] = []

    def pass_cycle() -> None:
        nonlocal cycle, beat, written, released
        released += sum(words for at, words in releases if at + RELEASE_DELAY == cycle)
        if written < total and (beat < beats - 1 or written - released < depth):
            beat += 1
            if beat == beats:
                beat, written = 0, written + 1
                there[written] = cycle + 1
        loader.pass_cycle()
        cycle += 1

    needed = 0
    while cycle < loading.cycles:
        pass_cycle()
    for step in program.layers:
        start = cycle
        for _ in range(FETCH_CYCLES):
            pass_cycle()
        ready = cycle  # in which the pace allows the next sum to end, at the earliest
        groups = math.prod(step.loops.counts[SUM_LEVELS:-3])
        for _ in range(step.tiles):
            needed += step.tile_words
            ready += step.last_pace - 1
            while needed and there.get(needed, cycle + 1) > cycle:
                pass_cycle()
            sums = step.loops.sums // step.tiles
            for at in range(sums):
                while step.source.ring and not loader.rows:
                    pass_cycle()
                    ready += 1
                for _ in range(step.loops.steps_per_sum - 1):
                    pass_cycle()
                while cycle < ready:
                    pass_cycle()
                is_last = at % groups == groups - 1  # of its pixel
                # of the next sum's end
                ready = cycle + (step.last_pace if is_last else step.pace)
                if at == sums - 1:
                    releases.append((cycle, step.tile_words))
                is_end = step.source.ring and (at + 1) % (sums // step.layer.output.height) == 0
                pass_cycle()
                loader.release(is_end)
            ready = releases[-1][0] + 1
        found.append(cycle - start - FETCH_CYCLES - (step.steps - step.waits))
        while cycle < start + step.cycles:
            pass_cycle()
    return found


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("least", [1, 512])
def test_waits_are_those_of_the_slow_model(
    shape: tuple[int, int, int], bits: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_stream, "LEAST_WORDS", least)
    for seed in range(3):
        graph, plan = draw(seed, shape, bits)
        program = schedule(graph, plan)
        beats = weight_stream.beats_of_word(graph, plan)
        waits = [step.waits for step in program.layers]
        assert waits == slow_waits(program, beats), f"seed {seed}"
        whole = schedule(graph, Plan(*shape))
        later = 0
        for step, other in zip(program.layers, whole.layers, strict=True):
            pixels = step.layer.output.height * step.layer.output.width
            slower = pixels * (step.last_pace - other.last_pace)
            assert not slower or step.tiles > 1
            later += slower
        walked, anyway = (sum(step.walk_cycles for step in of.layers) for of in (program, whole))
        assert walked == anyway + later
        for step in program.layers:
            assert step.cycles == FETCH_CYCLES + step.steps + step.flush


def test_more_bits_a_cycle_never_wait_longer() -> None:
    graph, _ = draw(5, (4, 4, 2))
    word = 16 * graph.weight_bits
    plans = [Plan(4, 4, 2, stream_bits=bits) for bits in (1, 2, 4, 8, 16) if word % bits == 0]
    cycles = [schedule(graph, plan).cycles for plan in plans]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] > cycles[-1]


def test_the_buffer_holds_any_tile_twice() -> None:
    for seed, shape in itertools.product(range(3), SHAPES):
        graph, plan = draw(seed, shape)
        program = schedule(graph, plan)
        largest = max(step.tile_words for step in program.layers)
        assert program.buffer_words >= 2 * largest
        assert program.buffer_words & (program.buffer_words - 1) == 0
        assert program.weight_depth == program.buffer_words


def test_beats_that_make_no_words_are_refused_with_the_sizes() -> None:
    graph, _ = draw(1, (1, 2, 1))
    with pytest.raises(UnsupportedModel, match="weight stream of 64 bits: must divide a word of 1"):
        schedule(graph, Plan(1, 2, 1, stream_bits=64))
    with pytest.raises(BadInput, match=r"stream_bits=2048: must be a power of two in 1\.\.1024"):
        Plan(1, 2, 1, stream_bits=2048)
    with pytest.raises(BadInput, match="stream_bits=0"):
        Plan(1, 2, 1, stream_bits=0)
