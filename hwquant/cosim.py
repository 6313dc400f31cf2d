"""Cosimulate a build directory under Verilator and compare it with golden, exactly.

The bench (``cosim_bench``) runs inside the simulator and exchanges files with this module;
nothing depends on what a log says. A build directory holds ``design.json`` and, in ``rtl/``, the
Verilog and the memory images that it names.
"""

import contextlib
import itertools
import json
import os
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from hwquant.errors import BadInput, MissingTool, ToolFailed, VerificationError
from hwquant.fpga.devices import UNMODELLED, find_device, simulation_models
from hwquant.ir import IntArray
from hwquant.toolchain import last_words, verilator_env, verilator_version
from hwquant.verilator_model import CELL_OPTIONS, build_model

_BENCH = "hwquant.cosim_bench"
_WEIGHTS = "weights.hex"  # of a frame, a beat a line


class InputPort(TypedDict):
    """A frame is ``beats`` beats of ``channels_per_beat`` pixels of ``bits`` bits."""

    beats: int
    channels_per_beat: int
    bits: int
    signed: bool


class OutputPort(TypedDict):
    """A frame is ``pixels`` times ``channels`` values, up to ``values_per_beat`` in a beat."""

    beats: int
    values_per_beat: int
    value_bits: int
    values: int
    channels: int
    pixels: int


class LayerEntry(TypedDict):
    """What the sequencer does for ``cycles`` cycles; ``status__layer`` counts those that run."""

    name: str
    kind: str
    cycles: int
    macs: int


class Design(TypedDict):
    """The part of ``design.json`` that describes the interface; ``top``'s files are in ``rtl/``."""

    schema: int
    top: str
    verilog: list[str]
    memories: list[str]
    plan: dict[str, Any]
    input: InputPort
    output: OutputPort
    cycles: int
    layers: list[LayerEntry]
    weight_stream: dict[str, int] | None


@dataclass(frozen=True)
class Mismatch:
    """The first value that differs: ``position`` counts values in the order of the output."""

    frame: int
    position: int
    got: int
    expected: int


@dataclass(frozen=True)
class VerifyResult:
    """Outcome of ``verify``.

    ``mismatches`` counts values that differ. ``cycles`` is that of the first frame, first beat in
    to last beat out, and ``layer_cycles`` its parts; ``None`` where stalls make them meaningless,
    or, for the parts, where ``status__layer`` did not count 0, 1, 2, ...
    """

    frames: int
    mismatches: int
    first: Mismatch | None
    cycles: int | None
    layer_cycles: tuple[int, ...] | None
    netlist: bool
    simulator: str


def read_design(directory: Path) -> Design:
    """Read ``design.json`` of a build directory."""
    file = directory / "design.json"
    if not file.is_file():
        raise BadInput(f"{directory}: no design.json, so not a build directory of hwquant gen")
    design = json.loads(file.read_text())
    if design.get("schema") != 1:
        raise BadInput(f"{file}: schema {design.get('schema')}, this version reads 1")
    if design["weight_stream"] and not (directory / _WEIGHTS).is_file():
        raise BadInput(f"{directory}: no {_WEIGHTS}: run hwquant gen again")
    return cast(Design, design)


