"""Estimates follow measured designs; ``--device`` takes a plan that fits or says what is short."""

import contextlib
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Fragment

from hwquant import packaged
from hwquant.emit import emit_unit
from hwquant.errors import BadInput, DoesNotFit, UnsupportedModel
from hwquant.estimate import LUT_PERCENT, estimate
from hwquant.estimate_blocks import memories, unit_dsps, weight_memory
from hwquant.fit import choose_plan
from hwquant.fpga.block_ram import Memory, parts_of, place_memory, ram_style
from hwquant.fpga.devices import DEFAULT_DEVICE, DEVICES, find_device
from hwquant.fpga.synth import synthesize
from hwquant.gateware.output_buffer import OutputBuffer
from hwquant.gateware.power_activation import create
from hwquant.importer.load import load
from hwquant.ir import Guess, PowerPade, PowerTable, QuantGraph, Slopes, Thresholds, Window
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.schedule import schedule
from tests.small import assert_refused, hwquant, network

# luts, ffs, brams, dsps after synthesis with yosys 0.70; docs/reports.md has more
MEASURED = [
    (Plan(16, 16, 4), "lfe5u-85f", (20611, 14753, 46, 8)),
    (Plan(16, 16, 4), "xc7a100t", (14601, 15570, 7, 8)),
    (Plan(4, 4, 1), "ice40hx8k", (4982, 2758, 53, 0)),
]

# with products in DSP blocks, of codes of 4 and 8 bits
MEASURED_IN_BLOCKS = [
    ("mlperf_ic_resnet8", 4, Plan(8, 16, 4, "xc7a100t", products="dsp"), (5602, 12483, 27, 76)),
    ("mlperf_ic_resnet8", 4, Plan(16, 16, 8, "xc7a100t", products="dsp"), (8473, 22625, 27, 152)),
    ("mlperf_ic_resnet8", 8, Plan(8, 16, 4, "xc7a100t", products="dsp"), (5016, 20798, 59, 140)),
    ("mnist_cnn_cntk", 4, Plan(4, 4, 1, "ice40up5k", products="dsp"), (2658, 2070, 14, 8)),
    ("mnist_cnn_cntk", 8, Plan(4, 2, 1, "ice40up5k", products="dsp"), (2772, 1852, 28, 8)),
]

# of more plans, for the network that ships as `gen` makes it: scripts/bench_estimate.py --record
RECORDED = json.loads((Path(__file__).parent / "measured_cells.json").read_text())

# MLPerf KWS, whose depthwise layers take three taps a beat
MEASURED_WITH_TAPS = [
    (Plan(16, 16, 4), "lfe5u-45f", (18306, 15348, 43, 8)),
    (Plan(16, 16, 4), "xc7a100t", (11440, 15271, 18, 8)),
    (Plan(8, 8, 2), "xc7a100t", (3725, 5867, 12, 4)),
    (Plan(32, 16, 4), "xc7a35t", (15619, 25008, 34, 8)),
]


@pytest.fixture(scope="module")
def depthwise(shared: Path) -> QuantGraph:
    return quantize(load(shared / "models" / "mlperf_kws_dscnn.onnx"), QuantConfig())


@pytest.fixture(scope="module")
def shipped() -> QuantGraph:
    return quantize(load(packaged.model_path()), QuantConfig())


@pytest.fixture(scope="module")
def graph() -> QuantGraph:
    mean, std = packaged.normalisation()
    config = QuantConfig(mean=mean, std=std, levels="rounded", search="both", product_bits=7)
    return quantize(load(packaged.model_path()), config)


# ---------------------------------------------------------------- memories

