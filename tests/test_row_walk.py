"""Column by column, every sum still sees its whole window, in the fewest cycles."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest

from hwquant.ir import INPUT, MacLayer, Pads, Pair, QuantGraph, Thresholds
from hwquant.scheduler.channel_walk import channel_walk
from hwquant.scheduler.layout import Layout
from hwquant.scheduler.placement import Placement
from hwquant.scheduler.plan import Plan, tap_columns
from hwquant.scheduler.program import LayerProgram
from hwquant.scheduler.row_walk import RowWalk, row_walks
from hwquant.scheduler.schedule import schedule
from tests.by_hand import mac, network, tensor

PLAN = Plan(8, 8, 2)
STAIRCASE = Thresholds((1, 5, 9), (0, 1, 2, 3))
SIZE = 11  # of the image, square


def depthwise(
    kernel: Pair,
    stride: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    channels: int = 16,
    digits: int = 1,
    **changed: Any,
) -> MacLayer:
    height, width = (
        (SIZE + pads[at] + pads[at + 2] - kernel[at]) // stride[at] + 1 for at in (0, 1)
    )
    weights = np.ones((digits, channels, 1, *kernel), int)
    shape = {"stride": stride, "pads": pads, "groups": channels, "activation": STAIRCASE}
    return mac(weights, (channels, height, width), "depthwise", **shape | changed)


def walks(layer: MacLayer, plan: Plan = PLAN, **changed: Any) -> list[RowWalk]:
    lies = Layout(plan.cols, (layer.channels_in,))
    output = Layout(plan.cols, (layer.output.channels,))
    channels = channel_walk(layer, lies, output, plan.rows, to_memory=True)
    words = lies.words
    source = Placement(0, 0, SIZE * SIZE * words, words, lies, SIZE, SIZE, 1, INPUT)
    given = {"source": source, "output": output, "channels": channels, "digits": 1} | changed
    return row_walks(layer, plan=plan, **given)


def graph_of(layer: MacLayer) -> QuantGraph:
    out = layer.output
    last = mac(
        np.ones((1, 1, out.channels, 1, 1), int), (1, out.height, out.width), source="depthwise"
    )
    return network(tensor(INPUT, (layer.channels_in, SIZE, SIZE)), [layer, last])


def program_of(layer: MacLayer, plan: Plan = PLAN) -> LayerProgram:
    return schedule(graph_of(layer), plan).layers[0]


def test_rows_that_share_dsp_blocks_take_no_taps_of_their_own() -> None:
    sizes = PLAN.rows, PLAN.cols, PLAN.lanes
    assert len(walks(depthwise((3, 3)))) == 2
    assert len(walks(depthwise((3, 3)), Plan(*sizes, "xc7a100t", products="dsp"))) == 1


@pytest.mark.parametrize("right", [0, 1, 2])
@pytest.mark.parametrize("left", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("taps", [2, 3])
def test_each_sum_sees_its_window(taps: int, stride: int, left: int, right: int) -> None:
    layer = depthwise((3, taps), (1, stride), (1, left, 1, right))
    width, height = layer.output.width, layer.output.height
    walk = walks(layer)[-1]
    assert walk.taps == taps
    read, ends = columns_of_row(walk, width, height)
    assert ends == [at * stride - left + taps - 1 for at in range(width)]
    for end in ends:
        unread = set(range(end - taps + 1, end + 1)) - set(read)
        assert all(column < 0 or column >= SIZE for column in unread)  # padding
    assert walk.turns == (ends[-1] >= SIZE)
    assert walk.turns == (ends[-1] not in read)
    assert walk.lead >= 1  # so that no sum takes a tap while the buffer learns the padding


def columns_of_row(walk: RowWalk, width: int, height: int) -> tuple[list[int], list[int]]:
    """Return the columns that are read of a row, and the last ones of its sums' windows."""
    columns, _ = walk.extent(width, height)
    read = [walk.origin + at for at in range(columns)]
    ends = read[walk.lead :: walk.gap + 1]
    return read, ends + [walk.origin + columns] * walk.turns


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("lead", [1, 2, 4])
@pytest.mark.parametrize("gap", [0, 1, 3])
@pytest.mark.parametrize("turns", [False, True])
def test_every_column_without_a_sum_is_counted(
    width: int, lead: int, gap: int, turns: bool
) -> None:
    walk, height, left = RowWalk(1, 1, 0, lead + 1, lead, gap, turns), 3, 0
    columns, rows = walk.extent(width, height)
    runs, run = Counter[int](), 0
    for row in range(rows):
        left = lead
        for column in range(1 if turns and row == rows - 1 else columns):
            if left and not (turns and row and not column):
                run += 1
            else:
                runs[run] += 1
                run = 0
            left = left - 1 if left else gap
    assert run == 0
    found = Counter[int]()
    for fills, count in walk.fills(width, height):
        found[fills] += count
    assert +found == runs


