"""``report.json``: everything that is known about a build directory, section by section.

``docs/reports.md`` says what each number means. A section is ``None`` until its verb has run. The
sections' keys are in ``hwquant/report_sections.py``.
"""

import contextlib
import importlib.metadata
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hwquant import __version__
from hwquant.accuracy import Accuracy
from hwquant.effort import LayerEffort, Shares
from hwquant.emit import SCHEMA
from hwquant.errors import BadInput
from hwquant.estimate import Estimate
from hwquant.fpga.synth import PnrResult, SynthResult
from hwquant.ir import Provenance
from hwquant.report_sections import (
    AccuracySection,
    CostSection,
    EffortSection,
    LayerSection,
    PlanSection,
    PnrSection,
    Report,
    SynthSection,
)
from hwquant.report_sections import VerifySection as VerifySection

_FILE = "report.json"
_DESIGN = "design.json"


# ---------------------------------------------------------------- making sections


def of_network(provenance: Provenance) -> Report:
    """Return the report of a network for which no hardware exists."""
    return {
        "model": provenance.model,
        "model_sha256": provenance.model_sha256,
        "hwquant": __version__,
        "tools": {},
        "quantization": {
            "method": provenance.method,
            "weight_bits": provenance.weight_bits,
            "act_bits": provenance.act_bits,
            "edge_bits": provenance.edge_bits,
            "exponent": provenance.exponent,
            "act_exponent": provenance.act_exponent,
            "accumulate": provenance.accumulate,
            "product_bits": provenance.product_bits,
            "activation": provenance.activation,
            "mean": list(provenance.mean),
            "std": list(provenance.std),
            "seconds": provenance.seconds,
            "rounding": provenance.rounding,
            "ranges": provenance.ranges,
            "equalize": provenance.equalize,
            "extra_macs": provenance.extra_macs,
            "search": provenance.search,
            "levels": provenance.levels,
            "norm": provenance.norm if math.isfinite(provenance.norm) else "inf",
        },
        "weights": [
            {
                "layer": found.layer,
                "count": found.count,
                "std": found.deviation,
                "skewness": found.skewness,
                "kurtosis": found.kurtosis,
            }
            for found in provenance.weights
        ],
        "plan": None,
        "weight_stream": None,
        "macs": None,
        "cycles": None,
        "utilisation": None,
        "layers": None,
        "effort": None,
        "estimate": None,
        "synth": None,
        "pnr": None,
        "accuracy": None,
        "verify": None,
    }


def of_design(
    provenance: Provenance,
    design: Mapping[str, Any],
    effort: Sequence[LayerEffort],
    estimate: Estimate,
    tools: dict[str, str],
) -> Report:
    """Return the report of a build directory in which nothing but ``gen`` has run.

    ``effort`` is that of the steps of ``design`` in their order.
    """
    bits = design["input"]["bits"]
    layers = [_layer(*step, bits) for step in zip(design["layers"], effort, strict=True)]
    macs = sum(layer["macs"] for layer in layers)
    cycles = int(design["cycles"])
    plan = cast(PlanSection, design["plan"])
    made = of_network(provenance)
    made["tools"] = tools
    made["plan"] = plan
    made["weight_stream"] = design["weight_stream"]
    made["macs"], made["cycles"] = macs, cycles
    made["utilisation"] = macs / (cycles * plan["macs_per_cycle"])
    made["layers"] = layers
    made["effort"] = _effort([step.ace for step in effort], [step.cycles for step in effort])
    made["estimate"] = {
        "device": estimate.device,
        "luts": estimate.luts,
        "ffs": estimate.ffs,
        "brams": estimate.brams,
        "dsps": estimate.dsps,
        "sprams": estimate.sprams,
        "fits": estimate.fits,
        "shortages": list(estimate.shortages),
    }
    return made


def _layer(entry: Mapping[str, Any], effort: LayerEffort, input_bits: int) -> LayerSection:
    """Return a step of ``design.json``; loading has no weights, and pixels for operands."""
    return {
        "name": entry["name"],
        "kind": entry["kind"],
        "macs": entry["macs"],
        "cycles": entry["cycles"],
        "weight_bits": entry.get("weight_bits", 0),
        "act_bits": entry.get("act_bits", input_bits),
        "effort": _effort([effort.ace], [effort.cycles]),
    }


