"""Whole networks: the emitted Verilog under Verilator equals golden, value by value."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Set
from pathlib import Path

import numpy as np
import pytest

from hwquant import cosim, golden, model_file, packaged
from hwquant.activation import Kind
from hwquant.emit import emit
from hwquant.fpga.synth import synthesize
from hwquant.importer.load import load
from hwquant.ir import (
    IntArray,
    MacLayer,
    Pads,
    Pair,
    PowerNewton,
    PowerPade,
    ProductTable,
    QuantGraph,
    Thresholds,
)
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan, is_parallel
from tests.float_graphs import NETWORKS
from tests.float_graphs import graph as float_graph
from tests.placeable import (
    altered_depthwise,
    altered_detail,
    altered_gate,
    depthwise_graph,
    features,
    placeable_graph,
)
from tests.random_graphs import Limits, random_images

pytestmark = pytest.mark.cosim

RTL = Path(__file__).resolve().parents[1] / "rtl"
DESIGNS = sorted(path.parent for path in RTL.glob("*/design.json"))


def expected(graph: QuantGraph, images: IntArray) -> IntArray:
    """Return golden's values in the order of the output stream."""
    return golden.simulate(graph, images).transpose(0, 2, 3, 1).reshape(len(images), -1)


def planned(directory: Path) -> tuple[int, ...]:
    layers = json.loads((directory / "design.json").read_text())["layers"]
    return tuple(layer["cycles"] for layer in layers)


def assert_equal(directory: Path, graph: QuantGraph, images: IntArray) -> None:
    """Verify with no stalls, cycle by cycle, then with stalls and a reset midway."""
    result = cosim.verify(directory, images, expected(graph, images))
    assert result.mismatches == 0, result.first
    assert result.layer_cycles == planned(directory)
    assert result.cycles == sum(planned(directory))
    stalled = cosim.verify(directory, images, expected(graph, images), stalls=11, reset_midway=True)
    assert stalled.mismatches == 0, stalled.first


