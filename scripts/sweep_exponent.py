"""Print accuracy (golden) and assumed errors of a network over the exponent.

python scripts/sweep_exponent.py MODEL.onnx DATA.npz --mean 123.675,116.28,103.53 --std 58,57,57
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwquant import golden
from hwquant.importer.load import load
from hwquant.ir import QuantGraph
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import exponent_errors, quantize


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="npz with x (N,H,W,C or N,F), y and layout")
    parser.add_argument("--exponents", type=numbers, default=(0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 1.0))
    parser.add_argument("--weight-bits", type=int, default=4)
    parser.add_argument("--act-bits", type=int, default=4)
    parser.add_argument("--edge-bits", type=int, default=8)
    parser.add_argument("--mean", type=numbers, default=(0.0,))
    parser.add_argument("--std", type=numbers, default=(1.0,))
    parser.add_argument("--limit", type=int, help="take the first images only")
    given = parser.parse_args()
    with np.load(given.data) as data:
        images, labels = data["x"][: given.limit], data["y"][: given.limit]
        if str(data["layout"]) == "NHWC":
            images = images.transpose(0, 3, 1, 2)
    images = images.astype(np.int64).reshape(len(images), images.shape[1], *images.shape[2:])
    graph = load(given.model)
    auto = QuantConfig(
        weight_bits=given.weight_bits,
        act_bits=given.act_bits,
        edge_bits=given.edge_bits,
        mean=given.mean,
        std=given.std,
    )
    chosen = quantize(graph, auto)
    weights, acts = chosen.provenance.exponent, chosen.provenance.act_exponent

    def top1(quantized: QuantGraph) -> float:
        values = golden.simulate(quantized, images)
        return 100 * (values.reshape(len(values), -1).argmax(axis=1) == labels).mean()

    names = list(exponent_errors(graph, auto, weights))
    print("exponent", *(f"{name:>12}" for name in names), "  top-1 %")
    for exponent in sorted({*given.exponents, weights, acts}):
        errors = exponent_errors(graph, auto, exponent)
        right = top1(quantize(graph, replace(auto, exponent=exponent)))
        marks = {"weights": weights, "activations": acts}
        mark = ", ".join(name for name, least in marks.items() if least == exponent)
        columns = (f"{errors[name]:12.4f}" for name in names)
        print(f"{exponent:8.3f}", *columns, f"{right:9.2f}", f"<- least for {mark}" * bool(mark))
    print(f"{weights:.3f} for weights, {acts:.3f} for activations: {top1(chosen):.2f}")


if __name__ == "__main__":
    main()
