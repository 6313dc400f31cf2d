"""What power activation units cost a network, beside exponent 1 on the same plan: a Markdown table.

python scripts/bench_overhead.py ../shared/models/mlperf_ic_resnet8.onnx --synth    # ten minutes
"""

import argparse
import tempfile
from pathlib import Path
from typing import get_args

from hwquant import activation, effort
from hwquant.emit import emit
from hwquant.fpga.synth import synthesize
from hwquant.importer.load import load
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.schedule import schedule

HEAD = ("network", "units", "exponent", "cycles", "of units", "at most of a layer", "ACE of units")
CELLS = ("LUT", "of the array", "FF", "BRAM", "DSP")


def cells(directory: Path, device: str) -> list[str]:
    found = synthesize(directory, device)
    array, design = found.mac_array, found.design
    counts = (design.luts, array.luts if array else 0, design.ffs, design.brams, design.dsps)
    return [f"{count:,}" for count in counts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--plan", default="8,8,2", help="rows,cols,lanes")
    parser.add_argument("--kinds", nargs="+", default=get_args(activation.Kind)[:-1])
    parser.add_argument("--exponents", nargs="+", default=["auto", "1"])
    parser.add_argument("--std", type=float, default=1.0)
    parser.add_argument("--synth", action="store_true")
    parser.add_argument("--device", default="lfe5u-45f")
    options = parser.parse_args()
    columns = [*HEAD, *CELLS * options.synth]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for model in options.models:
        given = load(model)
        for kind in options.kinds:
            for exponent in options.exponents:
                chosen = None if exponent == "auto" else float(exponent)
                config = QuantConfig(exponent=chosen, activation=kind, std=(options.std,))
                graph, plan = quantize(given, config), Plan(*map(int, options.plan.split(",")))
                program = schedule(graph, plan)
                steps = effort.measure(graph, program)
                cycles = sum(step.cycles.activation for step in steps)
                most = max(step.cycles.activation / max(step.cycles.total, 1) for step in steps)
                ace = sum(s.ace.activation for s in steps) / sum(s.ace.total for s in steps)
                row = [model.stem, kind, exponent, f"{program.cycles:,}"]
                row += [f"{cycles / program.cycles:.2%}", f"{most:.2%}", f"{ace:.1%}"]
                if options.synth:
                    with tempfile.TemporaryDirectory() as folder:
                        emit(graph, plan, Path(folder))
                        row += cells(Path(folder), options.device)
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
