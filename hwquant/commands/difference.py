"""Say in a sentence how the hardware differs from golden, and where to look."""

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hwquant.cosim import VerifyResult
from hwquant.emit import WEIGHTS, emit
from hwquant.ir import QuantGraph
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.program import Schedule

_WEIGHTS = "weights"


def explain(
    directory: Path, graph: QuantGraph, design: Mapping[str, Any], result: VerifyResult
) -> str | None:
    """Return ``None`` where values and cycles are what golden and ``design.json`` say."""
    if result.mismatches:
        hint = altered(directory, graph, Plan(**_plan(design))) or _late_layer(design, result)
        return f"{_first(design, result)}; {hint}" if hint else _first(design, result)
    return _cycles(design, result)


def _plan(design: Mapping[str, Any]) -> dict[str, Any]:
    plan = design["plan"]
    return {field.name: plan[field.name] for field in fields(Plan) if field.name in plan}


def _first(design: Mapping[str, Any], result: VerifyResult) -> str:
    first, channels = result.first, design["output"]["channels"]
    assert first is not None
    values = result.frames * design["output"]["values"]
    return (
        f"{result.mismatches} of {values} values differ from golden, first in frame {first.frame} "
        f"output {first.position} (pixel {first.position // channels}, channel "
        f"{first.position % channels}): got {first.got}, expected {first.expected}"
    )


def _cycles(design: Mapping[str, Any], result: VerifyResult) -> str | None:
    if result.cycles is None or (late := _late_layer(design, result)) is None:
        return None
    return f"all values equal golden's, but {late}"


def _late_layer(design: Mapping[str, Any], result: VerifyResult) -> str | None:
    """Name the first layer that takes other cycles than ``design.json`` says."""
    if result.cycles is None:
        return None
    planned = [(layer["name"], layer["cycles"]) for layer in design["layers"]]
    simulated = result.layer_cycles or ()
    if not simulated:
        return "status.layer does not count the layers from 0 up"
    for (name, cycles), seen in zip(planned, simulated, strict=False):
        if seen != cycles:
            return f"layer {name} took {seen} cycles, design.json says {cycles}"
    if result.cycles != design["cycles"]:
        return f"a frame took {result.cycles} cycles, design.json says {design['cycles']}"
    return None


def altered(directory: Path, graph: QuantGraph, plan: Plan) -> str | None:
    """Name the first file that is not what ``gen`` writes for ``model.hwq``: Verilog or its data.

    Of weights the layer too. ``None``: all are, and the gateware itself is at fault.
    """
    with tempfile.TemporaryDirectory(prefix="hwquant-") as name:
        fresh = Path(name)
        program = emit(graph, plan, fresh)
        streamed = [fresh / WEIGHTS] if plan.is_streamed else []
        for file in sorted((*streamed, *(fresh / "rtl").rglob("*"))):
            if file.is_dir():
                continue
            path = file.relative_to(fresh)
            there = directory / path
            if not there.is_file():
                return f"{path} is missing"
            if there.read_bytes() != file.read_bytes():
                return _altered_line(path, there.read_text(), file.read_text(), program)
    return None


def _altered_line(path: Path, there: str, fresh: str, program: Schedule) -> str:
    lines = zip(there.splitlines(), fresh.splitlines(), strict=False)
    line = next((at for at, (a, b) in enumerate(lines) if a != b), len(fresh.splitlines()))
    where = f"{path} line {line + 1} is not what hwquant gen writes for model.hwq"
    if f".{_WEIGHTS}." not in f".{path.name}":
        return where
    beats = len(fresh.splitlines()) // program.weight_words if program.plan.is_streamed else 1
    word = line // beats
    layer = next(
        (p.name for p in program.layers if 0 <= word - p.weight_base < p.weight_words), None
    )
    return where if layer is None else f"{where}: weights of layer {layer}"