def pack_input(design: Design, images: IntArray) -> list[int]:
    """Pack images into beats: pixel by pixel, row-major, channels in lanes, zeros beyond them.

    ``int[N, C, H, W] -> N * beats`` integers; lane j of a beat is in its bits ``j * bits`` and up.
    """
    port = design["input"]
    bits, lanes = port["bits"], port["channels_per_beat"]
    count, channels, height, width = images.shape
    groups = -(-channels // lanes)
    if height * width * groups != port["beats"]:
        raise BadInput(
            f"images {channels}x{height}x{width} make {height * width * groups} beats of {lanes} "
            f"channels, the design takes {port['beats']}"
        )
    low = -(1 << bits - 1) if port["signed"] else 0
    high = low + (1 << bits) - 1
    if images.size and not low <= images.min() <= images.max() <= high:
        raise BadInput(
            f"pixels {images.min()}..{images.max()}, the design takes {low}..{high} ({bits} bits)"
        )
    padded = np.zeros((count, height, width, groups * lanes), dtype=object)
    padded[..., :channels] = images.transpose(0, 2, 3, 1) & ((1 << bits) - 1)
    beats = padded.reshape(-1, lanes) << (np.arange(lanes) * bits).astype(object)
    return [int(beat) for beat in beats.sum(axis=1)]


def unpack_output(design: Design, beats: Sequence[int]) -> IntArray:
    """Unpack beats into the values of each frame, in order (y, x, channel), channel innermost.

    ``N * beats`` integers ``-> int64[N, values]``. A pixel starts a new beat; unused lanes of its
    last beat are ignored.
    """
    port = design["output"]
    bits, lanes = port["value_bits"], port["values_per_beat"]
    groups = -(-port["channels"] // lanes)
    if port["pixels"] * groups != port["beats"] or len(beats) % port["beats"]:
        raise BadInput(
            f"{len(beats)} beats are no whole frames of {port['pixels']} pixels of {groups} beats"
        )
    words = np.array(beats, dtype=object).reshape(-1, port["pixels"], groups, 1)
    values = (words >> (np.arange(lanes) * bits).astype(object)) & ((1 << bits) - 1)
    signed = (values ^ (1 << bits - 1)) - (1 << bits - 1)
    pixels = signed.reshape(-1, port["pixels"], groups * lanes)[..., : port["channels"]]
    return pixels.reshape(-1, port["values"]).astype(np.int64)


def verify(
    directory: Path,
    images: IntArray,
    expected: IntArray,
    *,
    netlist: Path | None = None,
    stalls: int | None = None,
    reset_midway: bool = False,
) -> VerifyResult:
    """Pass images through the hardware and compare every value with golden's.

    ``images`` is ``int[N, C, H, W]`` as the sensor gives it, ``expected`` ``int[N, values]`` in
    the order of ``unpack_output``. ``netlist`` is a ``netlist.v`` written by ``synthesize``,
    simulated in place of the RTL. ``stalls`` is the seed of random gaps on all streams.
    ``reset_midway`` resets in the middle of the first frame, then starts over.

    Raises
    ------
    VerificationError
        If the hardware hangs, sends more beats than it should, or breaks the stream contract.
    ToolFailed
        If it does not compile, or the simulator dies.
    """
    design = read_design(directory)
    frames = len(images)
    if not frames or expected.shape != (frames, design["output"]["values"]):
        raise BadInput(
            f"{frames} images and expected values of shape {expected.shape}, "
            f"need at least one and ({frames}, {design['output']['values']})"
        )
    beats = pack_input(design, images)
    rtl = directory.resolve() / "rtl"
    folder = directory.resolve() / ("sim" if netlist is None else "sim_netlist")
    folder.mkdir(exist_ok=True)
    _write_job(folder, design, beats, frames, stalls, reset_midway)
    with _verilator_environment():
        build = _build(folder, rtl, design, netlist)
        _simulate(folder, build, rtl, design["top"])
    got = unpack_output(design, [int(x, 16) for x in (folder / "output.hex").read_text().split()])
    if got.shape != expected.shape:
        raise VerificationError(f"{got.shape[0]} frames came out, {frames} went in; see {folder}")
    result = json.loads((folder / "result.json").read_text())
    differs = np.argwhere(got != expected)
    return VerifyResult(
        frames=frames,
        mismatches=len(differs),
        first=_first_mismatch(differs, got, expected),
        cycles=None if stalls is not None else _cycles(design, result),
        layer_cycles=None if stalls is not None else _layer_cycles(design, result),
        netlist=netlist is not None,
        simulator=f"verilator {verilator_version()}",
    )


def _first_mismatch(differs: IntArray, got: IntArray, expected: IntArray) -> Mismatch | None:
    if not len(differs):
        return None
    frame, position = (int(axis) for axis in differs[0])
    return Mismatch(frame, position, int(got[frame, position]), int(expected[frame, position]))


def _cycles(design: Design, result: dict[str, list[int]]) -> int:
    return result["given"][design["output"]["beats"] - 1] - result["taken"][0] + 1


def _layer_cycles(design: Design, result: dict[str, list[int]]) -> tuple[int, ...] | None:
    """Cut the first frame at the changes of ``status__layer``."""
    first, last = result["taken"][0], result["given"][design["output"]["beats"] - 1]
    changes = cast(list[tuple[int, int]], result["layers"])
    before = [layer for cycle, layer in changes if cycle <= first][-1:]
    inside = [(cycle, layer) for cycle, layer in changes if first < cycle <= last]
    starts = [first, *(cycle for cycle, _ in inside), last + 1]
    runs = [layer["cycles"] > 0 for layer in design["layers"]]
    if [*before, *(layer for _, layer in inside)] != list(range(sum(runs))):
        return None
    spans = (end - start for start, end in itertools.pairwise(starts))
    return tuple(next(spans) if does else 0 for does in runs)


# ---------------------------------------------------------------- the simulator


def _write_job(
    folder: Path,
    design: Design,
    beats: list[int],
    frames: int,
    stalls: int | None,
    reset_midway: bool,
) -> None:
    for name in ("output.hex", "result.json", "failure.txt", "results.xml"):
        (folder / name).unlink(missing_ok=True)
    generator = random.Random(stalls or 0)
    job = {
        "output_beats": frames * design["output"]["beats"],
        "limit": 3 * design["cycles"] + 1000,  # the longest stall is shorter than 1000
        "layers": [layer["name"] for layer in design["layers"] if layer["cycles"]],
        "stalls": stalls,
        "weights": design["weight_stream"] and str(folder.parent / _WEIGHTS),
        "frames": frames,
        "reset_after": generator.randint(1, design["cycles"]) if reset_midway else None,
    }
    (folder / "job.json").write_text(json.dumps(job))
    (folder / "input.hex").write_text("".join(f"{beat:x}\n" for beat in beats))


@contextlib.contextmanager
def _verilator_environment() -> Generator[None]:
    """Lend ``os.environ``, which cocotb's runner reads, Verilator's settings."""
    before = dict(os.environ)
    os.environ.update(verilator_env())
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # with it the runner judges, and exits
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _build(folder: Path, rtl: Path, design: Design, netlist: Path | None) -> Path:
    """Return the folder of the model of the RTL or, if there is one, of the netlist."""
    sources, options = [rtl / name for name in design["verilog"]], ()
    plan = design["plan"]
    if netlist is not None:
        sources, options = [netlist.resolve(), *models_of(netlist, folder)], CELL_OPTIONS
    elif plan.get("products") == "dsp":
        sources += simulation_models(find_device(plan["device"]).family, folder)
        options = CELL_OPTIONS
    return build_model(sources, design["top"], folder, options)


def _simulate(folder: Path, build: Path, rtl: Path, top: str) -> None:
    """Run the bench in ``rtl``, where ``$readmemh`` finds its files; results are in ``folder``."""
    log, died = folder / "sim.log", False
    try:
        get_runner("verilator").test(
            test_module=_BENCH,
            hdl_toplevel=top,
            hdl_toplevel_lang="verilog",
            build_dir=build,
            test_dir=rtl,
            results_xml=str(folder / "results.xml"),
            plusargs=[f"+job={folder}"],
            log_file=log,
        )
    except ValueError as error:  # no libpython
        raise MissingTool(f"cocotb: {error} (Debian: apt-get install libpython3-dev)") from None
    except (RuntimeError, SystemExit):
        died = True
    failure = folder / "failure.txt"
    if failure.is_file():
        raise VerificationError(f"{failure.read_text()}; see {log}")
    if died or not (folder / "results.xml").is_file():
        raise ToolFailed(f"the simulator died: {last_words(log)}; see {log}")
    total, failed = get_results(folder / "results.xml")
    if failed or not total or not (folder / "result.json").is_file():
        raise VerificationError(f"{failed} of {total} benches failed; see {log}")


def models_of(netlist: Path, folder: Path) -> list[Path]:
    """Return the Verilog of the cells of ``DIR/synth/DEVICE/netlist.v``, ours in ``folder``.

    Raises
    ------
    BadInput
        If there is no such netlist, or a cell in it has no model.
    """
    if not netlist.is_file():
        raise BadInput(f"{netlist}: no netlist; hwquant synth writes one")
    family = find_device(netlist.resolve().parent.name).family
    text = netlist.read_text()
    for cell in UNMODELLED[family]:
        if f" {cell} " in text:
            raise BadInput(f"{netlist}: {cell} has no simulation model; choose an ecp5 device")
    return simulation_models(family, folder)
