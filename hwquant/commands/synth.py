"""``hwquant synth``: count the cells of a build directory, and place and route it."""

from pathlib import Path

import click

from hwquant import report, toolchain
from hwquant.commands import tables, terminal
from hwquant.commands.options import directory_argument, json_option
from hwquant.errors import BadInput
from hwquant.fpga.devices import DEFAULT_DEVICE, find_device
from hwquant.fpga.nextpnr import nextpnr_version
from hwquant.fpga.synth import place_and_route, routable, synthesize, write_bitstream


@click.command()
@directory_argument
@click.option(
    "--device", metavar="D", help=f"Device [the plan's, or {DEFAULT_DEVICE} where it has none]."
)
@click.option("--pnr", is_flag=True, help="Place and route too (ECP5, iCE40).")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    default=3,
    show_default=True,
    help="Place and route N times and report the median Fmax.",
)
@click.option(
    "--bitstream", is_flag=True, help="Pack a bitstream too, pins wherever they go (ECP5, iCE40)."
)
@json_option
def synth(
    directory: Path, device: str | None, pnr: bool, seeds: int, bitstream: bool, as_json: bool
) -> None:
    """Synthesize the build directory DIR with yosys; place and route it with nextpnr."""
    plan = report.read(directory)["plan"]
    device = device or (plan and plan["device"]) or DEFAULT_DEVICE
    blocks_of = plan["device"] if plan and plan.get("products") == "dsp" else None
    if blocks_of and find_device(device).block != find_device(blocks_of).block:
        raise BadInput(f"{device}: the design has DSP blocks of {blocks_of}; name its family")
    tools = {"yosys": toolchain.yosys_version()}
    if pnr or bitstream:  # missing tools are missed before the long work
        fabric = routable(device)
        tools[f"nextpnr-{fabric}"] = nextpnr_version(fabric)
    terminal.say(f"synthesize for {device} (minutes for a large array)")
    result = synthesize(directory, device)
    sections = {"synth": report.synth_section(result), "pnr": None}
    made = report.update(directory, sections, tools)
    if pnr:
        terminal.say(f"place and route with {seeds} seeds (minutes each)")
        routed = place_and_route(directory, device, range(1, seeds + 1))
        made = report.update(directory, {"pnr": report.pnr_section(routed)}, tools)
    if bitstream:
        terminal.say("place and route with pins, and pack")
        terminal.say(f"bitstream: {write_bitstream(directory, device)}")
    if as_json:
        terminal.print_json(made)
    else:
        tables.print_cells(made)