@pytest.fixture(params=DESIGNS, ids=lambda path: path.name)
def design(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a committed design."""
    copy = tmp_path_factory.mktemp("rtl") / request.param.name
    return Path(shutil.copytree(request.param, copy))


@pytest.mark.slow
def test_reference_designs_equal_golden(design: Path) -> None:
    graph = model_file.load(design / "model.hwq")
    images = random_images(np.random.default_rng(5), graph, 2)
    assert_equal(design, graph, images)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1000, 1001, 1002])
def test_random_networks_equal_golden(seed: int, tmp_path: Path) -> None:
    rng, plan = np.random.default_rng(seed), Plan(8, 8, 2)
    graph = placeable_graph(rng, Limits(layers=5, channels=20, size=12), plan)
    emit(graph, plan, tmp_path)
    assert_equal(tmp_path, graph, random_images(rng, graph, 2))


WIDE = frozenset({"depthwise", "depthwise pads", "gate", "gaps"})
DETAILED = frozenset({"detailed residual", "detailed gate", "detail pads"})
OVERLAPPING = frozenset({"overlap", "pool after layers", "detailed residual"})
STREAMED = frozenset({"tiles", "tiles of a sum"})
TAPS = frozenset({"taps from pads", "taps apart"})
TAPS_IN_TILES = TAPS | {"taps in tiles"}
TRUNCATED = frozenset({"truncated", "windows of two digits"})
WINDOWS = frozenset({"windows of lines", "windows pads", "windows apart", "rows are awaited"})


def wide_network(plan: Plan, seed: int, wants: Set[str] = WIDE) -> tuple[QuantGraph, IntArray]:
    """Draw a network with a depthwise layer, a gate and a concat, or other things, and images."""
    rng = np.random.default_rng(seed)
    limits = Limits(layers=5, channels=12, size=6, kernel=3)
    graph = placeable_graph(rng, limits, plan, wants=wants)
    return graph, random_images(rng, graph, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "seed", "wants"),
    [
        pytest.param(Plan(4, 4, 2), 1, WIDE, id="4x4-1"),
        pytest.param(Plan(4, 4, 1), 2, WIDE, id="4x4-2"),
        pytest.param(Plan(2, 4, 1), 3, WIDE, id="2x4-3"),
        pytest.param(Plan(8, 4, 2), 4, WIDE, id="8x4-4"),
        pytest.param(Plan(4, 4, 2), 1, DETAILED, id="details"),
        pytest.param(Plan(4, 8, 4), 1, OVERLAPPING, id="overlapping"),
        pytest.param(Plan(4, 4, 1), 1, frozenset({"truncated later"}), id="truncated twice"),
        pytest.param(Plan(2, 4, 1, stream_bits=8), 1, STREAMED | WIDE, id="streamed"),
        pytest.param(Plan(4, 4, 2, stream_bits=1), 1, {"tiles"} | DETAILED, id="streamed details"),
        pytest.param(Plan(8, 8, 2, "xc7a100t"), 6, TAPS, id="taps of 6-input LUTs"),
        pytest.param(Plan(16, 8, 4), 6, TAPS, id="taps of 4-input LUTs"),
        pytest.param(Plan(4, 8, 2), 1, WINDOWS | TRUNCATED, id="windows, truncated sums"),
        pytest.param(Plan(8, 8, 4), 1, WINDOWS | {"windows of digits"}, id="windows of digits"),
        pytest.param(Plan(4, 8, 4, stream_bits=4), 3, WINDOWS, id="windows, streamed"),
        pytest.param(Plan(8, 8, 2, stream_bits=2), 6, TAPS_IN_TILES, id="taps, late weights"),
        pytest.param(Plan(8, 8, 2, stream_bits=256), 6, TAPS_IN_TILES, id="taps, early weights"),
    ],
)
def test_wide_networks_equal_golden(plan: Plan, seed: int, wants: Set[str], tmp_path: Path) -> None:
    graph, images = wide_network(plan, seed, wants)
    emit(graph, plan, tmp_path)
    assert_equal(tmp_path, graph, images)


TURNS = (((3, 3), (1, 1), (1, 1, 1, 1)), ((3, 3), (2, 2), (0, 0, 1, 1)))
LOPSIDED = ((2, 3), (1, 1), (0, 0, 1, 2))
FIVE = ((5, 5), (1, 1), (2, 2, 2, 2))
CAUSAL = ((3, 4), (1, 1), (2, 3, 0, 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "source", "windows"),
    [
        pytest.param(Plan(8, 8, 2), (12, 11, 5), (*TURNS, LOPSIDED), id="tall"),
        pytest.param(Plan(8, 8, 4, "xc7a100t"), (8, 4, 13), (*TURNS, CAUSAL), id="wide"),
        pytest.param(Plan(16, 16, 4), (24, 7, 6), (FIVE, *TURNS), id="5x5"),
        pytest.param(Plan(16, 8, 2), (24, 7, 1), (TURNS[0], LOPSIDED, CAUSAL), id="a column"),
        pytest.param(Plan(8, 8, 2, stream_bits=4), (20, 6, 5), (*TURNS, LOPSIDED), id="late"),
        pytest.param(Plan(8, 8, 2, stream_bits=256), (20, 5, 6), (LOPSIDED, *TURNS), id="early"),
    ],
)
def test_depthwise_networks_equal_golden(
    plan: Plan,
    source: tuple[int, int, int],
    windows: tuple[tuple[Pair, Pair, Pads], ...],
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(1)
    graph = depthwise_graph(rng, plan, source, windows)
    program = emit(graph, plan, tmp_path)
    assert "taps turn" in features(graph, program)
    assert_equal(tmp_path, graph, random_images(rng, graph, 2))


@pytest.mark.slow
def test_one_wrong_bit_of_streamed_weights_is_seen(tmp_path: Path) -> None:
    plan = Plan(4, 4, 2, stream_bits=8)
    for seed in range(20):
        graph, images = wide_network(plan, seed, {"tiles"})
        wanted, altered = expected(graph, images), altered_weight(graph)
        if not np.array_equal(expected(altered, images), wanted):
            break  # golden sees it, so hardware must
    else:
        pytest.fail("no network in which this matters")
    emit(graph, plan, tmp_path)
    (tmp_path / "altered").mkdir()
    emit(altered, plan, tmp_path / "altered")
    shutil.copy(tmp_path / "altered" / "weights.hex", tmp_path)
    assert cosim.verify(tmp_path, images, wanted).mismatches


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fmnist_densenet", "fmnist_silu_se"])
def test_a_frame_of_small_networks_equals_golden(name: str, shared: Path, tmp_path: Path) -> None:
    graph = quantize(load(shared / "models" / f"{name}.onnx"), QuantConfig())
    emit(graph, Plan(8, 8, 2), tmp_path)
    images = random_images(np.random.default_rng(1), graph, 1)
    result = cosim.verify(tmp_path, images, expected(graph, images))
    assert result.mismatches == 0, result.first
    assert result.layer_cycles == planned(tmp_path)


@pytest.mark.parametrize("name", ["relu", "silu"])
def test_two_bit_codes_that_are_compared_with_all_thresholds_equal_golden(
    name: str, tmp_path: Path
) -> None:
    graph = quantize(float_graph(*NETWORKS[name]), QuantConfig(weight_bits=2, act_bits=2))
    made = [la.activation for la in graph.layers if isinstance(la, MacLayer)]
    assert any(isinstance(unit, Thresholds) and is_parallel(unit) for unit in made)
    emit(graph, Plan(4, 4, 1), tmp_path)
    assert_equal(tmp_path, graph, random_images(np.random.default_rng(1), graph, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "unit"), [("pade", PowerPade), ("newton", PowerNewton)])
def test_units_that_no_reference_design_has_equal_golden_in_the_network_that_ships(
    kind: Kind, unit: type, tmp_path: Path
) -> None:
    mean, std = packaged.normalisation()
    config = QuantConfig(mean=mean, std=std, activation=kind)
    graph = quantize(load(packaged.model_path()), config)
    units = [la.activation for la in graph.layers if isinstance(la, MacLayer) and la.activation]
    assert all(isinstance(activation, unit) for activation in units)
    emit(graph, Plan(8, 8, 2), tmp_path)
    images = random_images(np.random.default_rng(1), graph, 1)
    result = cosim.verify(tmp_path, images, expected(graph, images))
    assert result.mismatches == 0, result.first
    assert result.layer_cycles == planned(tmp_path)


@pytest.mark.slow
def test_three_frames_of_resnet8_equal_golden(shared: Path, tmp_path: Path) -> None:
    graph = quantize(load(shared / "models" / "mlperf_ic_resnet8.onnx"), QuantConfig())
    program = emit(graph, Plan(16, 16, 4), tmp_path)
    macs = sum(step.macs for step in program.layers)
    assert macs >= 0.75 * program.cycles * 256  # utilisation
    pixels = np.load(shared / "models" / "cifar10.npz")["x"][:3]
    images = pixels.transpose(0, 3, 1, 2).astype(np.int64)
    result = cosim.verify(tmp_path, images, expected(graph, images))
    assert result.mismatches == 0, result.first
    assert result.layer_cycles == planned(tmp_path)


# ---------------------------------------------------------------- sabotage: each must be seen


def altered_threshold(graph: QuantGraph) -> QuantGraph:
    """Merge two steps of a staircase whose codes have one digit, so that every reader sees it."""
    layers = list(graph.layers)
    for at, layer in enumerate(layers):
        if isinstance(layer, MacLayer) and layer.output.parts == 1 and layer.activation:
            assert isinstance(layer.activation, Thresholds)
            thresholds = list(layer.activation.thresholds)
            middle = len(thresholds) // 2
            thresholds[middle] = thresholds[middle + 1] - 1
            changed = Thresholds(tuple(thresholds), layer.activation.codes)
            layers[at] = dataclasses.replace(layer, activation=changed)
            return dataclasses.replace(graph, layers=tuple(layers))
    raise AssertionError("no such layer")


def altered_product(graph: QuantGraph) -> QuantGraph:
    """Change one entry of the product table by one."""
    assert isinstance(graph.arithmetic, ProductTable)
    products = graph.arithmetic.products.copy()
    products[1, -1] += 1
    return dataclasses.replace(graph, arithmetic=ProductTable(products))


def altered_weight(graph: QuantGraph) -> QuantGraph:
    """Change the lowest bit of one weight of the first layer."""
    first = graph.layers[0]
    assert isinstance(first, MacLayer)
    weights = first.weights.copy()
    at = np.unravel_index(np.abs(weights[0]).argmax(), weights[0].shape)
    weights[(0, *at)] -= np.sign(weights[(0, *at)])
    layer = dataclasses.replace(first, weights=weights)
    return dataclasses.replace(graph, layers=(layer, *graph.layers[1:]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alter", "wants", "plan"),
    [
        (altered_depthwise, WIDE, Plan(4, 4, 2)),
        (altered_depthwise, TAPS, Plan(8, 8, 2)),
        (altered_gate, WIDE, Plan(4, 4, 2)),
        (altered_detail, DETAILED, Plan(4, 4, 2)),
    ],
)
def test_sabotage_of_a_wide_network_is_seen(
    alter: Callable[[QuantGraph], QuantGraph], wants: Set[str], plan: Plan, tmp_path: Path
) -> None:
    for seed in range(20):
        graph, images = wide_network(plan, seed, wants)
        wanted = expected(graph, images)
        if not np.array_equal(expected(alter(graph), images), wanted):
            break  # golden sees it, so hardware must
    else:
        pytest.fail("no network in which this matters")
    emit(alter(graph), plan, tmp_path)
    assert cosim.verify(tmp_path, images, wanted).mismatches


@pytest.mark.slow
@pytest.mark.parametrize("alter", [altered_threshold, altered_product, altered_weight])
def test_sabotage_is_seen(alter: Callable[[QuantGraph], QuantGraph], tmp_path: Path) -> None:
    graph = model_file.load(RTL / "fmnist_power_4x4" / "model.hwq")
    emit(alter(graph), Plan(4, 4, 2), tmp_path)
    images = random_images(np.random.default_rng(6), graph, 1)
    assert cosim.verify(tmp_path, images, expected(graph, images)).mismatches


@pytest.mark.synth
@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "stream_bits", "uses"),
    [
        ("lfe5u-25f", None, ('.REGMODE_B("OUTREG")', '.REG_OUTPUT_CLK("CLK0")')),
        ("lfe5u-25f", 8, ('.REGMODE_B("OUTREG")', '.REG_OUTPUT_CLK("CLK0")')),
        ("ice40up5k", None, ("SB_SPRAM256KA",)),
    ],
)
def test_a_netlist_with_registers_in_its_blocks_or_sprams_equals_golden(
    device: str, stream_bits: int | None, uses: tuple[str, ...], tmp_path: Path
) -> None:
    plan = Plan(2, 4, 1, device, stream_bits)
    graph, images = wide_network(plan, 3)
    emit(graph, plan, tmp_path)
    synthesize(tmp_path, device)
    netlist = tmp_path / "synth" / device / "netlist.v"
    text = netlist.read_text()
    assert all(words in text for words in uses)
    result = cosim.verify(tmp_path, images, expected(graph, images), netlist=netlist)
    assert (result.mismatches, result.layer_cycles) == (0, planned(tmp_path))
    stalled = cosim.verify(
        tmp_path, images, expected(graph, images), netlist=netlist, stalls=5, reset_midway=True
    )
    assert stalled.mismatches == 0, stalled.first