PLACED: list[tuple[str, Memory, int, int]] = [
    # device, memory, halves of block RAM, LUTs: as counted in netlists
    ("lfe5u-25f", Memory(64, 4936, rom=True), 40, 0),
    ("lfe5u-25f", Memory(16, 9216, rom=False), 18, 0),
    ("lfe5u-25f", Memory(21, 32, rom=False), 0, 72),
    ("lfe5u-25f", Memory(84, 64, rom=False), 6, 0),
    ("lfe5u-25f", Memory(1024, 312, rom=True), 58, 0),
    ("xc7a100t", Memory(16, 6144, rom=False), 6, 0),
    ("xc7a100t", Memory(16, 9216, rom=False), 9, 0),
    ("xc7a100t", Memory(42, 32, rom=False), 0, 28),
    ("xc7a100t", Memory(58, 346, rom=True), 2, 0),
    ("xc7a100t", Memory(1024, 312, rom=True), 29, 0),
    ("ice40hx8k", Memory(64, 1252, rom=True), 40, 0),
    ("ice40hx8k", Memory(16, 3920, rom=False), 32, 0),
    ("ice40up5k", Memory(16, 32768, rom=False, in_spram=True), 0, 28),
    ("gw2a-18", Memory(16, 9216, rom=False), 18, 0),
]


@pytest.mark.parametrize(("device", "memory", "halves", "luts"), PLACED)
def test_memories_take_what_yosys_gives_them(
    device: str, memory: Memory, halves: int, luts: int
) -> None:
    cells = place_memory(find_device(device), memory)
    assert (cells.half_brams, cells.luts, cells.rom_bits) == (halves, luts, 0)


@pytest.mark.parametrize("words", [1, 2, 300, 512, 513, 784, 1600, 2352, 5488, 9216, 40000])
@pytest.mark.parametrize("bits", [12, 16, 24, 32, 48, 64])
def test_parts_of_a_memory_need_no_choice_and_no_more_blocks(bits: int, words: int) -> None:
    parts = parts_of(words)
    starts = [start for start, _ in parts]
    assert starts == [sum(size for _, size in parts[:at]) for at in range(len(parts))]
    assert sum(size for _, size in parts) == words
    assert all(start % (1 << (size - 1).bit_length()) == 0 for start, size in parts)
    ecp5 = find_device("lfe5u-25f")
    placed = [place_memory(ecp5, Memory(bits, size, rom=False)) for _, size in parts]
    assert not any(cells.half_brams and cells.mux_bits for cells in placed)
    whole = place_memory(ecp5, Memory(bits, words, rom=False))
    assert sum(cells.half_brams for cells in placed) <= whole.half_brams


@pytest.mark.parametrize(
    ("device", "is_logic"),
    [("xc7a35t", False), ("xc7a100t", True), ("lfe5u-25f", False), ("ice40hx8k", False)],
)
def test_a_rom_is_what_the_device_has_more_of(device: str, is_logic: bool) -> None:
    cells = place_memory(find_device(device), Memory(116, 190, rom=True))
    assert (cells.half_brams == 0, cells.rom_bits) == (is_logic, 116 * 190 * is_logic)
    assert bool(ram_style(device, 116, 190)) is not is_logic


def test_a_rom_in_blocks_is_never_logic() -> None:
    for name in DEVICES:
        cells = place_memory(find_device(name), Memory(8, 65, rom=True, in_blocks=True))
        assert (cells.half_brams > 0, cells.luts, cells.rom_bits) == (True, 0, 0)


def test_without_a_device_a_rom_is_that_of_the_default() -> None:
    assert ram_style(None, 116, 190) == ram_style(DEFAULT_DEVICE, 116, 190) != {}


def test_the_output_buffer_is_as_deep_as_the_gateware_makes_it(graph: QuantGraph) -> None:
    for plan in (Plan(4, 4, 1), Plan(8, 16, 2), Plan(16, 16, 8)):
        program = schedule(graph, plan)
        buffer = OutputBuffer(graph, program)
        Fragment.get(buffer, None)  # or Amaranth warns that it was never used
        assert memories(graph, program)[-1].words == buffer._depth


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize(("plan", "device", "measured"), MEASURED)
def test_estimates_are_near_what_was_measured(
    graph: QuantGraph, plan: Plan, device: str, measured: tuple[int, int, int, int]
) -> None:
    found = estimate(graph, schedule(graph, plan), device)
    luts, ffs, brams, dsps = measured
    assert found.luts == pytest.approx(luts, rel=0.10)
    assert found.ffs == pytest.approx(ffs, rel=0.15)
    assert brams <= found.brams <= brams + 4
    assert found.dsps == dsps


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row['device']}-{row['plan']}")
def test_estimates_are_near_all_that_was_recorded(shipped: QuantGraph, row: dict[str, Any]) -> None:
    found = estimate(shipped, schedule(shipped, Plan(*row["plan"])), row["device"])
    assert found.luts == pytest.approx(row["luts"], rel=0.10)
    assert found.ffs == pytest.approx(row["ffs"], rel=0.10)
    assert row["brams"] <= found.brams <= row["brams"] + 2
    assert found.dsps == row["dsps"]


