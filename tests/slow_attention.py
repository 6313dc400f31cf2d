"""The oracle of golden's attention: ``docs/semantics.md`` word for word, in Python's integers."""

from math import isqrt

import numpy as np

from hwquant.ir import EmbeddingLayer, IntArray, LayerNormLayer, MatMulLayer, SoftmaxLayer

Layer = EmbeddingLayer | LayerNormLayer | MatMulLayer | SoftmaxLayer


def compute(layer: Layer, tensors: dict[str, IntArray]) -> IntArray:
    """Compute the values v of a layer, before its activation: ``int[N, C, H, W]``."""
    source = tensors[layer.source]
    match layer:
        case EmbeddingLayer():
            images = [_embedding(layer, image) for image in source]
        case LayerNormLayer():
            images = [_layer_norm(layer, image) for image in source]
        case MatMulLayer():
            pairs = zip(source, tensors[layer.operand], strict=True)
            images = [_mat_mul(layer, image, operand) for image, operand in pairs]
        case SoftmaxLayer():
            images = [_softmax(layer, image) for image in source]
    return np.array(images, np.int64).reshape(len(source), *layer.output.shape)


def _scaled(x: int, multiplier: int, bias: int, shift: int) -> int:
    half = 2 ** (shift - 1) if shift else 0
    return (x * multiplier + bias + half) >> shift


def _tokens(image: IntArray) -> list[list[int]]:
    """One list of channels a token."""
    return [[int(x) for x in token] for token in image.reshape(len(image), -1).T]


def _embedding(layer: EmbeddingLayer, image: IntArray) -> IntArray:
    tokens, bias = _tokens(image), layer.bias.reshape(len(image), -1)
    first = bias.shape[1] - len(tokens)
    made = np.zeros_like(bias)
    for c, t in np.ndindex(bias.shape):
        x = tokens[t - first][c] if t >= first else 0
        made[c, t] = _scaled(x, int(layer.multiplier[c]), int(bias[c, t]), layer.shift)
    return made


def _layer_norm(layer: LayerNormLayer, image: IntArray) -> IntArray:
    made = list[list[int]]()
    for token in _tokens(image):
        deviations = [len(token) * x - sum(token) for x in token]
        root = isqrt(sum(d * d for d in deviations) + layer.epsilon)
        shares = [(2**17 * d + root) // (2 * root) for d in deviations]
        assert all(abs(share) <= 2**16 for share in shares)
        made.append(
            [
                _scaled(share, int(layer.multiplier[c]), int(layer.bias[c]), layer.shift)
                for c, share in enumerate(shares)
            ]
        )
    return np.array(made).T


def _mat_mul(layer: MatMulLayer, image: IntArray, operand: IntArray) -> IntArray:
    left = [[int(layer.source_levels[x]) for x in token] for token in _tokens(image)]
    right = [[int(layer.operand_levels[x]) for x in token] for token in _tokens(operand)]
    channels = len(operand) // layer.groups
    made = list[list[int]]()
    for token in left:
        sums = list[int]()
        for head in range(layer.groups):
            if layer.sums_channels:
                span = range(head * channels, (head + 1) * channels)
                sums += [sum(token[c] * other[c] for c in span) for other in right]
            else:
                first = head * len(right)
                sums += [
                    sum(token[first + u] * right[u][head * channels + d] for u in range(len(right)))
                    for d in range(channels)
                ]
        assert all(abs(acc) < 2 ** (layer.acc_bits - 1) for acc in sums)
        made.append(
            [
                _scaled(acc, int(layer.multiplier[m]), int(layer.bias[m]), layer.shift)
                for m, acc in enumerate(sums)
            ]
        )
    return np.array(made).T


def _softmax(layer: SoftmaxLayer, image: IntArray) -> IntArray:
    made = list[list[int]]()
    count = len(layer.exponentials)
    for token in _tokens(image):
        size = len(token) // layer.groups
        shares = list[int]()
        for head in range(layer.groups):
            logits = token[head * size : (head + 1) * size]
            powers = list[int]()
            for logit in logits:
                u = max(logits) - logit
                half = 2 ** (u // count - 1) if u >= count else 0
                powers.append((int(layer.exponentials[u % count]) + half) >> u // count)
            total = sum(powers)
            shares += [(2 * layer.one * power + total) // (2 * total) for power in powers]
        made.append(shares)
    return np.array(made).T
