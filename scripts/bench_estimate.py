"""Compare the estimate of a plan's cells with what yosys makes of it: a row of docs/reports.md."""

import argparse
import json
import tempfile
from pathlib import Path

from hwquant import packaged
from hwquant.config import QuantConfig
from hwquant.emit import emit
from hwquant.estimate import estimate
from hwquant.onnx_import import load
from hwquant.plan import Plan
from hwquant.quantize import quantize
from hwquant.synth import synthesize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=packaged.model_path())
    parser.add_argument("--plan", default="8,8,2", help="rows,cols,lanes")
    parser.add_argument("--device", default="lfe5u-25f")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--activation", choices=("thresholds", "table"), default="thresholds")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    bits = arguments.bits
    config = QuantConfig(weight_bits=bits, act_bits=bits, activation=arguments.activation)
    graph = quantize(load(arguments.model), config)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(*(int(size) for size in arguments.plan.split(",")), arguments.device)
        program = emit(graph, plan, Path(folder))
        measured = synthesize(Path(folder), arguments.device).design
    guessed = estimate(graph, program, arguments.device)
    row = {
        name: (getattr(guessed, name), getattr(measured, name))
        for name in ("luts", "ffs", "brams", "dsps")
    }
    if arguments.json:
        print(json.dumps(row))
        return
    for name, (left, right) in row.items():
        error = f"{left / right - 1:+.1%}" if right else ""
        print(f"{name:6} estimated {left:7,} measured {right:7,} {error}")


if __name__ == "__main__":
    main()
