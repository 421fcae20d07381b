"""Signed distances, negative inside, from which every stroke's soft edge is computed.

Coordinates are arrays (n, h, w), sizes are floats or (n, 1, 1). Only sums, products, quotients and square
roots are taken per pixel: those are exactly rounded, so a pixel does not depend on what it is computed with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating]
Size = Float | float

_TINY = np.float32(1e-6)


def circle(u: Float, v: Float, radius: Size) -> Float:
    return length(u, v) - radius


def ellipse(u: Float, v: Float, half_width: Size, half_height: Size) -> Float:
    """To first order: exact on the edge, and of the right slope there."""
    x, y = u / half_width, v / half_height
    return (x * x + y * y - 1.0) / (2.0 * length(x / half_width, y / half_height) + _TINY)


def rounded_box(u: Float, v: Float, half_width: Size, half_height: Size) -> Float:
    """A superellipse of power 4, to first order."""
    x, y = u / half_width, v / half_height
    x2, y2 = x * x, y * y
    slope = length(x2 * x / half_width, y2 * y / half_height)
    distance: Float = (x2 * x2 + y2 * y2 - 1.0) / (4.0 * slope + _TINY)
    return distance


def egg(u: Float, v: Float, half_width: Size, half_height: Size, taper: Size) -> Float:
    """An ellipse whose lower half is narrower by `taper`, a share of its width at the lower end."""
    narrowed: Float = 1.0 - taper * np.maximum(v / half_height, 0.0)
    return ellipse(u / narrowed, v, half_width, half_height)


def line(u: Float, v: Float, start: tuple[Size, Size], end: tuple[Size, Size], radius: Size) -> Float:
    """A straight line with round ends, `radius` being half its width."""
    du, dv = end[0] - start[0], end[1] - start[1]
    p, q = u - start[0], v - start[1]
    along = np.clip((p * du + q * dv) / (du * du + dv * dv), 0.0, 1.0)
    return length(p - along * du, q - along * dv) - radius


def zigzag(u: Float, period: float, shift: Size) -> Float:
    """A triangle wave between 0, at u = shift, and 1."""
    phase = (u - shift) / period
    wave: Float = np.abs(2.0 * (phase - np.floor(phase + 0.5)))
    return wave


def length(p: Float, q: Float) -> Float:
    """Of vectors (p, q)."""
    root: Float = np.sqrt(p * p + q * q)
    return root


def covered(distance: Float, pixel: Float) -> Float:
    """How much of each pixel, `pixel` wide, lies inside an edge at that distance: 0 to 1."""
    share: Float = np.clip(0.5 - distance / pixel, 0.0, 1.0)
    return share
