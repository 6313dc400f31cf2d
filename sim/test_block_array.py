"""Networks whose products are made in DSP blocks equal golden, with the vendor's model of a block.

That is the ``DSP48E1`` or ``SB_MAC16`` of yosys' ``cells_sim.v``: what is simulated is what is
synthesized.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwquant import cosim
from hwquant.emit import emit
from hwquant.estimate import estimate
from hwquant.fpga.block_products import block_levels, is_decoded_in_memory
from hwquant.fpga.synth import synthesize
from hwquant.importer.load import load
from hwquant.ir import LevelTables, ProductTable, QuantGraph
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan, blocks_of, with_stream
from sim.test_networks import assert_equal, expected, planned
from tests.float_graphs import NETWORKS
from tests.float_graphs import graph as float_graph
from tests.random_graphs import random_images

pytestmark = pytest.mark.cosim

DEVICES = ("xc7a100t", "ice40up5k")
LEVELS: dict[str, Any] = {"levels": "rounded", "accumulate": "levels"}
EIGHT: dict[str, Any] = {"weight_bits": 8, "act_bits": 8}


def in_blocks(rows: int, cols: int, lanes: int, device: str) -> Plan:
    return Plan(rows, cols, lanes, device, products="dsp")


def quantized(name: str, **config: Any) -> QuantGraph:
    return quantize(float_graph(*NETWORKS[name]), QuantConfig(**config))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "config", "sizes", "rows"),
    [
        pytest.param("residual", {}, (4, 4, 2), 2, id="two rows a block"),
        pytest.param("depthwise", {}, (8, 8, 2), 2, id="depthwise"),
        pytest.param("relu6", {"method": "uniform"}, (1, 4, 1), 1, id="one row"),
        pytest.param("residual", LEVELS, (4, 8, 2), 1, id="one row a block"),
        pytest.param("relu6", EIGHT, (2, 4, 1), 1, id="levels from memory"),
    ],
)
def test_small_networks_equal_golden(
    name: str,
    config: dict[str, Any],
    sizes: tuple[int, int, int],
    rows: int,
    device: str,
    tmp_path: Path,
) -> None:
    graph, plan = quantized(name, **config), in_blocks(*sizes, device)
    form = blocks_of(plan, graph)
    assert form is not None
    assert form.rows == rows
    assert is_decoded_in_memory(form.levels) == (config is EIGHT)
    emit(graph, plan, tmp_path)
    assert_equal(tmp_path, graph, random_images(np.random.default_rng(3), graph, 2))


@pytest.mark.parametrize("device", DEVICES)
def test_weights_arrive_in_a_stream(device: str, tmp_path: Path) -> None:
    graph = quantized("residual")
    plan = with_stream(in_blocks(4, 4, 2, device), graph, None)
    emit(graph, plan, tmp_path)
    assert_equal(tmp_path, graph, random_images(np.random.default_rng(4), graph, 2))


def altered_level(graph: QuantGraph) -> QuantGraph:
    """Make the level of the largest weight one more."""
    assert isinstance(graph.arithmetic, ProductTable)
    levels = block_levels(graph.arithmetic)
    weights = levels.weight_levels.copy()
    weights[-1] += 1
    return dataclasses.replace(graph, arithmetic=LevelTables(weights, levels.act_levels))


@pytest.mark.parametrize("device", DEVICES)
def test_one_wrong_level_is_seen(device: str, tmp_path: Path) -> None:
    graph = quantized("residual")
    emit(altered_level(graph), in_blocks(4, 4, 2, device), tmp_path)
    images = random_images(np.random.default_rng(6), graph, 1)
    assert cosim.verify(tmp_path, images, expected(graph, images)).mismatches


@pytest.mark.synth
@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "config", "rows"),
    [
        ("xc7a100t", {}, 2),
        ("ice40up5k", {}, 2),
        ("ice40up5k", EIGHT, 1),
    ],
)
def test_a_netlist_has_the_blocks_of_its_estimate_and_equals_golden(
    device: str, config: dict[str, Any], rows: int, tmp_path: Path
) -> None:
    """Of a network so small that no memory takes a block RAM, which has no model on xc7."""
    graph, plan = quantized("one layer", **config), in_blocks(4, 4, 1, device)
    program = emit(graph, plan, tmp_path)
    found = synthesize(tmp_path, device)
    assert found.mac_array is not None
    assert found.mac_array.dsps == plan.macs_per_cycle // rows
    assert found.design.dsps == estimate(graph, program, device).dsps
    images = random_images(np.random.default_rng(7), graph, 2)
    netlist = tmp_path / "synth" / device / "netlist.v"
    result = cosim.verify(tmp_path, images, expected(graph, images), netlist=netlist)
    assert (result.mismatches, result.layer_cycles) == (0, planned(tmp_path))


@pytest.mark.slow
def test_a_frame_of_resnet8_equals_golden(shared: Path, tmp_path: Path) -> None:
    graph = quantize(load(shared / "models" / "mlperf_ic_resnet8.onnx"), QuantConfig())
    emit(graph, in_blocks(8, 16, 4, "xc7a100t"), tmp_path)
    pixels = np.load(shared / "models" / "cifar10.npz")["x"][:1]
    images = pixels.transpose(0, 3, 1, 2).astype(np.int64)
    result = cosim.verify(tmp_path, images, expected(graph, images))
    assert result.mismatches == 0, result.first
    assert result.layer_cycles == planned(tmp_path)
    assert json.loads((tmp_path / "design.json").read_text())["plan"]["products"] == "dsp"
