"""All effects of a diagnosis in one picture: a square for each pair, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from service.routes.schemas import EffectsModel, InterventionModel

CELL_PX = 15
LETTER_PX = 6
LONGEST_LABEL = 20

Corner = tuple[int, int]


def strongest_effect(effects: EffectsModel) -> float:
    """The largest |beyond| of those that are tested, 0 without any."""
    pairs = (
        (abs(beyond), p)
        for row, tested in zip(effects.beyond, effects.p, strict=True)
        for beyond, p in zip(row, tested, strict=True)
    )
    return max((beyond for beyond, p in pairs if p is not None), default=0.0)


def effect_matrix(
    title: str,
    interventions: Sequence[InterventionModel],
    effects: EffectsModel,
    columns: Sequence[str],
    established: float,
) -> str:
    """Blue up, red down, as strong as what goes beyond the request, framed where p is `established` or less.

    columns: what the effects are on, by name.
    """
    rows = [item.attribute or "" if item.prototype is None else str(item.prototype) for item in interventions]
    strongest = strongest_effect(effects) or 1.0
    top, left = (
        10 + LETTER_PX * min(LONGEST_LABEL, max(len(name) for name in names)) for names in (columns, rows)
    )
    parts = []
    for k, name in enumerate(columns):
        x = left + (k + 0.5) * CELL_PX
        label = escape(name[:LONGEST_LABEL])
        parts.append(f'<text transform="translate({x + 4} {top - 4}) rotate(-90)">{label}</text>')
    for i, name in enumerate(rows):
        y = top + (i + 0.5) * CELL_PX
        label = escape(name[:LONGEST_LABEL])
        parts.append(f'<text x="{left - 4}" y="{y + 4}" text-anchor="end">{label}</text>')
        for k, column in enumerate(columns):
            corner = (left + k * CELL_PX, top + i * CELL_PX)
            parts.append(_cell(effects, i, k, corner, strongest, f"{name} → {column}", established))
    width, height = left + len(columns) * CELL_PX + 2, top + len(rows) * CELL_PX + 2
    return (
        f'<svg class="matrix" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _cell(
    effects: EffectsModel, i: int, k: int, corner: Corner, strongest: float, pair: str, established: float
) -> str:
    effect, beyond, p = effects.effect[i][k], effects.beyond[i][k], effects.p[i][k]
    place = f'x="{corner[0]}" y="{corner[1]}" width="{CELL_PX - 1}" height="{CELL_PX - 1}"'
    text = f"{pair}: {effect:+z.2f} ({effects.low[i][k]:+z.2f} … {effects.high[i][k]:+z.2f})"
    if p is None:
        return f'<rect class="self" {place}><title>{escape(text)}</title></rect>'
    if (asked := effects.asked[i][k]) is not None:
        text += f", asked {asked:+z.2f}"
    text += f", p {p:.4f}, r in the data {effects.data_correlation[i][k]:+z.2f}"
    kind = "up" if beyond >= 0 else "down"
    kind += " sure" if p <= established else ""
    opacity = abs(beyond) / strongest
    return f'<rect class="{kind}" {place} fill-opacity="{opacity:.2f}"><title>{escape(text)}</title></rect>'
