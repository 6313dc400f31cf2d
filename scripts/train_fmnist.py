"""Train the network that ships with hwquant: a small residual CNN on Fashion-MNIST, as ONNX."""

import argparse
import gzip
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs)))


class Block(nn.Module):
    """Basic residual block, ``float[N, C, H, W] -> float[N, M, H/stride, W/stride]``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.relu1 = conv_bn(inputs, outputs, 3, stride), nn.ReLU()
        self.second, self.relu2 = conv_bn(outputs, outputs, 3), nn.ReLU()
        self.shortcut = conv_bn(inputs, outputs, 1, stride) if stride > 1 else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.second(self.relu1(self.first(x))) + self.shortcut(x))


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Read one split: images ``uint8[N, 1, 28, 28]`` and labels ``int64[N]``."""
    files = [folder / f"{split}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    if missing := [str(file) for file in files if not file.exists()]:
        raise SystemExit(f"{missing[0]} is missing: run `apt-get install dataset-fashion-mnist`.")
    images, labels = (bytearray(gzip.decompress(file.read_bytes())) for file in files)
    x = torch.frombuffer(images, dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)
    return x, torch.frombuffer(labels, dtype=torch.uint8, offset=8).long()


def train(net: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """Train in place, one learning-rate cycle, on images shifted by up to 2 pixels and mirrored."""
    batches = torch.cat([torch.randperm(len(x)) for _ in range(epochs)]).split(128)
    sgd = torch.optim.SGD(net.parameters(), 0.2, 0.9, weight_decay=5e-4, nesterov=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.2, len(batches), pct_start=0.2)
    windows = nn.functional.pad(x, [2] * 4, value=x.min().item()).unfold(2, 28, 1).unfold(3, 28, 1)
    for index in batches:
        image = windows[index, :, *torch.randint(5, (2, len(index)))]
        logits = net(torch.where(torch.rand(len(index), 1, 1, 1) < 0.5, image, image.flip(3)))
        sgd.zero_grad()
        nn.functional.cross_entropy(logits, y[index], label_smoothing=0.05).backward()
        sgd.step()
        cycle.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=Path("hwquant/data"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(2)  # float sums depend on it: another count gives another network
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    (x_train, y_train), (x, y) = load(args.dataset, "train"), load(args.dataset, "t10k")
    mean, std = (round(f(x_train.double()).item(), 2) for f in (torch.mean, torch.std))
    blocks = OrderedDict(block1=Block(8, 8, 1), block2=Block(8, 16, 2), block3=Block(16, 32, 2))
    head = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=nn.Linear(32, 10))
    net = nn.Sequential(OrderedDict(stem=conv_bn(1, 8, 3), relu=nn.ReLU(), **blocks, **head))
    train(net, (x_train.float() - mean) / std, y_train, args.epochs)
    images = (x.float() - mean) / std
    hits = (net.eval().requires_grad_(False)(images).argmax(1) == y).numpy()
    print(f"mean {mean} std {std} top-1 {hits.mean():.2%}, first 500 {hits[:500].mean():.2%}")
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output) as folder:
        path = Path(folder, "fmnist_resnet.onnx")
        io = {"input_names": ["image"], "output_names": ["logits"], "opset_version": 17}
        mode = {"do_constant_folding": False, "dynamo": False, "dynamic_axes": {"image": {0: "N"}}}
        # Otherwise BatchNormalization is fused and equal biases become Identity nodes.
        keep = {"training": torch.onnx.TrainingMode.PRESERVE, "keep_initializers_as_inputs": True}
        torch.onnx.export(net, (images[:1],), path, **io, **mode, **keep)
        model = onnx.load(path)
        del model.graph.input[1:]  # the initializers
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        (logits,) = onnxruntime.InferenceSession(path).run(None, {"image": images.numpy()})
        np.testing.assert_array_equal(logits.argmax(1) == y.numpy(), hits)
        arrays = {"x": x[:500].permute(0, 2, 3, 1).numpy(), "y": y[:500].numpy(), "layout": "NHWC"}
        np.savez_compressed(Path(folder, "fmnist_test.npz"), **arrays, mean=mean, std=std)
        for file in Path(folder).iterdir():
            file.replace(args.output / file.name)


if __name__ == "__main__":
    main()