@pytest.mark.parametrize(("plan", "device", "measured"), MEASURED_WITH_TAPS)
def test_estimates_of_depthwise_layers_are_near_what_was_measured(
    depthwise: QuantGraph, plan: Plan, device: str, measured: tuple[int, int, int, int]
) -> None:
    test_estimates_are_near_what_was_measured(depthwise, plan, device, measured)


@pytest.mark.parametrize(("model", "bits", "plan", "measured"), MEASURED_IN_BLOCKS)
def test_estimates_of_products_in_blocks_are_near_what_was_measured(
    shared: Path, model: str, bits: int, plan: Plan, measured: tuple[int, int, int, int]
) -> None:
    network = load(shared / "models" / f"{model}.onnx")
    graph = quantize(network, QuantConfig(weight_bits=bits, act_bits=bits))
    assert plan.device is not None
    test_estimates_are_near_what_was_measured(graph, plan, plan.device, measured)


def test_all_blocks_of_an_ice40_are_the_arrays(shipped: QuantGraph) -> None:
    chosen = choose_plan(shipped, "ice40up5k", products="dsp")
    assert (chosen.macs_per_cycle, chosen.block) == (16, "SB_MAC16")
    test_estimates_are_near_what_was_measured(shipped, chosen, "ice40up5k", (3408, 2329, 26, 8))
    with pytest.raises(DoesNotFit, match=r"4 x 8 MACs and 1 lane need 16 DSP blocks of 8 and"):
        choose_plan(shipped, "ice40up5k", rows=4, cols=8, products="dsp")


def test_a_device_with_too_few_blocks_is_refused(graph: QuantGraph, shipped: QuantGraph) -> None:
    chosen = choose_plan(shipped, "xc7a35t", products="dsp")
    assert chosen.products == "dsp"
    assert estimate(shipped, schedule(shipped, chosen), "xc7a35t").fits
    with pytest.raises(DoesNotFit, match=r"16 x 16 MACs and 4 lanes need 140 DSP blocks of 90"):
        choose_plan(shipped, "xc7a35t", rows=16, cols=16, lanes=4, products="dsp")
    with pytest.raises(UnsupportedModel, match="table of products is not made of two levels"):
        choose_plan(graph, "xc7a35t", products="dsp")


def test_fits_means_room_for_placement(graph: QuantGraph) -> None:
    program = schedule(graph, Plan(16, 16, 8))
    found = estimate(graph, program, "lfe5u-25f")
    limit = find_device("lfe5u-25f").luts * LUT_PERCENT // 100
    assert found.luts > limit
    assert not found.fits
    assert found.shortages == (f"{found.luts} LUTs of {limit}",)
    assert estimate(graph, program, "lfe5u-85f").fits


# ---------------------------------------------------------------- the plan that fits


@pytest.mark.parametrize("device", ["xc7a35t", "xc7a100t", "lfe5u-25f", "lfe5u-45f", "lfe5u-85f"])
def test_the_chosen_plan_fits_and_none_with_fewer_cycles_does(
    graph: QuantGraph, device: str
) -> None:
    chosen = choose_plan(graph, device)
    assert chosen.device == device
    program = schedule(graph, chosen)
    assert estimate(graph, program, device).fits
    for rows in (4, 8, 16, 32, 64):
        for lanes in (1, 2, 4, 8):
            if lanes <= rows // 2:
                other = schedule(graph, Plan(rows, rows, lanes))
                assert other.cycles >= program.cycles or not estimate(graph, other, device).fits


