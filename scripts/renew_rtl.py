"""Write the reference designs in rtl/ anew: the network that ships, small plans, every unit kind.

A design starts from its ``model.hwq``, which ``--quantize`` renews from the packaged ONNX: integers
give the same Verilog on every machine, floating point need not.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from hwquant import model_file, packaged
from hwquant.emit import emit
from hwquant.importer.load import load
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan

RTL = Path(__file__).resolve().parents[1] / "rtl"

DESIGNS = {
    "fmnist_power_4x4": (QuantConfig(), Plan(4, 4, 2)),
    "fmnist_levels_4x8": (QuantConfig(accumulate="levels"), Plan(4, 8, 4)),
    "fmnist_table_2x4": (QuantConfig(activation="table", product_bits=6), Plan(2, 4, 1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quantize", action="store_true", help="renew model.hwq as well")
    arguments = parser.parse_args()
    for name, (config, plan) in DESIGNS.items():
        folder = RTL / name
        kept = folder / "model.hwq"
        if arguments.quantize or not kept.is_file():
            mean, std = packaged.normalisation()
            config = replace(config, mean=mean, std=std)
            graph = quantize(load(packaged.model_path()), config)
        else:
            graph = model_file.load(kept)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        emit(graph, plan, folder)
        print(folder)


if __name__ == "__main__":
    main()
