"""The anatomy of a cartoon face: which strokes it is drawn with, back to front."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from training.data.cartoon_faces.faces import Faces
from training.data.cartoon_faces.shapes import Float, circle, egg, ellipse, line, rounded_box, zigzag
from training.data.cartoon_faces.sheet import Sheet, Stroke

Int64 = npt.NDArray[np.int64]


def _colours(*rgb: tuple[int, int, int]) -> Float:
    return np.array(rgb, np.float32) / np.float32(255.0)


HAIR_COLOURS = _colours((42, 38, 46), (124, 74, 36), (204, 82, 30), (242, 208, 104))
COLLAR_COLOURS = _colours((246, 246, 246), (208, 46, 52), (48, 160, 76), (48, 88, 200))
SKIN_COLOURS = _colours((248, 220, 198), (228, 178, 132), (178, 120, 80), (122, 80, 60))
DARK = _colours((38, 34, 42))
LIPS = _colours((158, 36, 46))
WHITE = _colours((250, 250, 250))


def strokes(faces: Faces, size: int) -> Iterator[Stroke]:
    """The strokes of N faces for a picture of `size` pixels, back to front."""
    sheet = Sheet(faces, size)
    yield from _long_hair_behind(sheet)
    yield from _neck(sheet)
    yield from _shirt(sheet)
    yield from _ears(sheet)
    yield from _head(sheet)
    yield from _eyes(sheet)
    yield from _nose(sheet)
    yield from _mouth(sheet)
    yield from _moustache(sheet)
    yield from _hair(sheet)
    yield from _glasses(sheet)
    yield from _hat(sheet)
    yield from _earrings(sheet)


def background(faces: Faces, size: int) -> Float:
    """(N, 3, size, size): a pale colour, darker towards the bottom."""
    colour = np.stack([faces.variation(f"background_{name}") for name in ("red", "green", "blue")], axis=1)
    colour = np.float32(0.74) + np.float32(0.14) * colour
    shade = np.linspace(1.04, 0.9, size, dtype=np.float32)
    return np.broadcast_to(colour[:, :, None, None] * shade[:, None], (len(faces), 3, size, size))


# --- body


def _neck(sheet: Sheet) -> Iterator[Stroke]:
    window = (20, 34, 44, 64)
    x, y = sheet.on_body(window)
    top = (sheet.pivot_x, sheet.pivot_y)
    distance = line(x, y, top, (sheet.body_x, sheet.pivot_y + 12.0), 5.2)
    yield sheet.of_body(("skin_tone",), window, distance, 0.9 * _skin(sheet))


def _shirt(sheet: Sheet) -> Iterator[Stroke]:
    window = (0, 50, 64, 64)
    x, y = sheet.on_body(window)
    level = 0.52 + 0.16 * sheet.faces.variation("shirt_level")
    warmth = 0.07 * sheet.faces.variation("shirt_warmth")
    colour = np.stack([level + warmth, level, level - warmth], axis=1)
    opening = ellipse(x - sheet.body_x, y - 52.5, 6.0, 5.0)
    distance = np.maximum(ellipse(x - sheet.body_x, y - 69.0, 23.0, 14.5), -opening)
    yield sheet.of_body((), window, distance, colour)

    colour = COLLAR_COLOURS[sheet.faces.index("collar_colour")]
    window = (16, 48, 48, 64)
    x, y = sheet.on_body(window)
    across = np.abs(x - sheet.body_x)
    distance = line(across, y, (8.4, 54.6), (2.6, 59.6), 2.6)
    yield sheet.of_body(("collar_colour",), window, distance, colour)


# --- head


def _skin(sheet: Sheet) -> Float:
    level = 1.0 + 0.05 * sheet.faces.variation("skin_level")
    return SKIN_COLOURS[sheet.faces.index("skin_tone")] * level[:, None]


def _ears(sheet: Sheet) -> Iterator[Stroke]:
    window = (5, 16, 59, 54)
    u, v = sheet.on_head(window)
    distance = ellipse(np.abs(u) - sheet.half_width - 0.6, v - 3.0, 2.9, 3.9)
    yield sheet.of_head(("skin_tone",), window, distance, 0.94 * _skin(sheet))


def _head(sheet: Sheet) -> Iterator[Stroke]:
    window = (8, 6, 56, 60)
    u, v = sheet.on_head(window)
    distance = egg(u, v, sheet.half_width, sheet.half_height, 0.06 + 0.14 * sheet.age)
    yield sheet.of_head(("skin_tone",), window, distance, _skin(sheet))


def _eyes(sheet: Sheet) -> Iterator[Stroke]:
    vary = sheet.vary
    window = (15, 14, 49, 46)
    u, v = sheet.on_head(window)
    across, down = np.abs(u) - sheet.eye_u, v - sheet.eye_v
    width = 3.6 - 0.9 * sheet.age
    height = width * (0.94 - 0.1 * sheet.age + 0.08 * vary("eye_opening"))
    white = ellipse(across, down, width, height)
    yield sheet.of_head((), window, white, WHITE, outline=0.45)
    side = np.where(u < 0.0, -1.0, 1.0).astype(np.float32)
    pupil = circle(across - 0.5 * side * vary("gaze_x"), down - 0.3 - 0.4 * vary("gaze_y"), 0.56 * width)
    level = 0.5 + 0.5 * sheet.faces.variation("eye_colour")[:, None]
    colour = _colours((30, 26, 34)) * level + _colours((58, 70, 92)) * (1.0 - level)
    yield sheet.of_head((), window, np.maximum(pupil, white), colour, outline=1.0)

    window = (13, 8, 51, 42)
    u, v = sheet.on_head(window)
    across, down = np.abs(u) - sheet.eye_u, v - sheet.eye_v
    height = -width - 2.4 - 0.5 * vary("brow_height")
    angle = 0.5 * vary("brow_angle")
    brow = line(across, down, (-2.7, height + angle), (2.9, height - angle), 0.6)
    yield sheet.of_head((), window, brow, DARK, outline=1.0)


def _nose(sheet: Sheet) -> Iterator[Stroke]:
    window = (24, 24, 40, 46)
    u, v = sheet.on_head(window)
    size = 1.3 + 0.6 * sheet.age + 0.2 * sheet.vary("nose_size")
    distance = ellipse(u, v - 5.2, size, 0.75 * size)
    yield sheet.of_head(("skin_tone",), window, distance, 0.76 * _skin(sheet), outline=1.0)


def _mouth(sheet: Sheet) -> Iterator[Stroke]:
    """A smile shows teeth between two bent lips; without one, the lips are a nearly straight line."""
    vary = sheet.vary
    window = (18, 32, 46, 56)
    for value, half, bend, opening in (("no_smile", 4.6, 0.0, 0.9), ("smile", 6.6, 2.6, 3.6)):
        which = sheet.rows(value)
        u, v = sheet.on_head(window, which)
        x = u / (half + 0.5 * vary("mouth_width")[which])
        middle = sheet.mouth_v[which] + bend * 0.3
        bent = v - middle + (bend + 0.5 * vary("mouth_bend")[which]) * x * x  # 0 on the upper lip
        lens = np.maximum(1.0 - x * x, 0.0) * opening
        distance = np.maximum(np.maximum(-bent - 0.7, bent - lens - 0.7) * 0.8, (np.abs(x) - 1.0) * half)
        yield sheet.of_head(("smile",), window, distance, LIPS, which, outline=1.0)
        if value == "smile":
            teeth = np.maximum(np.maximum(-bent, bent - 0.55 * lens), (np.abs(x) - 0.85) * half)
            yield sheet.of_head(("smile",), window, teeth, WHITE, which, outline=1.0)


def _moustache(sheet: Sheet) -> Iterator[Stroke]:
    which = sheet.rows("moustache")
    window = (18, 28, 46, 54)
    u, v = sheet.on_head(window, which)
    width = 4.0 + 0.5 * sheet.vary("moustache_width")[which]
    across = np.abs(u) - 0.78 * width
    distance = ellipse(across, v - sheet.mouth_v[which] + 2.4 - 0.22 * across, width, 1.5)
    level = 1.0 + 0.3 * sheet.faces.variation("moustache_level")[which]
    colour = _colours((34, 26, 26)) * level[:, None]
    yield sheet.of_head(("moustache",), window, distance, colour, which, outline=0.75)


# --- hair

_HAIR = ("hair_colour", "hair_style")


def _hair_colour(sheet: Sheet, which: Int64) -> Float:
    level = 1.0 + 0.07 * sheet.faces.variation("hair_level")[which]
    return HAIR_COLOURS[sheet.faces.index("hair_colour")[which]] * level[:, None]


def _long_hair_behind(sheet: Sheet) -> Iterator[Stroke]:
    which = sheet.rows("long_hair")
    window = (2, 2, 62, 64)
    u, v = sheet.on_head(window, which)
    width = sheet.half_width[which] + 4.0 + 0.7 * sheet.vary("hair_volume")[which]
    distance = rounded_box(u, v - 4.5, width, sheet.half_height[which] + 6.3)
    yield sheet.of_head(_HAIR, window, distance, 0.8 * _hair_colour(sheet, which), which)


def _hair(sheet: Sheet) -> Iterator[Stroke]:
    for value, shape in (
        ("short_hair", _short_hair),
        ("spiky_hair", _spiky_hair),
        ("curly_hair", _curly_hair),
        ("long_hair", _long_hair),
    ):
        which = sheet.rows(value)
        window = (2, 2, 62, 60)
        u, v = sheet.on_head(window, which)
        yield sheet.of_head(_HAIR, window, shape(sheet, which, u, v), _hair_colour(sheet, which), which)


def _short_hair(sheet: Sheet, which: Int64, u: Float, v: Float) -> Float:
    a, b = sheet.half_width[which], sheet.half_height[which]
    volume = 1.7 + 0.5 * sheet.vary("hair_volume")[which]
    outer = ellipse(u, v + 1.6, a + volume, b + 0.8 * volume)
    x = u / a
    x4 = (x * x) * (x * x)
    parting = 1.6 * sheet.vary("hair_side")[which]
    hairline = -0.5 * b + 0.8 * sheet.vary("hairline")[which] + parting * x + 0.62 * b * x4
    short: Float = np.maximum(outer, 0.6 * (v - hairline))
    return short


def _spiky_hair(sheet: Sheet, which: Int64, u: Float, v: Float) -> Float:
    a, b = sheet.half_width[which], sheet.half_height[which]
    volume = 2.0 + 0.5 * sheet.vary("hair_volume")[which]
    x = u / (a + volume)
    top = -(b + 1.0) * np.sqrt(np.maximum(1.0 - x * x, 0.0))
    shift = 1.2 * sheet.vary("hair_side")[which]
    spikes = zigzag(u, 6.4, shift)
    fringe = zigzag(u, 4.6, shift)
    x4 = (u / a) * (u / a) * (u / a) * (u / a)
    hairline = -0.6 * b + 0.8 * sheet.vary("hairline")[which] + 3.2 * fringe + 0.5 * b * x4
    outside = np.maximum(0.45 * (top - 0.6 - (4.2 + volume * 0.3) * spikes - v), np.abs(u) - a - volume)
    spiky: Float = np.maximum(outside, 0.5 * (v - hairline))
    return spiky


_CURLS = ((0.0, 1.0), (0.41, 0.93), (0.77, 0.68), (0.99, 0.33), (1.04, -0.06))
_FRINGE = ((0.0, 0.74), (0.4, 0.68), (0.76, 0.44))
"""Where curls lie, in half-widths and half-heights from the middle of the head, on both sides."""


def _curly_hair(sheet: Sheet, which: Int64, u: Float, v: Float) -> Float:
    a, b = sheet.half_width[which], sheet.half_height[which]
    across = np.abs(u - 0.4 * sheet.vary("hair_side")[which])
    nearest = np.full_like(u, np.inf)
    for x, y in (*_CURLS, *_FRINGE):
        p, q = across - x * (a + 0.8), v + y * (b + 0.6)
        np.minimum(nearest, p * p + q * q, out=nearest)
    curly: Float = np.sqrt(nearest) - (4.3 + 0.4 * sheet.vary("hair_volume")[which])
    return curly


def _long_hair(sheet: Sheet, which: Int64, u: Float, v: Float) -> Float:
    a, b = sheet.half_width[which], sheet.half_height[which]
    volume = 2.6 + 0.6 * sheet.vary("hair_volume")[which]
    outer = rounded_box(u, v - 3.0, a + volume, b + 3.0 + volume)
    parting = np.abs(u - 2.0 * sheet.vary("hair_side")[which])
    strands = np.maximum(np.abs(u) - 0.84 * a, 0.0)
    hairline = -0.86 * b + 0.6 * sheet.vary("hairline")[which] + 0.72 * parting + 8.0 * strands
    long: Float = np.maximum(np.maximum(outer, 0.55 * (v - hairline)), 0.9 * (v - 15.0))
    return long


# --- what is put on


def _glasses(sheet: Sheet) -> Iterator[Stroke]:
    which = sheet.rows("glasses")
    window = (8, 12, 56, 50)
    u, v = sheet.on_head(window, which)
    across, down = np.abs(u), v - sheet.eye_v[which]
    radius = 4.9 + 0.3 * sheet.vary("glasses_size")[which]
    centre = sheet.eye_u[which] + 0.1
    rim = circle(across - centre, down, radius)
    lens = sheet.of_head(("glasses",), window, rim, WHITE, which, outline=1.0)
    yield Stroke(lens.owners, lens.rows, window, np.float32(0.22) * lens.coverage, lens.colour)
    arms = line(across, down, (centre + radius, -0.8), (sheet.half_width[which], -1.6), 0.6)
    bridge = line(across, down, (0.0, -0.6), (centre - radius, -0.2), 0.6)
    frame = np.minimum(np.abs(rim) - 0.75, np.minimum(arms, bridge))
    yield sheet.of_head(("glasses",), window, frame, DARK, which, outline=1.0)


def _hat(sheet: Sheet) -> Iterator[Stroke]:
    """A bowler: wide enough for all hair that it covers."""
    which = sheet.rows("hat")
    window = (1, 0, 63, 42)
    u, v = sheet.on_head(window, which)
    base = -0.5 * sheet.half_height[which]
    width = sheet.half_width[which] + 3.6
    hue = 0.5 + 0.5 * sheet.faces.variation("hat_hue")[which][:, None]
    colour = _colours((98, 58, 138)) * hue + _colours((44, 108, 124)) * (1.0 - hue)
    crown = rounded_box(u, v - base, width - 0.6, 16.0 + 0.8 * sheet.vary("hat_height")[which])
    crown = np.maximum(crown, v - base)
    yield sheet.of_head(("hat",), window, crown, colour, which)
    band = np.maximum(crown, base - 4.4 - v)
    yield sheet.of_head(("hat",), window, band, 0.6 * colour, which, outline=1.0)
    brim = line(u, v, (-width - 1.6, base), (width + 1.6, base), 1.5)
    yield sheet.of_head(("hat",), window, brim, colour, which)


def _earrings(sheet: Sheet) -> Iterator[Stroke]:
    which = sheet.rows("earrings")
    window = (6, 20, 58, 58)
    u, v = sheet.on_head(window, which)
    size = 1.9 + 0.15 * sheet.vary("earring_size")[which]
    distance = ellipse(np.abs(u) - sheet.half_width[which] - 1.2, v - 8.6, size, 1.3 * size)
    hue = 0.5 + 0.5 * sheet.faces.variation("earring_hue")[which][:, None]
    colour = _colours((28, 206, 214)) * hue + _colours((60, 226, 170)) * (1.0 - hue)
    yield sheet.of_head(("earrings",), window, distance, colour, which)
