"""Which layers get a second digit: those that lose too much with one, or most for what it costs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hwquant.power import Grid
from hwquant.quantizer.calibrate import operands
from hwquant.quantizer.digits import Digits, mac_layers, only_scales, same_digits
from hwquant.quantizer.exponent import Site, act_noise, weight_noise
from hwquant.quantizer.lower import FloatCat, FloatLayer, FloatMac, FloatMax

MOST_LOST = 0.03  # noise over signal that codes of one digit may leave in a layer
RESCUE_SHARE = 0.03  # of multiply-accumulates
EVERY = 8  # samples of an input, of which one is looked at


@dataclass(frozen=True)
class Loss:
    """Noise over signal at a layer's accumulators, of weights and of codes that have one digit.

    ``macs`` are the multiply-accumulates of one pass over the layer.
    """

    weights: float
    codes: float
    macs: int


@dataclass(frozen=True)
class _Offer:
    """A second digit for the weights of a layer, or for tensors that share their digits.

    ``gain`` is the noise over signal that it takes away, ``worst`` that in one layer, ``macs`` what
    it costs; ``digits`` are those of the network then.
    """

    gain: float
    worst: float
    macs: int
    digits: Digits


def losses_of_codes(
    sites: Mapping[FloatMac, Site], grid: Grid, shapes: Mapping[str, tuple[int, int, int]]
) -> dict[str, Loss]:
    """Measure what codes on ``grid`` lose in every layer, as if weights lost nothing."""
    few = [replace(site, samples=site.samples[:, ::EVERY]) for site in sites.values()]
    noise = act_noise(few)([grid])[0]
    return {
        mac.name: Loss(0.0, float(noise[at]), _macs(mac, shapes[mac.tensor]))
        for at, mac in enumerate(sites)
    }


def with_weights(
    losses: Mapping[str, Loss], sites: Mapping[FloatMac, Site], grid: Grid
) -> dict[str, Loss]:
    """Add what weights on ``grid`` lose."""
    noise = weight_noise([*sites.values()])([grid])[0]
    return {
        mac.name: replace(losses[mac.name], weights=float(noise[at]))
        for at, mac in enumerate(sites)
    }


def _macs(mac: FloatMac, shape: tuple[int, int, int]) -> int:
    taps = math.prod(mac.kernel) if mac.shared else 1
    return mac.weight.size * taps * math.prod(shape[1:])


def rescue(digits: Digits, layers: Sequence[FloatLayer], losses: Mapping[str, Loss]) -> Digits:
    """Give second digits to codes of which one loses more than ``MOST_LOST``, if they are cheap.

    ``losses`` are those of codes, of all MAC layers.
    """
    return spend(RESCUE_SHARE, digits, layers, losses, MOST_LOST)


def spend(
    share: float,
    digits: Digits,
    layers: Sequence[FloatLayer],
    losses: Mapping[str, Loss],
    least: float = 0.0,
) -> Digits:
    """Give second digits as long as multiply-accumulates grow by ``share`` of all at most.

    One after the other, that which takes away the most noise over signal for each, and more than
    ``least`` in some layer. ``losses`` are those of all MAC layers.
    """
    macs = mac_layers(layers)
    left = share * sum(digits.passes(mac) * losses[mac.name].macs for mac in macs)
    while True:
        offers = [
            offer
            for offer in _offers(digits, layers, losses)
            if offer.worst > least and offer.macs <= left
        ]
        if not offers:
            return digits
        best = max(offers, key=lambda offer: offer.gain / offer.macs)
        left -= best.macs
        digits = best.digits


def _offers(
    digits: Digits, layers: Sequence[FloatLayer], losses: Mapping[str, Loss]
) -> Iterator[_Offer]:
    """List what would take away noise: a second digit costs what the first does, in every reader.

    Only a network whose edges have second digits has them elsewhere.
    """
    macs = mac_layers(layers)
    if max(digits.weights.values()) > 1:
        for mac in macs:
            loss = losses[mac.name]
            if digits.weights[mac.name] == 1 and not only_scales(mac):
                more = replace(digits, weights={**digits.weights, mac.name: 2})
                cost = _more_macs([mac], losses, digits, more)
                yield _Offer(loss.weights, loss.weights, cost, more)
    for group, readers in _open_groups(digits, layers):
        lost = [losses[mac.name].codes for mac in readers]
        more = replace(digits, codes={**digits.codes} | dict.fromkeys(group, "wide"))
        yield _Offer(sum(lost), max(lost), _more_macs(readers, losses, digits, more), more)


def _more_macs(
    readers: Sequence[FloatMac], losses: Mapping[str, Loss], before: Digits, after: Digits
) -> int:
    passes = ((after.passes(mac) - before.passes(mac), losses[mac.name].macs) for mac in readers)
    return sum(count * macs for count, macs in passes)


def _open_groups(
    digits: Digits, layers: Sequence[FloatLayer]
) -> Iterator[tuple[set[str], list[FloatMac]]]:
    """List the tensors that may get a second digit together, and the layers that then read it.

    Tensors that others than MAC layers compute with may not.
    """
    if digits.wide == 1:
        return
    moving = FloatMac | FloatMax | FloatCat
    elsewhere = {
        name for layer in layers if not isinstance(layer, moving) for name in operands(layer)
    }
    for group in same_digits(layers):
        readers = [mac for mac in mac_layers(layers) if mac.source in group]
        is_wide = any(digits.codes[name] == "wide" for name in group)
        if readers and not is_wide and not group & elsewhere:
            yield group, readers
