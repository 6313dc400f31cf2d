"""Print accuracy (golden) and assumed error of a network over the exponent.

python scripts/sweep_exponent.py MODEL.onnx DATA.npz --mean 123.675,116.28,103.53 --std 58,57,57
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwquant import golden
from hwquant.onnx_import import load
from hwquant.quantize import QuantConfig, exponent_errors, quantize


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
    chosen = quantize(graph, auto).provenance.exponent
    print("exponent  weight error  noise/signal  top-1 %")
    for exponent in sorted({*given.exponents, chosen}):
        weight_error, noise = exponent_errors(graph, auto, exponent)
        values = golden.simulate(quantize(graph, replace(auto, exponent=exponent)), images)
        top1 = (values.reshape(len(values), -1).argmax(axis=1) == labels).mean()
        mark = " <- auto" if exponent == chosen else ""
        print(f"{exponent:8.3f}  {weight_error:12.4f}  {noise:12.4f}  {100 * top1:7.2f}{mark}")


if __name__ == "__main__":
    main()
