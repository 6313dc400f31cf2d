"""Channels lie where the words of their part are, and row groups read the words they need."""

import numpy as np
import pytest

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.ir import INPUT, ConcatLayer, MacLayer, Residual, Thresholds
from hwquant.scheduler.channel_walk import ChannelWalk, channel_walk
from hwquant.scheduler.layout import Layout, Part, layouts, parts
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.schedule import schedule
from tests.test_golden import mac, network, tensor


def test_parts_start_at_words_of_their_own() -> None:
    layout = Layout(4, (5, 4, 2))
    assert layout.words == 2 + 1 + 1
    assert layout.positions.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13]
    assert layout.extent == 14


STEP = Thresholds((1,), (0, 1))


def grouped(channels_out: int, channels: int, groups: int) -> MacLayer:
    weights = np.ones((1, channels_out, channels // groups, 1, 1), int)
    return mac(weights, (channels_out, 1, 1), groups=groups)


@pytest.mark.parametrize(
    ("layer", "rows", "cols", "walk"),
    [
        (grouped(16, 16, 1), 4, 4, ChannelWalk(4, 1, 0, 4, 16)),
        (grouped(16, 16, 16), 4, 4, ChannelWalk(1, 1, 1, 4, 16)),
        (grouped(16, 16, 16), 2, 4, ChannelWalk(1, 2, 1, 8, 16)),
        (grouped(10, 10, 10), 2, 4, ChannelWalk(1, 2, 1, 6, 11)),  # a row group of zeros
        (grouped(16, 16, 16), 8, 4, ChannelWalk(2, 1, 2, 2, 16)),
        (grouped(16, 8, 8), 4, 4, ChannelWalk(1, 2, 1, 4, 16)),  # two outputs a channel
        (grouped(16, 16, 2), 4, 4, ChannelWalk(2, 2, 2, 4, 16)),
    ],
)
def test_row_groups_read_the_words_they_need(
    layer: MacLayer, rows: int, cols: int, walk: ChannelWalk
) -> None:
    source, output = (Layout(cols, (n,)) for n in (layer.channels_in, layer.output.channels))
    found = channel_walk(layer, source, output, rows, to_memory=True)
    assert found == walk
    assert_covers(found, layer, source, output, rows)


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
@pytest.mark.parametrize("cols", [2, 4])
@pytest.mark.parametrize("groups", [2, 3, 9])
def test_irregular_row_groups_read_no_word_too_few(groups: int, cols: int, rows: int) -> None:
    layer = grouped(18, 18, groups)
    source, output = Layout(cols, (5, 13)), Layout(cols, (7, 11))
    found = channel_walk(layer, source, output, rows, to_memory=True)
    assert_covers(found, layer, source, output, rows)


def assert_covers(
    found: ChannelWalk, layer: MacLayer, source: Layout, output: Layout, rows: int
) -> None:
    first = found.first_words()
    for m, at in enumerate(output.positions):
        needed = source.positions[layer.inputs()[m]] // source.cols
        assert first[at // rows] <= needed.min()
        assert needed.max() < first[at // rows] + found.count


def test_no_row_group_of_zeros_leaves_by_the_output() -> None:
    layer, layout = grouped(10, 10, 10), Layout(4, (10,))
    assert channel_walk(layer, layout, layout, 2, to_memory=False).channels == 10


def chain(*concats: tuple[str, tuple[str, ...]]) -> list[MacLayer | ConcatLayer]:
    """Build layers a, b, c, d of 3 channels each, then concats, then a last layer."""
    made: list[MacLayer | ConcatLayer] = [
        mac(np.ones((1, 3, 1, 1, 1), int), (3, 1, 1), name, activation=STEP) for name in "abcd"
    ]
    channels = dict.fromkeys("abcd", 3)
    for name, sources in concats:
        channels[name] = sum(channels[part] for part in sources)
        made.append(ConcatLayer(name, sources, tensor(name, (channels[name], 1, 1))))
    last = concats[-1][0]
    weights = np.ones((1, 1, channels[last], 1, 1), int)
    return [*made, mac(weights, (1, 1, 1), source=last)]


def part_table(*concats: tuple[str, tuple[str, ...]]) -> dict[str, Part]:
    graph = network(tensor(INPUT, (1, 1, 1)), chain(*concats))
    return parts(graph, layouts(graph, 2))


def test_concats_that_extend_each_other_are_stored_as_one() -> None:
    found = part_table(("x", ("a", "b")), ("y", ("x", "c")), ("z", ("a", "b", "c", "d")))
    assert {found[name].whole for name in "abcdxyz"} == {"z"}
    assert [found[name].offset for name in "abcdxyz"] == [0, 2, 4, 6, 0, 0, 0]


def test_tensors_that_two_concats_want_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match="y: its parts lie in x in another order"):
        part_table(("x", ("a", "b", "c")), ("y", ("b", "a")))
    with pytest.raises(UnsupportedModel, match="y: its parts lie in x in another order"):
        part_table(("x", ("a", "b", "c")), ("y", ("b", "d")))
    with pytest.raises(UnsupportedModel, match="x: a tensor twice in one concat"):
        part_table(("x", ("a", "b", "a")))


def test_concat_of_the_input_is_refused() -> None:
    with pytest.raises(BadInput, match="c: concat of input, a; needs two tensors"):
        ConcatLayer("c", (INPUT, "a"), tensor("c", (2, 1, 1)))


def test_second_operand_in_the_sources_bank_is_refused_by_name() -> None:
    *made, last = chain(("x", ("a", "b")))
    assert isinstance(last, MacLayer)
    residual = Residual("b", (1, 1), 0, np.ones(3, int))
    weights = np.ones((1, 3, 3, 1, 1), int)
    adds = mac(weights, (3, 1, 1), "sum", source="a", residual=residual, activation=STEP)
    graph = network(tensor(INPUT, (1, 1, 1)), [*made, adds, last])
    with pytest.raises(UnsupportedModel, match="sum: its input a and its second operand b are par"):
        schedule(graph, Plan(4, 4, 1))
