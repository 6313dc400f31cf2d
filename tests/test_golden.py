"""Golden computes what semantics.md says: against the slow oracle, and by hand."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hwquant import golden
from hwquant.errors import BadInput
from hwquant.ir import (
    INPUT,
    Activation,
    ConcatLayer,
    Gate,
    LevelTables,
    MacLayer,
    MaxPoolLayer,
    PowerNewton,
    PowerPade,
    PowerTable,
    ProductTable,
    QuantGraph,
    Residual,
    Slopes,
    Tensor,
    Thresholds,
    Window,
    sources_of,
)
from tests import slow_golden
from tests.by_hand import mac, network, tensor
from tests.random_graphs import Limits, random_graph, random_images

SEEDS = range(60)
KINDS = ("1 digits", "2 digits", "2 digits, detailed")
ROLES = ("MacLayer", "MaxPoolLayer", "ConcatLayer", "residual", "gate")
ODD = ProductTable(np.array([[0, 0, 0, 0], [0, 1, 3, 6], [0, 2, 7, 11], [0, 5, 13, 20]]))


def drawn(seed: int) -> tuple[QuantGraph, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, Limits())
    return graph, random_images(rng, graph, 3)


def values(biases: Iterable[int], **changed: Any) -> list[int]:
    """Run values that come from the biases alone through a layer, one a channel."""
    bias = np.array(list(biases))
    zero = np.zeros((1, len(bias), 1, 1, 1), np.int64)
    layer = mac(zero, (len(bias), 1, 1), bias=bias, **changed)
    graph = network(tensor(INPUT, (1, 1, 1)), [layer])
    return golden.simulate(graph, np.zeros((1, 1), np.int64)).ravel().tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_golden_equals_the_slow_oracle(seed: int) -> None:
    graph, images = drawn(seed)
    want = slow_golden.run(graph, images)
    np.testing.assert_array_equal(golden.simulate(graph, images), want[graph.layers[-1].name])
    for index, image in enumerate(images):
        got = golden.trace(graph, image)
        assert got.keys() == want.keys()
        for name, codes in got.items():
            np.testing.assert_array_equal(codes, want[name][index], f"seed {seed}, {name}")


def test_random_graphs_have_every_kind_of_thing() -> None:
    seen = set[str]()
    for graph, _ in map(drawn, SEEDS):
        seen.add(type(graph.arithmetic).__name__)
        for layer in graph.layers:
            source = graph.tensor(sources_of(layer)[0])
            parts = source.read_parts
            seen.add(f"{type(layer).__name__} of {source.kind}")
            if isinstance(layer, MacLayer):
                pads = any(layer.pads) and source.pad_code.any()
                seen.update({f"depthwise, {layer.shared=}"} if layer.is_depthwise else ())
                seen.update({"padded depthwise"} if layer.is_depthwise and pads else ())
                seen.update({"groups"} if 1 < layer.groups != source.channels else ())
                if layer.operand:
                    role = "gate" if layer.gate else "residual"
                    seen.add(f"{role} of {graph.tensor(layer.operand).kind}")
                seen.update({f"{source.kind}, padded"} if pads else ())
                seen.add(f"{len(layer.weights)} times {parts}")
                seen.add(type(layer.activation).__name__)
                seen.update({"slopes"} if getattr(layer.activation, "slopes", None) else ())
                seen.add("shared" if layer.shared else "own weights")
                seen.update({"stride"} if max(layer.stride) > 1 else ())
                seen.update({"lopsided pads"} if layer.pads[:2] != layer.pads[2:] else ())
                if layer.residual is not None:
                    seen.update({"skip stride"} if max(layer.residual.stride) > 1 else ())
                    seen.update({"skip offset"} if layer.residual.channel_offset else ())
    assert seen >= {
        *("ProductTable", "LevelTables", "Thresholds", "NoneType"),
        *("PowerTable", "PowerPade", "PowerNewton", "slopes"),
        *("shared", "own weights", "lopsided pads", "2 digits, detailed, padded"),
        *(f"{role} of {kind}" for role in ROLES for kind in KINDS),
        *("1 times 1", "1 times 2", "2 times 1", "2 times 2"),
        *("stride", "skip stride", "skip offset", "groups", "padded depthwise"),
        *("depthwise, layer.shared=True", "depthwise, layer.shared=False"),
    }


@pytest.mark.parametrize("seed", SEEDS[:10])
def test_batch_size_does_not_change_values(seed: int) -> None:
    graph, images = drawn(seed)
    whole = golden.simulate(graph, images)
    for batch in (1, 2, 3, 8):
        done: list[int] = []
        np.testing.assert_array_equal(
            golden.simulate(graph, images, batch=batch, progress=done.append), whole
        )
        assert sum(done) == len(images)
        assert max(done) <= batch


def test_no_images_give_no_values() -> None:
    graph, images = drawn(0)
    assert golden.simulate(graph, images[:0]).shape == (
        0,
        *golden.simulate(graph, images).shape[1:],
    )


def test_halves_are_rounded_up_below_zero_too() -> None:
    assert values([10, 6, 2, -2, -6, -10], shift=2) == [3, 2, 1, 0, -1, -2]
    assert values([7, 5, -5, -7], shift=0) == [7, 5, -5, -7]


def test_value_is_product_and_bias_shifted() -> None:
    layer = mac(
        [[[[[3]]], [[[-2]]]]], (2, 1, 1), multiplier=np.array([5, 7]), bias=np.array([1, 3])
    )
    layer_shifted = mac(
        layer.weights, (2, 1, 1), multiplier=layer.multiplier, bias=layer.bias, shift=3
    )
    images = np.array([[3]])
    source = tensor(INPUT, (1, 1, 1))
    assert golden.simulate(network(source, [layer]), images).ravel().tolist() == [46, -39]
    assert golden.simulate(network(source, [layer_shifted]), images).ravel().tolist() == [6, -5]


def test_padding_reads_the_pad_code() -> None:
    layer = mac(np.full((1, 1, 1, 3, 3), 2), (1, 1, 1), pads=(1, 1, 1, 1))
    graph = network(tensor(INPUT, (1, 1, 1), pad=3), [layer], ODD)
    assert golden.simulate(graph, np.array([[1]])).item() == 2 + 8 * 11


def test_pads_are_top_left_bottom_right() -> None:
    layer = mac([[[[[1, 0], [0, 0]]]]], (1, 2, 2), pads=(1, 0, 0, 1))
    graph = network(tensor(INPUT, (1, 2, 2), pad=3), [layer])
    got = golden.simulate(graph, np.array([[[[0, 1], [2, 0]]]]))
    assert got.tolist() == [[[[3, 3], [0, 1]]]]


def test_shared_kernel_uses_one_weight_everywhere() -> None:
    layer = mac([[[[[-3]]]]], (1, 1, 2), kernel=(2, 2), shared=True, stride=(2, 2))
    graph = network(tensor(INPUT, (1, 2, 4)), [layer], ODD)
    got = golden.simulate(graph, np.array([[[[0, 1, 2, 2], [2, 3, 3, 3]]]]))
    assert got.ravel().tolist() == [-(0 + 5 + 13 + 20), -(13 + 13 + 20 + 20)]


def test_digits_weigh_powers_of_the_part_shift() -> None:
    """The product of last digits of a pixel and of a weight is left out."""
    layer = mac([[[[[1]]]], [[[[-2]]]]], (1, 1, 1))
    graph = network(tensor(INPUT, (1, 1, 1), parts=2), [layer], ODD, part_shift=3)
    got = golden.simulate(graph, np.array([[0b1101]]))  # digits 3 and 1
    assert got.item() == 8 * 6 + 1 - 11


def test_levels_are_multiplied() -> None:
    tables = LevelTables(np.array([0, 5, 900, 70_000]), np.array([0, 3, 800, 60_000]))
    layer = mac([[[[[3]], [[-1]]]]], (1, 1, 1))
    graph = network(tensor(INPUT, (2, 1, 1)), [layer], tables)
    assert golden.simulate(graph, np.array([[3, 2]])).item() == 70_000 * 60_000 - 5 * 800


def test_groups_read_their_own_channels() -> None:
    layer = mac([[[[[1]]], [[[2]]], [[[3]]], [[[-1]]]]], (4, 1, 1), groups=2)
    graph = network(tensor(INPUT, (2, 1, 1)), [layer])
    assert golden.simulate(graph, np.array([[1, 3]])).ravel().tolist() == [1, 2, 9, -3]


def test_depthwise_pads_read_their_own_channels_code() -> None:
    source = Tensor(INPUT, 2, 1, 1, 1, np.array([1, 2]))
    layer = mac(np.ones((1, 2, 1, 1, 2), int), (2, 1, 1), groups=2, pads=(0, 1, 0, 0))
    assert golden.simulate(network(source, [layer]), np.array([[3, 0]])).ravel().tolist() == [4, 2]


def test_gate_multiplies_accumulator_and_offset_before_the_multiplier() -> None:
    gate = Gate("first", np.array([10, -10]), 16)
    zero, twos = np.zeros((1, 2, 2, 1, 1), int), Thresholds((-5, 9), (0, 2, 3))
    first = mac(zero, (2, 1, 1), "first", activation=twos)
    weights = np.ones((1, 2, 1, 1, 1), int)
    last = mac(weights, (2, 1, 2), gate=gate, groups=2, multiplier=np.array([5, 7]), shift=1)
    pool = MaxPoolLayer("pool", INPUT, (1, 2), (1, 2), (0, 0, 0, 0), tensor("pool", (2, 1, 1)))
    graph = network(tensor(INPUT, (2, 1, 2)), [pool, replace(first, source="pool"), last])
    got = golden.simulate(graph, np.array([[[[1, 2]], [[3, 0]]]]))
    assert got.tolist() == [[[[55, 60]], [[-49, -70]]]]  # the gate is 2


def test_concat_puts_channels_one_after_the_other() -> None:
    names = ("a", "b")
    pools = [
        MaxPoolLayer(name, INPUT, (1, 2), (1, 1), (0, 0, 0, at), tensor(name, (1, 1, 1 + at)))
        for at, name in enumerate(names)
    ]
    with pytest.raises(BadInput, match=r"ab: \(1, 1, 1\) of 1 digits, \(1, 1, 2\) of 1 digits; m"):
        network(
            tensor(INPUT, (1, 1, 2)), [*pools, ConcatLayer("ab", names, tensor("ab", (2, 1, 1)))]
        )
    same = [replace(pools[0], name=name, output=tensor(name, (1, 1, 1))) for name in names]
    concat = ConcatLayer("ab", names, tensor("ab", (2, 1, 1)))
    last = mac([[[[[1]], [[-3]]]]], (1, 1, 1), source="ab")
    graph = network(tensor(INPUT, (1, 1, 2)), [*same, concat, last])
    assert golden.simulate(graph, np.array([[[[1, 2]]]])).ravel().tolist() == [2 - 6]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"groups": 2}, "last: 3 channels in groups=2"),
        ({"multiplier": np.array([1, -1, 0])}, "last: a negative multiplier"),
        ({"gate": Gate(INPUT, np.zeros(3, int), 43)}, r"gated_bits=43; permitted 2\.\.42"),
        (
            {
                "gate": Gate(INPUT, np.zeros(3, int), 9),
                "residual": Residual(INPUT, (1, 1), 0, np.ones(3, int)),
            },
            "a residual and a gate; at most one",
        ),
    ],
)
def test_layers_that_no_hardware_computes_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        mac(np.ones((1, 3, 3, 1, 1), int), (3, 1, 1), **changed)


def test_max_pool_compares_packed_codes_and_leaves_padding_out() -> None:
    source = tensor(INPUT, (1, 2, 3), parts=2, pad=15)
    pool = MaxPoolLayer("pool", INPUT, (2, 2), (1, 2), (1, 1, 0, 0), tensor("pool", (1, 2, 2), 2))
    copy = mac([[[[[1]]]]], (1, 2, 2), source="pool")
    codes = np.array([[[[0b0111, 0b1000, 0b0011], [0b0000, 0b0001, 0b1100]]]])
    tensors = golden.trace(network(source, [pool, copy]), codes[0])
    assert tensors["pool"].tolist() == [[[0b0111, 0b1000], [0b0111, 0b1100]]]


def test_residual_takes_strided_pixels_and_moved_channels() -> None:
    residual = Residual(INPUT, (2, 2), 1, np.array([7, 10, 100]))
    pool = MaxPoolLayer("pool", INPUT, (2, 2), (2, 2), (0, 0, 0, 1), tensor("pool", (1, 1, 2)))
    last = mac([[[[[1]]], [[[0]]], [[[-1]]]]], (3, 1, 2), source="pool", residual=residual)
    graph = network(tensor(INPUT, (1, 2, 3)), [pool, last])
    got = golden.simulate(graph, np.array([[[[1, 3, 2], [0, 0, 2]]]]))
    assert got.tolist() == [[[[3, 2]], [[10, 20]], [[-3, -2]]]]


def test_residual_channels_that_have_no_place_are_left_out() -> None:
    zero = np.zeros((1, 2, 3, 1, 1), np.int64)
    first = mac(zero, (2, 1, 1), "first", activation=Thresholds((1,), (0, 1)))
    images = np.array([[1, 2, 3]])
    for offset, want in ((-1, [2, 3]), (1, [0, 1]), (-2, [3, 0]), (2, [0, 0])):
        residual = Residual(INPUT, (1, 1), offset, np.array([1, 1]))
        last = mac(zero[:, :, :2], (2, 1, 1), source="first", residual=residual)
        graph = network(tensor(INPUT, (3, 1, 1)), [first, last])
        assert golden.simulate(graph, images).ravel().tolist() == want


def test_thresholds_are_reached_when_equal() -> None:
    stairs = Thresholds((-3, 0, 5), (1, 0, 2, 3))
    assert codes([-4, -3, -1, 0, 4, 5, 99], stairs) == [1, 0, 0, 2, 2, 3, 3]


def test_a_long_staircase_is_one_too() -> None:
    stairs = Thresholds((-(10**9), 10**9), (1, 2, 3))
    assert codes([-(10**9) - 1, -(10**9), 0, 10**9 - 1, 10**9], stairs) == [1, 2, 2, 2, 3]


STEPS = Thresholds((2, 5, 9), (1, 0, 2, 3))


def test_segments_of_a_table_are_long_where_ranges_are() -> None:
    """Segments of one value below 4, of four values from there to 15."""
    table = PowerTable(0, 4, Window((0, 0, 1, 1, 3, 1, 2, 3), 0, STEPS), 2, (0, 2))
    got = codes([-5, 0, 1, 2, 3, 4, 7, 8, 11, 12, 15, 16], table)
    assert got == [1, 1, 1, 0, 0, 0, 0, 2, 2, 3, 3, 3]


def test_a_comparison_makes_a_table_exact() -> None:
    table = PowerTable(0, 4, Window((0, 1, 2, 2), 1, STEPS), 2, (2,))
    assert codes([-9, 1, 2, 4, 5, 8, 9, 99], table) == [1, 1, 0, 0, 2, 2, 3, 3]


def test_a_rank_rises_within_a_segment() -> None:
    """By x >> 1: x is 0 and 2 in segments of two values, 2, 2, 3, 3 in the half of eight."""
    window, slopes = Window((0, 1, 1, 3), 0, STEPS), Slopes((1, 1, 1, 0), 1, 2, 1)
    table = PowerTable(0, 4, window, 1, (1, 3), slopes)
    assert codes([-1, 0, 1, 2, 3, 4, 7, 8, 15], table) == [1, 1, 0, 0, 2, 2, 2, 3, 3]


def test_a_quotient_by_hand() -> None:
    """x = u: (1 + (6 x >> 4)) // (1 + (x >> 4)) is 1, 1, 1, 2, 2, 2, 3, .. up to the last rank."""
    pade = PowerPade(0, 4, Window((0, 1, 2, 3), 0, STEPS), 0, (1, 6), (1, 1), 3)
    assert codes([-1, 0, 2, 3, 5, 6, 15], pade) == [0, 0, 0, 2, 2, 3, 3]