def _effort(ace: Sequence[Shares], cycles: Sequence[Shares]) -> EffortSection:
    return {"ace": _cost(ace), "cycles": _cost(cycles)}


def _cost(parts: Sequence[Shares]) -> CostSection:
    """Add costs up, component by component."""
    return {
        "macs": sum(part.macs for part in parts),
        "requantize": sum(part.requantize for part in parts),
        "activation": sum(part.activation for part in parts),
        "pool": sum(part.pool for part in parts),
        "other": sum(part.other for part in parts),
        "total": sum(part.total for part in parts),
    }


def accuracy_section(measured: Accuracy) -> AccuracySection:
    """Return what ``eval`` measured as a section."""
    return {
        "data": measured.data,
        "n": measured.n,
        "float_top1": measured.float_top1,
        "top1": measured.top1,
        "agreement": measured.agreement,
    }


def synth_section(result: SynthResult) -> SynthSection:
    """Return what ``synth`` counted as a section."""
    array, per_mac = result.mac_array, result.luts_per_mac
    return {
        "device": result.device,
        "tool": result.tool,
        "luts": result.design.luts,
        "carries": result.design.carries,
        "ffs": result.design.ffs,
        "brams": result.design.brams,
        "dsps": result.design.dsps,
        "sprams": result.design.sprams,
        "mac_array": None
        if array is None or per_mac is None
        else {
            "luts": array.luts,
            "carries": array.carries,
            "ffs": array.ffs,
            "luts_per_mac": per_mac,
        },
    }


def pnr_section(result: PnrResult) -> PnrSection:
    """Return what place and route found as a section."""
    return {
        "device": result.device,
        "tool": result.tool,
        "fmax_mhz": result.fmax_mhz,
        "fmax_mhz_seeds": list(result.fmax_mhz_seeds),
        "logic_cells": result.logic_cells,
    }


def installed(*packages: str) -> dict[str, str]:
    """Return the versions of those Python packages that are installed."""
    versions: dict[str, str] = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


# ---------------------------------------------------------------- the files


def is_build_directory(directory: Path) -> bool:
    """Tell whether ``hwquant gen`` of any version wrote ``directory``."""
    try:
        return "hwquant" in json.loads((directory / _DESIGN).read_text())
    except (OSError, ValueError, TypeError):
        return False


def read_design(directory: Path) -> dict[str, Any]:
    """Read ``design.json`` of a build directory.

    Raises
    ------
    BadInput
        If it is absent, no JSON, or of another schema version.
    """
    if not (directory / _DESIGN).is_file():
        raise BadInput(f"{directory}: no design.json, so not a build directory of hwquant gen")
    design = _read_json(directory / _DESIGN)
    if design.get("schema") != SCHEMA:
        raise BadInput(
            f"{directory}: build directory of schema {design.get('schema')}; this version "
            f"({__version__}) reads schema {SCHEMA}: run hwquant gen again"
        )
    return design


def read(directory: Path) -> Report:
    """Read ``report.json`` of a build directory.

    Raises
    ------
    BadInput
        If it is absent, no JSON, lacks a section, or the directory is of another schema version.
    """
    read_design(directory)
    if not (directory / _FILE).is_file():
        raise BadInput(f"{directory}: no report.json: run hwquant gen again")
    content = _read_json(directory / _FILE)
    absent = sorted(Report.__required_keys__ - set(content))
    if absent:
        raise BadInput(
            f"{directory / _FILE}: has no {', '.join(absent)}, being another version's: "
            "run hwquant gen again"
        )
    return cast(Report, content)


def write(directory: Path, report: Report) -> None:
    """Write ``report.json``, whole or not at all."""
    text = json.dumps(report, indent=2) + "\n"
    handle, draft = tempfile.mkstemp(prefix=".report-", dir=directory)
    try:
        with os.fdopen(handle, "w") as sink:
            sink.write(text)
        Path(draft).chmod(0o644)
        Path(draft).replace(directory / _FILE)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def update(directory: Path, sections: Mapping[str, Any], tools: Mapping[str, str]) -> Report:
    """Replace sections of ``report.json`` as it stands now, and return the whole."""
    kept = read(directory)
    made = cast(Report, {**kept, **sections, "tools": {**kept["tools"], **tools}})
    write(directory, made)
    return made


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: object = json.loads(file.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise BadInput(f"{file}: not the JSON that hwquant wrote: run hwquant gen again")
    return cast(dict[str, Any], content)
