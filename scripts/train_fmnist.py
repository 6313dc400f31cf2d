"""Train the network that ships with hwquant: a small residual CNN on Fashion-MNIST, as ONNX."""

import argparse
import gzip
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Basic residual block, ``[N, C, H, W] -> [N, M, H/stride, W/stride]``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(outputs), nn.ReLU()
        projection = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*projection if stride > 1 else [])

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


def build() -> nn.Sequential:
    """Build the network, ``[N, 1, 28, 28] -> [N, 10]``."""
    stem = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    blocks = [Block(8, 8, 1), Block(8, 16, 2), Block(16, 32, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Read one split: images ``uint8[N, 1, 28, 28]`` and labels ``int64[N]``."""
    paths = [folder / f"{split}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    if missing := [str(path) for path in paths if not path.exists()]:
        sys.exit(f"{missing[0]} is missing: run `apt-get install dataset-fashion-mnist`.")
    images, labels = (bytearray(gzip.decompress(path.read_bytes())) for path in paths)
    x = torch.frombuffer(images, dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)
    return x, torch.frombuffer(labels, dtype=torch.uint8, offset=8).long()


def augment(x: Tensor) -> Tensor:
    """Shift each image by up to 2 pixels each way and mirror half of them."""
    windows = functional.pad(x, (2, 2, 2, 2)).unfold(2, 28, 1).unfold(3, 28, 1)
    row, column = torch.randint(5, (2, len(x)))
    shifted = windows[torch.arange(len(x)), :, row, column]
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, shifted, shifted.flip(3))


def train(net: nn.Module, x: Tensor, y: Tensor, mean: float, std: float, epochs: int) -> None:
    """Train in place with SGD and one learning-rate cycle; the last epoch is the result."""
    batch, steps = 128, len(x) // 128
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, epochs * steps, pct_start=0.2)
    net.train()
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        for index in torch.randperm(len(x))[: steps * batch].view(steps, batch):
            logits = net((augment(x[index]).float() - mean) / std)
            loss = functional.cross_entropy(logits, y[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {total / steps:.4f}, {seconds:.1f} s", file=sys.stderr)
    net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=Path("hwquant/data"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
