"""``hwquant verify``: the hardware computes what golden computes, in the cycles foretold."""

from pathlib import Path

import click

from hwquant import golden, model_file, packaged, report
from hwquant.commands import networks, tables, terminal
from hwquant.commands.options import data_option, directory_argument, json_option, limit_option
from hwquant.dataset import Dataset
from hwquant.errors import BadInput, MissingTool, VerificationError
from hwquant.fpga.devices import DEFAULT_DEVICE
from hwquant.ir import IntArray, QuantGraph

_SEED = 1  # of random frames


@click.command()
@directory_argument
@data_option
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Pass the first N images, or N random frames.",
)
@limit_option
@click.option("--netlist", is_flag=True, help="Simulate the synthesized netlist, not the RTL.")
@click.option("--device", metavar="D", help="The netlist's device [that of hwquant synth].")
@click.option("--stalls", type=int, metavar="SEED", help="Random gaps on all streams.")
@json_option
def verify(
    directory: Path,
    data: Path | None,
    frames: int,
    limit: int | None,
    netlist: bool,
    device: str | None,
    stalls: int | None,
    as_json: bool,
) -> None:
    """Simulate the build directory DIR under Verilator: all values equal golden's, or exit code 1.

    Without --data: the images that ship, for the network that ships, else random frames.
    """
    kept = report.read(directory)
    graph = load_model(directory)
    images = _images(graph, data, frames if limit is None else min(frames, limit))
    synthesized = kept["synth"]["device"] if kept["synth"] else DEFAULT_DEVICE
    file = directory / "synth" / (device or synthesized) / "netlist.v" if netlist else None
    with terminal.bar("golden", len(images.images)) as progress:
        values = golden.simulate(graph, images.images, progress=progress)
    expected = values.transpose(0, 2, 3, 1).reshape(len(values), -1)
    terminal.say(f"simulate {len(values)} frames of {images.name} (a new design is compiled first)")
    section = _simulate(directory, graph, images, expected, file, stalls)
    tools = {"verilator": section["simulator"].split()[-1], **report.installed("cocotb")}
    made = report.update(directory, {"verify": section}, tools)
    if as_json:
        terminal.print_json(made)
    else:
        tables.print_verification(made)
    if section["failure"] is not None:
        raise VerificationError(section["failure"])


def load_model(directory: Path) -> QuantGraph:
    """Read the network of a build directory."""
    if not (directory / "model.hwq").is_file():
        raise BadInput(f"{directory}: no model.hwq: run hwquant gen again")
    return model_file.load(directory / "model.hwq")


def _images(graph: QuantGraph, data: Path | None, count: int) -> Dataset:
    if data is not None:
        return networks.load_data(graph, data, count)
    if packaged.is_packaged(graph.provenance.model_sha256):
        return networks.load_data(graph, packaged.data_path(), count)
    images = networks.random_data(graph, count, _SEED)
    terminal.say(f"no --data: {images.name}")
    return images


def _simulate(
    directory: Path,
    graph: QuantGraph,
    images: Dataset,
    expected: IntArray,
    netlist: Path | None,
    stalls: int | None,
) -> report.VerifySection:
    try:
        from hwquant import cosim
        from hwquant.commands import difference
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("cocotb", "cocotb_tools"):
            raise
        raise MissingTool("cocotb is missing: pip install 'hwquant[verify]'") from None
    section: report.VerifySection = {
        "frames": len(expected),
        "mismatches": None,
        "cycles": None,
        "netlist": netlist is not None,
        "simulator": f"verilator {cosim.verilator_version()}",
        "data": images.name,
        "stalls": stalls,
        "layer_cycles": None,
        "first_mismatch": None,
        "failure": None,
    }
    try:
        result = cosim.verify(directory, images.images, expected, netlist=netlist, stalls=stalls)
    except VerificationError as error:
        section["failure"] = str(error)
        return section
    section["mismatches"] = result.mismatches
    section["cycles"] = result.cycles
    section["layer_cycles"] = None if result.layer_cycles is None else list(result.layer_cycles)
    section["failure"] = difference.explain(directory, graph, report.read_design(directory), result)
    if result.first is not None:
        section["first_mismatch"] = {
            "frame": result.first.frame,
            "output": result.first.position,
            "got": result.first.got,
            "expected": result.first.expected,
        }
    return section