def test_two_steps_of_newton_by_hand() -> None:
    """X = 12 | 1 = 13 begins at 4: (4 + 3) // 2 = 3, (3 + 4) // 2 = 3; 1 at 2, 1, 1."""
    newton = PowerNewton(0, 4, Window((0, 0, 1, 3), 0, STEPS), 0, 1, 2, 2)
    assert codes([-1, 0, 1, 12], newton) == [1, 1, 1, 3]


def codes(given: Sequence[int], activation: Activation) -> list[int]:
    """Pass values through an activation, and its codes to a layer that copies them."""
    count = len(given)
    zero = np.zeros((1, count, 1, 1, 1), np.int64)
    shape = (count, 1, 1)
    first = mac(zero, shape, "first", bias=np.array(given), activation=activation)
    last = mac(np.eye(count, dtype=int).reshape(1, count, count, 1, 1), shape, source="first")
    graph = network(tensor(INPUT, (1, 1, 1)), [first, last])
    return golden.simulate(graph, np.zeros((1, 1), np.int64)).ravel().tolist()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.full((2, 1, 2, 2), 4), "pixel 4; the sensor's range is 0..3"),
        (np.full((2, 1, 2, 2), -1), "pixel -1; the sensor's range is 0..3"),
        (np.zeros((2, 1, 2, 3), int), r"shape \(2, 1, 2, 3\); this network takes N of \(1, 2, 2\)"),
        (np.zeros((2, 4), int), r"shape \(2, 4\)"),
        (np.zeros((2, 1, 2, 2)), "float64 values; this network takes the sensor's integers"),
    ],
)
def test_images_that_no_sensor_delivers_are_refused(images: npt.NDArray[Any], words: str) -> None:
    graph = network(tensor(INPUT, (1, 2, 2)), [mac([[[[[1]]]]], (1, 2, 2))])
    with pytest.raises(BadInput, match=words):
        golden.simulate(graph, images)


def test_sums_beyond_int64_are_refused() -> None:
    with pytest.raises(BadInput, match="last: values reach"):
        values([1 << 62])