def test_a_larger_device_is_never_slower(graph: QuantGraph) -> None:
    cycles = [
        schedule(graph, choose_plan(graph, device)).cycles
        for device in ("lfe5u-25f", "lfe5u-45f", "lfe5u-85f")
    ]
    assert cycles == sorted(cycles, reverse=True)


def test_weights_lie_in_what_the_device_has_more_of(depthwise: QuantGraph) -> None:
    program = schedule(
        depthwise, Plan(16, 16, 4)
    )  # 232 words, of which yosys would make 9,000 LUTs
    assert estimate(depthwise, program, "xc7a35t").fits
    chosen = schedule(depthwise, choose_plan(depthwise, "xc7a35t"))
    assert chosen.cycles <= program.cycles


def test_sizes_that_are_given_are_kept(graph: QuantGraph) -> None:
    chosen = choose_plan(graph, "lfe5u-85f", rows=8, lanes=2)
    assert (chosen.rows, chosen.lanes) == (8, 2)
    with pytest.raises(BadInput, match="lanes=3: must be a power of two"):
        choose_plan(graph, "lfe5u-85f", lanes=3)


def test_what_does_not_fit_says_what_is_short_and_by_how_much(graph: QuantGraph) -> None:
    with pytest.raises(DoesNotFit, match=r"ice40hx8k: .* need \d+ block RAMs of 32"):
        choose_plan(graph, "ice40hx8k")
    with pytest.raises(DoesNotFit, match=r"64 x 64 MACs and 1 lane need \d+ LUTs of 20644"):
        choose_plan(graph, "lfe5u-25f", rows=64, cols=64, lanes=1)


def test_what_does_not_fit_names_the_smallest_device_that_does(graph: QuantGraph) -> None:
    with pytest.raises(DoesNotFit) as refused:
        choose_plan(graph, "ice40hx8k", rows=16, cols=16)
    for name in sorted(DEVICES, key=lambda name: find_device(name).luts):
        with contextlib.suppress(DoesNotFit):
            plan = choose_plan(graph, name, rows=16, cols=16)
            break
    else:
        pytest.fail("no device does")
    smallest = f"the smallest device that does is {name}, with 16 x 16 MACs and {plan.lanes} lane"
    assert smallest in str(refused.value)
    assert find_device(name).luts > find_device("ice40hx8k").luts
    with pytest.raises(DoesNotFit, match=r"no device does: on lfe5u-85f, the largest, 64 x 64 .*"):
        choose_plan(graph, "ice40hx8k", rows=64, cols=64)
    with pytest.raises(DoesNotFit, match=r"LUTs of \d+( and [^;]*)?; no other device does$"):
        choose_plan(graph, "lfe5u-85f", rows=64, cols=64)