def test_an_image_of_one_row_does_not_turn() -> None:
    layer = depthwise((3, 3), pads=(1, 1, 1, 1))
    assert walks(layer)[-1].turns
    flat = dataclasses.replace(layer, output=dataclasses.replace(layer.output, height=1))
    assert not walks(flat)[-1].turns


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "digits", "steps"),
    [
        # two row groups; lanes take 4 cycles a sum, but none behind a column without; 3 words each
        ((3, 3), (1, 1), (1, 1, 1, 1), 1, 11 * 11 * 2 * 4 + 1 * 2 * 3 - 1),
        ((3, 3), (1, 1), (1, 1, 1, 1), 2, 11 * 11 * 2 * 6 + 1 * 2 * 3),
        ((3, 3), (2, 2), (1, 1, 1, 1), 1, 6 * (6 * 2 * 4) + (1 + 6 * 5) * (2 * 3 - 1)),
        ((3, 3), (2, 2), (1, 1, 1, 1), 2, 6 * (6 * 2 * 6) + (1 + 6 * 5) * 2 * 3),
        ((3, 3), (1, 1), (0, 0, 0, 0), 2, 9 * (9 * 2 * 6 + 2 * 2 * 3)),
        ((3, 3), (3, 3), (0, 0, 0, 0), 2, 3 * (3 * 2 * 6 + 6 * 2 * 3)),
        ((2, 3), (1, 1), (0, 0, 0, 0), 1, 10 * (9 * 2 * 4 + 2 * 2 * 2 - 2)),
    ],
)
def test_steps_are_those_counted_by_hand(
    kernel: Pair, stride: Pair, pads: Pads, digits: int, steps: int
) -> None:
    program = program_of(depthwise(kernel, stride, pads, digits=digits))
    assert program.row.taps == kernel[1]
    assert program.steps == steps


def test_waiting_for_the_lanes_reads_nothing() -> None:
    program = program_of(depthwise((3, 3), pads=(1, 1, 1, 1)))  # 4 cycles a sum of 3 beats
    assert program.steps - program.reads == (11 * 11 * 2 - 1) * (4 - 3)


def test_a_window_whose_sums_hide_behind_the_lanes_is_walked_as_before() -> None:
    program = program_of(depthwise((1, 3)))
    assert (program.row.taps, program.steps) == (1, 11 * 9 * 2 * 4)


@pytest.mark.parametrize("cols", [4, 8, 16])  # of more the kernel's rows fit in a word
def test_the_plain_walk_is_taken_where_it_is_not_slower(cols: int) -> None:
    plan = Plan(cols, cols, 2)
    for kernel, stride in [((3, 3), 1), ((5, 2), 1), ((3, 3), 3), ((1, 3), 1), ((2, 2), 2)]:
        layer = depthwise(kernel, (stride, stride), digits=2)
        program = program_of(layer, plan)
        sums = layer.output.height * layer.output.width * -(-16 // cols)
        plain = sums * max(2 * kernel[0] * kernel[1], plan.chunks)
        assert program.steps <= plain
        assert (program.steps < plain) == (program.row.taps > 1)


@pytest.mark.parametrize(
    ("layer", "plan", "changed"),
    [
        (depthwise((3, 3)), Plan(4, 8, 2), {}),  # rows find their channels in halves of a word
        (depthwise((3, 3)), Plan(4, 4, 2), {}),  # two columns can take a tap
        (depthwise((3, 1)), PLAN, {}),
        (depthwise((1, 3), channels=8), PLAN, {}),  # words that come too soon again
        (dataclasses.replace(depthwise((3, 3)), shared=True), PLAN, {}),
        (mac(np.ones((1, 4, 2, 3, 3), int), (4, 9, 9), groups=4), PLAN, {}),
        (depthwise((3, 3), channels=8), PLAN, {"output": Layout(8, (3, 5))}),
    ],
    ids=["rows", "cols", "width", "words", "shared", "grouped", "gaps"],
)
def test_others_are_walked_window_by_window(
    layer: MacLayer, plan: Plan, changed: dict[str, Any]
) -> None:
    (walk,) = walks(layer, plan, **changed)
    assert walk == RowWalk(layer.kernel[1], layer.stride[1], -layer.pads[1])


@pytest.mark.parametrize(("cols", "columns"), [(2, []), (4, [2, 3]), (8, [2, 6, 3, 7])])
def test_taps_stand_where_digits_wait(cols: int, columns: list[int]) -> None:
    assert tap_columns(cols) == columns
