"""``hwquant gen``: quantize a network and write its build directory."""

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import click

from hwquant import activation, effort, estimate, packaged, report, toolchain
from hwquant.commands import networks, tables, terminal
from hwquant.commands.options import (
    QuantOptions,
    data_option,
    json_option,
    limit_option,
    model_argument,
    quant_options,
)
from hwquant.emit import emit
from hwquant.errors import BadInput
from hwquant.fit import choose_plan
from hwquant.fpga.devices import DEFAULT_DEVICE, find_device
from hwquant.ir import QuantGraph
from hwquant.scheduler.plan import Plan, Products, Weights, with_stream

_ROWS = _COLS = 16
_LANES = 4


@click.command()
@model_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("build"),
    show_default=True,
    help="The build directory; one that hwquant wrote is replaced.",
)
@quant_options
@click.option("--device", metavar="D", help="Choose the fastest plan that fits this device.")
@click.option("--rows", type=int, metavar="R", help=f"Output channels in parallel [{_ROWS}].")
@click.option("--cols", type=int, metavar="C", help=f"Input channels in parallel [{_COLS}].")
@click.option(
    "--lanes",
    type=int,
    metavar="L",
    help=f"Requantize and activation units [the smallest of {_LANES}, R and C/2].",
)
@click.option(
    "--products",
    type=click.Choice(["lut", "dsp"]),
    default="lut",
    show_default=True,
    help="The array's products in LUTs or in DSP blocks; these need --device.",
)
@click.option(
    "--weights",
    type=click.Choice(["rom", "stream"]),
    default="rom",
    show_default=True,
    help="All on the chip, or arriving in every frame.",
)
@click.option(
    "--weight-stream-bits",
    "stream_bits",
    type=int,
    metavar="N",
    help="Bits of weights a cycle [64, or less to fit a word].",
)
@data_option
@limit_option
@json_option
def gen(
    options: QuantOptions,
    model: Path | None,
    output: Path,
    device: str | None,
    rows: int | None,
    cols: int | None,
    lanes: int | None,
    products: Products,
    weights: Weights,
    stream_bits: int | None,
    data: Path | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Quantize MODEL and write Verilog, memory images, model and report.

    Without MODEL: the network that ships, whose accuracy on its 500 test images is measured too.
    With --data the accuracy on those images is.
    """
    if stream_bits is not None and weights != "stream":
        raise BadInput(f"--weight-stream-bits={stream_bits}: only with --weights stream")
    if device is None:  # before a large network takes minutes to quantize
        _given_plan(rows, cols, lanes, products)
    else:
        find_device(device)
    with new_directory(output) as draft:
        network = networks.load(model, options)
        graph = network.quantized
        if data is None and model is None:
            data = packaged.data_path()
        images = networks.load_data(graph, data, limit) if data is not None else None
        plan = _plan(graph, device, rows, cols, lanes, products, weights, stream_bits)
        if graph.provenance.activation != "thresholds":
            terminal.say(f"activation units: {activation.in_words(graph.layers)}")
        terminal.say(f"plan {plan.rows} rows x {plan.cols} columns, {plan.lanes} lanes")
        program = emit(graph, plan, draft, progress=terminal.say)
        made = report.of_design(
            graph.provenance,
            report.read_design(draft),
            effort.measure(graph, program),
            estimate.estimate(graph, program, plan.device or DEFAULT_DEVICE),
            {"yosys": toolchain.yosys_version(), **report.installed("amaranth")},
        )
        if images is not None:
            made["accuracy"] = report.accuracy_section(networks.measure(network, images))
            made["tools"] |= report.installed("onnxruntime")
        report.write(draft, made)
    if as_json:
        terminal.print_json(made)
    else:
        tables.print_build(made, output)


def _plan(
    graph: QuantGraph,
    device: str | None,
    rows: int | None,
    cols: int | None,
    lanes: int | None,
    products: Products,
    weights: Weights,
    stream_bits: int | None,
) -> Plan:
    if device is not None:
        return choose_plan(
            graph,
            device,
            rows=rows,
            cols=cols,
            lanes=lanes,
            weights=weights,
            stream_bits=stream_bits,
            products=products,
        )
    plan = _given_plan(rows, cols, lanes, products)
    return with_stream(plan, graph, stream_bits) if weights == "stream" else plan


def _given_plan(rows: int | None, cols: int | None, lanes: int | None, products: Products) -> Plan:
    rows = _ROWS if rows is None else rows
    cols = _COLS if cols is None else cols
    default = max(1, min(_LANES, rows, cols // 2))
    return Plan(rows, cols, default if lanes is None else lanes, products=products)


# ---------------------------------------------------------------- the directory


@contextlib.contextmanager
def new_directory(output: Path) -> Generator[Path]:
    """Lend a directory beside ``output`` that takes its place if all goes well, else vanishes.

    Raises
    ------
    BadInput
        If something is there that hwquant did not write, or nothing can be written there.
    """
    target = _replaceable(output)
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise BadInput(f"{output}: cannot be written: {error.strerror}") from None
    try:
        draft = folder / "new"
        draft.mkdir()
        yield draft
        if target.exists():
            target.rename(folder / "old")
        draft.rename(target)
    finally:
        if not target.exists() and (folder / "old").exists():
            (folder / "old").rename(target)  # interrupted between the two
        shutil.rmtree(folder, ignore_errors=True)
        for parent in missing:  # those that are empty again
            with contextlib.suppress(OSError):
                parent.rmdir()


def _replaceable(output: Path) -> Path:
    """Return the absolute path of a directory that ``gen`` may write or replace."""
    target = output.resolve()
    if Path.cwd().is_relative_to(target):
        raise BadInput(f"{output}: is the current directory or holds it; name another")
    if not target.exists():
        return target
    if not target.is_dir():
        raise BadInput(f"{output}: a file is there; hwquant gen writes a directory")
    if any(target.iterdir()) and not report.is_build_directory(target):
        raise BadInput(f"{output}: not a build directory of hwquant, so it is not overwritten")
    return target
