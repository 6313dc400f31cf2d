"""Accuracy of trained networks at four bits: no more may be lost than is said here."""

import json
from pathlib import Path

import numpy as np
import pytest

from hwquant import golden
from hwquant.importer.load import load
from hwquant.quantizer import float_model
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize


@pytest.mark.parametrize(
    ("name", "count", "agreement", "lost"),
    [
        ("resnet20_cifar10", 300, 0.95, 0.02),
        ("fmnist_silu_se", 500, 0.92, 0.02),
        ("fmnist_densenet", 500, 0.92, 0.03),
        ("cifar10_cnn_gelu", 200, 0.92, 0.03),
    ],
)
def test_trained_network_keeps_its_accuracy(
    shared: Path, name: str, count: int, agreement: float, lost: float
) -> None:
    given = json.loads((shared / "models" / "models.json").read_text())[name]
    floating = load(shared / "models" / given["file"])
    mean, std = tuple(map(float, given["mean"])), tuple(map(float, given["std"]))
    quantized = quantize(floating, QuantConfig(mean=mean, std=std))
    with np.load(shared / "models" / given["data"]) as data:
        images = data["x"][:count].transpose(0, 3, 1, 2).astype(np.int64)
        labels = data["y"][:count]
    real = (images - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    by_float = float_model.evaluate(floating, real).reshape(count, -1).argmax(axis=1)
    by_golden = golden.simulate(quantized, images).reshape(count, -1).argmax(axis=1)
    assert (by_golden == by_float).mean() >= agreement
    assert (by_golden == labels).mean() >= (by_float == labels).mean() - lost