def test_what_does_not_fit_says_how_much_of_the_weights_would(shared: Path) -> None:
    graph = quantize(load(shared / "models" / "resnet20_cifar10.onnx"), QuantConfig())
    with pytest.raises(DoesNotFit) as refused:
        choose_plan(graph, "lfe5u-25f", rows=8, cols=8, lanes=1)
    said = re.search(
        r"(\d+) block RAMs of 56, which hold (\d+) % of the weights", str(refused.value)
    )
    assert said is not None
    plan = Plan(8, 8, 1)
    words = schedule(graph, plan).weight_words
    short = int(said[1]) - 56
    whole, part = (blocks_of(graph, plan, n) for n in (words, words * int(said[2]) // 100))
    assert whole - part >= short > whole - blocks_of(graph, plan, words * (int(said[2]) + 2) // 100)


def blocks_of(graph: QuantGraph, plan: Plan, words: int) -> int:
    ecp5 = find_device("lfe5u-25f")
    placed = [place_memory(ecp5, memory) for memory in weight_memory(graph, plan, words)]
    return sum(cells.half_brams for cells in placed) // 2


def test_the_network_that_ships_fits_the_smallest_ice40(shipped: QuantGraph) -> None:
    chosen = choose_plan(shipped, "ice40up5k")
    found = estimate(shipped, schedule(shipped, chosen), "ice40up5k")
    assert (found.fits, found.sprams) == (True, 4)
    without = estimate(shipped, schedule(shipped, Plan(4, 4, 1)), "ice40up5k")
    assert (without.brams > 30, without.sprams) == (True, 0)


def test_streamed_weights_take_a_buffer_of_block_ram_and_registers(graph: QuantGraph) -> None:
    whole = schedule(graph, Plan(4, 4, 1))
    streamed = schedule(graph, Plan(4, 4, 1, stream_bits=16))
    assert memories(graph, streamed)[0] == Memory(64, 512, rom=False)
    before, after = (estimate(graph, program, "lfe5u-25f") for program in (whole, streamed))
    assert after.brams < before.brams
    # what a word has before its last beat, and what was a register of the ROM's second part
    assert after.ffs == before.ffs + 48 + 64


def test_what_fits_with_streamed_weights_alone_is_said(shared: Path) -> None:
    graph = quantize(load(shared / "models" / "resnet20_cifar10.onnx"), QuantConfig())
    with pytest.raises(DoesNotFit) as refused:
        choose_plan(graph, "lfe5u-25f")
    chosen = choose_plan(graph, "lfe5u-25f", weights="stream")
    fits = f"with --weights stream {chosen.rows} x {chosen.cols} MACs and {chosen.lanes} lanes fit"
    assert f" of the weights beside the rest; {fits}; " in str(refused.value)
    assert chosen.stream_bits == 64
    assert estimate(graph, schedule(graph, chosen), "lfe5u-25f").fits
    with pytest.raises(DoesNotFit, match=r"LUTs of 20644 .* block RAMs of 56; no device does"):
        choose_plan(graph, "lfe5u-25f", rows=64, cols=64)


def test_levels_need_a_dsp_block_a_mac(graph: QuantGraph) -> None:
    config = dataclasses.replace(QuantConfig(), weight_bits=8, act_bits=8)
    levels = quantize(load(packaged.model_path()), config)
    program = schedule(levels, Plan(4, 4, 1))
    lanes = estimate(graph, schedule(graph, Plan(4, 4, 1)), "lfe5u-45f").dsps
    assert estimate(levels, program, "lfe5u-45f").dsps >= 16 + lanes - 1


STEPS = Thresholds((3, 5, 9, 1 << 15), (0, 1, 2, 3, 4))


def quotient(numerator: tuple[int, ...], denominator: tuple[int, ...]) -> PowerPade:
    window = Window((0, 1, 2, 3, 3, 4, 4, 4), 0, STEPS)
    return PowerPade(0, 17, window, 1, numerator, denominator, 24)


SLOPES = Slopes((255, 7, 90, 101, 254, 33, 0, 129), 8, 8, 14)
PRODUCTS: dict[str, list[Guess]] = {
    "slopes": [PowerTable(0, 17, Window((0, 0, 1, 1, 1, 1, 1, 1), 0, STEPS), 3, (14,), SLOPES)],
    "narrow": [quotient((559, 883, 662), (63076, 41841))],
    "wide": [quotient((5343746, 8050700, 4224049), (36845, 47628))],
    "chosen": [quotient((75230, 1 << 18), (40, 64)), quotient((1, 401_257), (9, 2**17 - 1))],
    "shifted": [quotient((75230, 1 << 18), (40, 64))],
}


@pytest.mark.synth
@pytest.mark.parametrize("device", ["xc7a35t", "lfe5u-25f", "ice40up5k", "gw2a-18"])
@pytest.mark.parametrize("records", PRODUCTS.values(), ids=PRODUCTS)
def test_dsp_blocks_of_a_unit_are_those_of_its_netlist(
    records: list[Guess], device: str, tmp_path: Path
) -> None:
    emit_unit(create(records, 20, 3), tmp_path)
    found = synthesize(tmp_path, device).design.dsps
    assert unit_dsps(records, find_device(device).family) == found


def test_gen_for_a_device_that_is_too_small_exits_2(tmp_path: Path) -> None:
    arguments = ("gen", network(tmp_path), "-o", tmp_path / "build", "--device", "ice40hx8k")
    result = hwquant(*arguments, "--rows", "64", "--cols", "64")
    assert_refused(result, ["ice40hx8k: 64 x 64 MACs", "LUTs of 6528"])
    assert not (tmp_path / "build").exists()
