"""Images that nobody took: what the quantizer looks at in place of training data.

Dead leaves: shapes of one colour each that cover one another, their sizes drawn from a power law.
They have edges, flat regions and the statistics of scale that natural images have, which noise has
not: a network's layers answer to them, and their answers are correlated as those to photographs.
"""

import math

import numpy as np

from hwquant.ir import FloatArray

LEAVES = 60  # an image; more hide one another
SMALLEST, LARGEST = 0.03, 0.6  # radius over the image's longer side
SIZE_POWER = 1.5  # radii have the density r**-(SIZE_POWER + 1)
COLOUR_STD = 0.18  # of a leaf's channels about its brightness
MAX_COLOURS = 4  # channels of an input that is an image; more are features, which are independent
SHADE = 0.3  # largest change of a leaf's brightness over the length of the image
GRAIN_STD = 0.03  # of the noise of every pixel
SUPERSAMPLED = 64 * 64  # pixels of an image that is drawn at twice its size, to have soft edges
PIXELS = 1 << 15  # of all images together
FEWEST, MOST = 8, 256
SEED = 20_230_501


def images(channels: int, height: int, width: int) -> FloatArray:
    """Draw images; ``float[N, C, H, W]`` in 0..1, the same at every call.

    N falls with the size of an image, so that the work does not grow with it.

    Source
    ------
    Lee, Mumford, Huang 2001 (dead leaves and the statistics of natural images); Baradad et al. 2021
    (networks learn to see from them).
    """
    count = min(max(PIXELS // (height * width), FEWEST), MOST)
    rng = np.random.default_rng(SEED)
    return np.stack([_image(rng, channels, height, width) for _ in range(count)])


def _image(rng: np.random.Generator, channels: int, height: int, width: int) -> FloatArray:
    zoom_y, zoom_x = (
        (2 if size > 1 and height * width <= SUPERSAMPLED else 1) for size in (height, width)
    )
    rows, columns = height * zoom_y, width * zoom_x
    longest = max(rows, columns)
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    image: FloatArray = np.empty((channels, rows, columns))
    image[:] = _colour(rng, channels)[:, None, None]
    low, high = ((longest * share) ** -SIZE_POWER for share in (LARGEST, SMALLEST))
    radii = np.sort(rng.uniform(low, high, LEAVES) ** (-1 / SIZE_POWER))[::-1]
    for radius in radii if rows * columns > 1 else ():
        centre_y, centre_x = rng.uniform(0, rows), rng.uniform(0, columns)
        angle, aspect = rng.uniform(0, math.pi), rng.uniform(0.3, 1)
        reach = radius * math.hypot(1, aspect)
        here = (
            slice(max(0, math.floor(centre_y - reach)), math.ceil(centre_y + reach) + 1),
            slice(max(0, math.floor(centre_x - reach)), math.ceil(centre_x + reach) + 1),
        )
        down, right = y[here] - centre_y, x[here] - centre_x
        along = (down * math.cos(angle) + right * math.sin(angle)) / radius
        across = (right * math.cos(angle) - down * math.sin(angle)) / radius
        across /= aspect
        is_round = rng.random() < 0.5
        covered = along**2 + across**2 < 1 if is_round else np.maximum(abs(along), abs(across)) < 1
        slope = rng.uniform(-SHADE, SHADE) * radius / longest
        image[:, *here][:, covered] = _colour(rng, channels)[:, None] * (1 + slope * along[covered])
    small: FloatArray = image.reshape(channels, height, zoom_y, width, zoom_x).mean(axis=(2, 4))
    return np.clip(small + rng.normal(0, GRAIN_STD, small.shape), 0, 1)


def _colour(rng: np.random.Generator, channels: int) -> FloatArray:
    if channels > MAX_COLOURS or channels == 1:
        return rng.uniform(0, 1, channels)
    return np.clip(rng.uniform(0, 1) + rng.normal(0, COLOUR_STD, channels), 0, 1)
