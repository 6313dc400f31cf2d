"""Images per second of golden against ONNX Runtime float, interleaved in one run.

python scripts/bench_golden.py ../shared/models/resnet20_cifar10.onnx ../shared/models/cifar10.npz \
    --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375

CPU times are what the machine's other load disturbs least: both sides run on every processor.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hwquant import golden
from hwquant.importer.load import load
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="npz with x (N,H,W,C or N,C,H,W) and layout")
    parser.add_argument("--mean", type=numbers, default=(0.0,))
    parser.add_argument("--std", type=numbers, default=(1.0,))
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--product-bits", type=int, default=7)
    parser.add_argument("--accumulate", choices=("product", "levels"), default="product")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="take the first images only")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def timed(work: Callable[[], Any], images: int) -> tuple[float, float]:
    """Return images per second, and milliseconds of CPU time per image."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return images / (time.perf_counter() - wall), 1000 * (time.process_time() - cpu) / images


def main() -> None:
    given = arguments()
    with np.load(given.data) as data:
        images = data["x"][: given.limit].astype(np.int64)
        if str(data["layout"]) == "NHWC":
            images = images.transpose(0, 3, 1, 2)
    mean, std = (np.array(side).reshape(-1, 1, 1) for side in (given.mean, given.std))
    real = ((images - mean) / std).astype(np.float32)
    config = QuantConfig(
        weight_bits=given.bits,
        act_bits=given.bits,
        mean=given.mean,
        std=given.std,
        accumulate=given.accumulate,
        product_bits=given.product_bits,
    )
    graph = quantize(load(given.model), config)
    session = onnxruntime.InferenceSession(given.model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(None, {name: real[:8]})
    golden.simulate(graph, images[:8])

    rounds = []
    for _ in range(given.rounds):
        float_speed, float_cpu = timed(lambda: session.run(None, {name: real}), len(images))
        golden_speed, golden_cpu = timed(lambda: golden.simulate(graph, images), len(images))
        rounds.append(
            {
                "float_images_per_s": float_speed,
                "golden_images_per_s": golden_speed,
                "ratio": golden_speed / float_speed,
                "float_cpu_ms": float_cpu,
                "golden_cpu_ms": golden_cpu,
                "cpu_ratio": float_cpu / golden_cpu,
            }
        )
    median = {key: round(statistics.median(r[key] for r in rounds), 3) for key in rounds[0]}
    if given.json:
        print(json.dumps({"model": given.model.stem, "n": len(images), **median, "rounds": rounds}))
        return
    print(f"{given.model.stem}, {len(images)} images, medians of {given.rounds} rounds:")
    for key, value in median.items():
        print(f"  {key:20} {value:10.3f}")


if __name__ == "__main__":
    main()
