"""Colours for a quantity: dark violet for little, over red, to light yellow for much.

Equal differences of the quantity look equally different: the colours lie at equal distances along a path in
OKLab (Ottosson 2020, "A perceptual color space for image processing"), in which lightness rises evenly.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Uint8 = npt.NDArray[np.uint8]

NUM_COLOURS = 256
LIGHTNESS = (0.2, 0.94)
HUE = (285.0, 465.0)
"""Degrees, and past red at 389 on to yellow."""
CHROMA = 0.2
"""In the middle of the path, and less towards its ends, and where a screen cannot show so much."""

_TO_CONES: Float64 = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_RGB: Float64 = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def heat_colours(levels: npt.ArrayLike) -> Uint8:
    """Levels (...), 0 to 1 (clipped), as sRGB colours (..., 3)."""
    indices = np.round(np.clip(levels, 0.0, 1.0) * (NUM_COLOURS - 1)).astype(np.int64)
    return np.asarray(_colours()[indices])


def to_oklab(colours: Uint8) -> Float64:
    """sRGB colours (..., 3) as (L, a, b)."""
    encoded = colours / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ np.linalg.inv(_TO_RGB).T) @ np.linalg.inv(_TO_CONES).T)


@lru_cache(maxsize=1)
def _colours() -> Uint8:
    """(NUM_COLOURS, 3)."""
    path = _path(np.linspace(0.0, 1.0, 4096))
    gone = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    places = np.linspace(0.0, gone[-1], NUM_COLOURS)
    even = np.stack([np.interp(places, gone, path[:, k]) for k in range(3)], axis=1)
    linear = _linear_rgb(even).clip(0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)
    return np.asarray(np.round(encoded * 255.0), dtype=np.uint8)


def _path(t: Float64) -> Float64:
    """(n, 3) in OKLab at 0 <= t <= 1 (n,), within what a screen can show."""
    lightness = np.interp(t, (0.0, 1.0), LIGHTNESS)
    hue = np.deg2rad(np.interp(t, (0.0, 1.0), HUE))
    chroma = CHROMA * np.sqrt(np.sin(np.pi * (0.08 + 0.84 * t)))
    low, high = np.zeros_like(t), np.ones_like(t)  # shares of that chroma, by bisection
    for _ in range(20):
        middle = (low + high) / 2.0
        shown = _linear_rgb(_oklab(lightness, middle * chroma, hue))
        fits = ((shown >= 0.0) & (shown <= 1.0)).all(axis=1)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return _oklab(lightness, low * chroma, hue)


def _oklab(lightness: Float64, chroma: Float64, hue: Float64) -> Float64:
    return np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)


def _linear_rgb(oklab: Float64) -> Float64:
    return np.asarray((oklab @ _TO_CONES.T) ** 3 @ _TO_RGB.T)
