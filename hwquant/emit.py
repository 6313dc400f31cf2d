"""Write a build directory: Verilog, memory images, the quantized model and ``design.json``."""

import json
from collections.abc import Callable
from pathlib import Path

from hwquant import __version__, model_file
from hwquant.gateware.accelerator import Accelerator
from hwquant.gateware.shared import Library, to_rtlil
from hwquant.ir import MacLayer, QuantGraph
from hwquant.plan import Plan
from hwquant.schedule import LayerProgram, Schedule, schedule
from hwquant.toolchain import verilog_from_rtlil

SCHEMA = 1  # of design.json and the layout of a build directory
TOP = "accelerator"
ARRAY = f"{TOP}.mac_array"  # the module of the array inside the accelerator's Verilog


def emit(
    graph: QuantGraph,
    plan: Plan,
    directory: Path,
    *,
    progress: Callable[[str], None] | None = None,
) -> Schedule:
    """Write ``rtl/``, ``model.hwq`` and ``design.json`` into ``directory``, which exists.

    The same graph and plan give the same bytes. ``progress`` hears of each step by name.

    Raises
    ------
    UnsupportedModel
        If ``schedule`` cannot place the network on ``plan``.
    """
    program = schedule(graph, plan)
    rtl = directory / "rtl"
    report = progress or _silent
    report("elaborating the accelerator")
    library = Library()
    text = to_rtlil(Accelerator(graph, program), TOP, library) + library.rtlil()
    report("writing Verilog")
    memories = verilog_from_rtlil(text, rtl / f"{TOP}.v", memories="mem")
    model_file.save(graph, directory / "model.hwq")
    entry = describe(graph, program, memories)
    (directory / "design.json").write_text(json.dumps(entry, indent=2) + "\n")
    return program


def describe(graph: QuantGraph, program: Schedule, memories: tuple[str, ...]) -> dict[str, object]:
    """Return ``design.json``: files, ports, and the cycles of every step of a frame."""
    plan, out = program.plan, graph.layers[-1].output
    pixels = out.height * out.width
    beats_per_pixel = -(-out.channels // plan.lanes)
    load = {"name": "load", "kind": "load", "macs": 0, "cycles": program.loading.cycles}
    return {
        "schema": SCHEMA,
        "hwquant": __version__,
        "top": TOP,
        "verilog": [f"{TOP}.v"],
        "memories": list(memories),
        "mac_array": {
            "top": ARRAY,
            "verilog": [f"{TOP}.v"],
            "macs": plan.macs_per_cycle,
        },
        "plan": {
            "device": plan.device,
            "rows": plan.rows,
            "cols": plan.cols,
            "lanes": plan.lanes,
            "macs_per_cycle": plan.macs_per_cycle,
        },
        "input": {
            "beats": program.loading.beats,
            "channels_per_beat": program.loading.channels_per_beat,
            "bits": graph.input.bits,
            "signed": graph.input.low < 0,
        },
        "output": {
            "beats": pixels * beats_per_pixel,
            "values_per_beat": plan.lanes,
            "value_bits": _value_bits(graph),
            "values": pixels * out.channels,
            "channels": out.channels,
            "pixels": pixels,
        },
        "cycles": program.cycles,
        "layers": [load, *(_layer(graph, step) for step in program.layers)],
    }


def _layer(graph: QuantGraph, step: LayerProgram) -> dict[str, object]:
    weight_digits = step.layer.weights.shape[0] if isinstance(step.layer, MacLayer) else 0
    return {
        "name": step.name,
        "kind": _kind(step),
        "macs": step.macs,
        "cycles": step.cycles,
        "weight_bits": weight_digits * graph.weight_bits,
        "act_bits": step.source.digits * graph.act_bits,
    }


def _kind(step: LayerProgram) -> str:
    if step.kind == "maxpool":
        return "maxpool"
    is_dense = step.layer.output.height * step.layer.output.width == 1
    return "dense" if is_dense else "conv"


def _value_bits(graph: QuantGraph) -> int:
    last = graph.layers[-1]
    assert isinstance(last, MacLayer)
    return last.value_bits


def _silent(step: str) -> None:
    """Report nothing."""
