"""Compare the estimate of a plan's cells with what yosys makes of it: rows of docs/reports.md.

python scripts/bench_estimate.py ../shared/models/mlperf_ic_resnet8.onnx --device xc7a100t
python scripts/bench_estimate.py --record tests/measured_cells.json   # half an hour
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from hwquant import packaged
from hwquant.emit import emit
from hwquant.estimate import estimate
from hwquant.fpga.synth import synthesize
from hwquant.importer.load import load
from hwquant.ir import QuantGraph
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan

Sizes = tuple[int, int, int]  # rows, columns, lanes
Cells = dict[str, tuple[int, int]]  # by estimate, and as yosys counts them
CELLS = ("luts", "ffs", "brams", "dsps")
PLANS = ((4, 4, 1), (4, 8, 2), (8, 8, 2), (8, 16, 4), (16, 8, 4), (16, 16, 4))
DEVICES = ("ice40hx8k", "xc7a100t", "lfe5u-85f", "gw2a-18")


def measure(graph: QuantGraph, sizes: Sizes, device: str) -> Cells:
    plan = Plan(*sizes, device)
    with tempfile.TemporaryDirectory() as folder:
        program = emit(graph, plan, Path(folder))
        measured = synthesize(Path(folder), device).design
    guessed = estimate(graph, program, device)
    return {name: (getattr(guessed, name), getattr(measured, name)) for name in CELLS}


def row(sizes: Sizes, device: str, cells: Cells) -> str:
    rows, cols, lanes = sizes
    shown = [f"{left:,} / {right:,}" for left, right in cells.values()]
    errors = [f"{left / right - 1:+.1%}" for left, right in list(cells.values())[:2]]
    fields = (f"{rows} x {cols}, {lanes}", device, shown[0], errors[0], shown[1], errors[1])
    return f"| {' | '.join((*fields, *shown[2:]))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=packaged.model_path())
    parser.add_argument("--plan", default="8,8,2", help="rows,cols,lanes")
    parser.add_argument("--device", default="lfe5u-25f")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--activation", choices=("thresholds", "table"), default="thresholds")
    parser.add_argument("--record", type=Path, help="measure all plans and devices, and write this")
    given = parser.parse_args()
    config = QuantConfig(weight_bits=given.bits, act_bits=given.bits, activation=given.activation)
    graph = quantize(load(given.model), config)
    if given.record is None:
        rows, cols, lanes = (int(size) for size in given.plan.split(","))
        sizes = (rows, cols, lanes)
        print(row(sizes, given.device, measure(graph, sizes, given.device)))
        return
    measured = list[dict[str, Any]]()
    for sizes, device in itertools.product(PLANS, DEVICES):
        cells = measure(graph, sizes, device)
        print(row(sizes, device, cells), flush=True)
        counts = {name: right for name, (_, right) in cells.items()}
        measured.append({"plan": sizes, "device": device} | counts)
    given.record.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
