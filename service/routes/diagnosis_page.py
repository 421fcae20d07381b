"""A diagnosis as one HTML page to read, keep and print: it fetches nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from service.routes.schemas import (
    CouplingModel,
    DiagnoseResponse,
    EditModel,
    EffectsModel,
    InterventionModel,
)

ORIGINS = {
    "image": "given images, each from its own x_T",
    "prior": "new images, their activations from the latent prior",
    "resampled_from_training_statistics": "new images, their activations resampled from statistics",
}
CELL_PX = 15
LABEL_PX = 30


def diagnosis_page(
    diagnosis: DiagnoseResponse, patches: Mapping[int, str], image_size: tuple[int, int]
) -> str:
    """The page. patches: a picture of each prototype, as PNG in base64; image_size: (height, width)."""
    title = f"Couplings of {diagnosis.model.name}"
    prototypes = _Names(diagnosis, patches)
    sections = [
        _summary(diagnosis, prototypes),
        _ranking("Couplings, strongest first", diagnosis.couplings, prototypes, image_size),
    ]
    if diagnosis.attributes is not None:
        found = diagnosis.attributes.couplings
        sections.append(_ranking("Labelled attributes, strongest first", found, prototypes, image_size))
    columns = [str(k) for k in range(len(diagnosis.effects.effect[0]))]
    sections.append(_matrix("All effects on prototypes", diagnosis, diagnosis.effects, columns))
    if diagnosis.attributes is not None:
        names = diagnosis.attributes.names
        sections.append(_matrix("All effects on attributes", diagnosis, diagnosis.attributes.effects, names))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(sections) + f"\n{GUIDE}</body></html>\n"
    )


class _Names:
    """What prototypes and interventions are called, with their pictures where there are any."""

    def __init__(self, diagnosis: DiagnoseResponse, patches: Mapping[int, str]) -> None:
        self._edits = [item.edit for item in diagnosis.interventions]
        self._names = {
            item.prototype: item.name for item in diagnosis.interventions if item.prototype is not None
        }
        self._names |= {item.affected: item.affected_name for item in diagnosis.couplings}
        self._patches = patches

    def text(self, j: int) -> str:
        name = self._names.get(j)
        return f"prototype {j}" if name is None else f"{escape(name)} ({j})"

    def html(self, j: int) -> str:
        patch = self._patches.get(j)
        picture = "" if patch is None else _picture(patch, f"patch of prototype {j}", "patch")
        return f'<span class="name">{picture}{self.text(j)}</span>'

    def changed(self, item: CouplingModel) -> str:
        """The prototype or attribute that is changed, and by which edit."""
        edit = self._edits[item.intervention]
        what = escape(item.attribute or "") if item.prototype is None else self.html(item.prototype)
        return what + ("" if edit is None else f" <small>{_how(edit)}</small>")

    def intervention(self, item: InterventionModel) -> str:
        """What is changed, in words."""
        return escape(item.attribute or "") if item.prototype is None else self.text(item.prototype)


def _summary(diagnosis: DiagnoseResponse, prototypes: _Names) -> str:
    silent = [item for item in diagnosis.interventions if not item.responds]
    agreement = diagnosis.agreement_with_data
    facts = [
        f"<b>{diagnosis.num_established}</b> of {diagnosis.num_pairs} effects on other prototypes are "
        f"established, and <b>{diagnosis.num_leaking}</b> of these reach a tenth of the change that was "
        "meant.",
    ]
    if diagnosis.attributes is not None:
        num_tested = sum(p is not None for row in diagnosis.attributes.effects.p for p in row)
        facts.append(
            f"<b>{diagnosis.attributes.num_established}</b> of {num_tested} effects on labelled attributes "
            "are established."
        )
    if agreement is not None:
        facts.append(
            f"Over all pairs, leakage correlates {agreement:+.2f} with how prototypes vary together in the "
            "training data (1: generation repeats the data; 0: it does not)."
        )
    if silent:
        facts.append(f"No change of their own was seen in {', '.join(map(prototypes.intervention, silent))}.")
    if diagnosis.clamped:
        facts.append(f"{len(diagnosis.clamped)} changes could not go as far as asked.")
    rows = {
        "Model": f"{escape(diagnosis.model.name)} <code>{escape(diagnosis.model.digest[:12])}</code>",
        "Interventions": f"{len(diagnosis.interventions)}, {_what_was_done(diagnosis)}",
        "Samples": f"{diagnosis.num_samples}: {ORIGINS[diagnosis.activations_from]}",
        "Sampling": f"{diagnosis.steps} steps, seed {diagnosis.seed}, {diagnosis.total_s:.1f} s",
    }
    table = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows.items())
    items = "".join(f"<li>{fact}</li>" for fact in facts)
    return f'<section><table class="facts">{table}</table><ul>{items}</ul></section>'


def _what_was_done(diagnosis: DiagnoseResponse) -> str:
    if all(item.edit is None for item in diagnosis.interventions):
        kinds = {"attribute" if item.prototype is None else "prototype" for item in diagnosis.interventions}
        return f"each {' and '.join(sorted(kinds, reverse=True))} from its 0.01 to its 0.99 quantile"
    edits = [item.edit for item in diagnosis.interventions if item.edit is not None]
    return "each edit by itself: " + ", ".join(
        f"{escape(str(edit.attribute or edit.prototype))} {_how(edit)}" for edit in edits
    )


def _how(edit: EditModel) -> str:
    return edit.op if edit.value is None else f"{edit.op} {edit.value:g}"


def _ranking(
    title: str, couplings: Sequence[CouplingModel], prototypes: _Names, image_size: tuple[int, int]
) -> str:
    if not couplings:
        return f"<section><h2>{title}</h2><p>None are shown.</p></section>"
    reach = max(max(abs(item.low), abs(item.high), abs(item.effect)) for item in couplings) or 1.0
    heads = ["", "changed", "changes as well", "before", "after", "effect", "leakage", "p", "data"]
    heads += ["AUROC" if _is_of_attribute(couplings[0]) else "overlap", "explained by"]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = "".join(
        _row(rank, item, prototypes, image_size, reach) for rank, item in enumerate(couplings, start=1)
    )
    return (
        f'<section><h2>{title}</h2><div class="wide"><table class="ranking"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _is_of_attribute(item: CouplingModel) -> bool:
    """Whether it is an attribute that changes as well."""
    return item.affected_box is None


def _row(
    rank: int, item: CouplingModel, prototypes: _Names, image_size: tuple[int, int], reach: float
) -> str:
    is_attribute = _is_of_attribute(item)
    affected = escape(item.affected_name or "") if is_attribute else prototypes.html(item.affected)
    leakage = "unknown" if item.leakage is None else f"{item.leakage:+.2f}"
    if item.leakage_low is not None and item.leakage_high is not None:
        leakage += f"<br><small>{item.leakage_low:+.2f} … {item.leakage_high:+.2f}</small>"
    reasons = {"data": "the training data", "overlap": "the same place", "asked": "what was asked"}
    reason = " and ".join(reasons[name] for name in item.explained_by) or "the model alone"
    if not item.is_established:
        is_no_finding = (
            "asked" in item.explained_by and not is_attribute
        )  # of attributes, all of it is tested
        reason = "was asked" if is_no_finding else "may be chance"
    effect = f"{_bar(item, reach)}<br>{item.effect:+.2f} <small>{item.low:+.2f} … {item.high:+.2f}</small>"
    if item.asked is not None:
        effect += f"<br><small>asked {item.asked:+.2f}</small>"
    other = item.auroc if is_attribute else item.overlap
    cells = [
        prototypes.changed(item),
        affected,
        _sample(item, item.before, "before", image_size),
        _sample(item, item.after, "after", image_size),
        effect,
        leakage,
        f"{item.p:.4f}" if item.p >= 0.001 else "&lt; 0.001",
        f"{item.data_correlation:+.2f}",
        "" if other is None else f"{other:.2f}",
        reason,
    ]
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    kind = "" if item.is_established else ' class="weak"'
    return f'<tr{kind}><th scope="row">{rank}</th>{columns}</tr>'


def _sample(item: CouplingModel, picture: str, when: str, image_size: tuple[int, int]) -> str:
    frames = "" if item.box is None else _frame(item.box, "own", image_size)
    if item.affected_box is not None:
        frames += _frame(item.affected_box, "other", image_size)
    image = _picture(picture, f"sample {item.sample} {when}", "sample")
    return f'<span class="framed">{image}{frames}</span>'


def _frame(box: tuple[int, int, int, int], kind: str, image_size: tuple[int, int]) -> str:
    height, width = image_size
    x0, y0, x1, y1 = box
    place = {"left": x0 / width, "top": y0 / height, "width": (x1 - x0) / width, "height": (y1 - y0) / height}
    style = ";".join(f"{name}:{share:.2%}" for name, share in place.items())
    return f'<i class="{kind}" style="{style}"></i>'


def _picture(png: str, description: str, kind: str) -> str:
    return f'<img class="{kind}" alt="{escape(description)}" src="data:image/png;base64,{escape(png)}">'


def _bar(item: CouplingModel, reach: float) -> str:
    """The effect as a bar from 0, with its interval as a line, on a scale of -reach … reach."""

    def x(value: float) -> float:
        return 60.0 + 58.0 * value / reach

    left, right = sorted((x(0.0), x(item.effect)))
    kind = "up" if item.effect >= 0 else "down"
    return (
        '<svg class="bar" viewBox="0 0 120 14" width="120" height="14" aria-hidden="true">'
        f'<rect class="{kind}" x="{left:.1f}" y="2" width="{right - left:.1f}" height="10"/>'
        f'<path class="line" d="M{x(item.low):.1f} 7H{x(item.high):.1f}M60 0V14"/></svg>'
    )


def _matrix(title: str, diagnosis: DiagnoseResponse, effects: EffectsModel, columns: Sequence[str]) -> str:
    """A square for each effect: blue up, red down, as strong as the effect; framed where established."""
    rows = [
        item.attribute or "" if item.prototype is None else str(item.prototype)
        for item in diagnosis.interventions
    ]
    strongest = (
        max(
            (
                abs(e)
                for es, ps in zip(effects.effect, effects.p, strict=True)
                for e, p in zip(es, ps, strict=True)
                if p is not None
            ),
            default=0.0,
        )
        or 1.0
    )
    top, left = (
        LABEL_PX if all(len(name) <= 3 for name in names) else 4 * LABEL_PX for names in (columns, rows)
    )
    parts = []
    for k, name in enumerate(columns):
        x = left + (k + 0.5) * CELL_PX
        parts.append(f'<text transform="translate({x + 4} {top - 4}) rotate(-90)">{escape(name[:20])}</text>')
    for i, name in enumerate(rows):
        y = top + (i + 0.5) * CELL_PX
        label = escape(name[:20])
        parts.append(f'<text x="{left - 4}" y="{y + 4}" text-anchor="end">{label}</text>')
        for k, column in enumerate(columns):
            parts.append(
                _cell(effects, i, k, (left + k * CELL_PX, top + i * CELL_PX), strongest, name, column)
            )
    width, height = left + len(columns) * CELL_PX + 2, top + len(rows) * CELL_PX + 2
    return (
        f"<section><h2>{title}</h2><p>Rows are changed, columns change; the strongest is {strongest:.2f}. "
        "Blue rises, red falls, framed is established, grey is what is changed itself.</p>"
        f'<div class="wide"><svg class="matrix" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></div></section>'
    )


def _cell(
    effects: EffectsModel, i: int, k: int, corner: tuple[int, int], strongest: float, row: str, column: str
) -> str:
    effect, p = effects.effect[i][k], effects.p[i][k]
    place = f'x="{corner[0]}" y="{corner[1]}" width="{CELL_PX - 1}" height="{CELL_PX - 1}"'
    text = f"{row} → {column}: {effect:+.2f} ({effects.low[i][k]:+.2f} … {effects.high[i][k]:+.2f})"
    if p is None:
        return f'<rect class="self" {place}><title>{escape(text)}</title></rect>'
    text += f", p {p:.4f}, in the data {effects.data_correlation[i][k]:+.2f}"
    if (asked := effects.asked[i][k]) is not None:
        text += f", asked {asked:+.2f}"
    kind = "up" if effect >= 0 else "down"
    kind += " sure" if p <= 0.05 else ""
    opacity = abs(effect) / strongest
    return f'<rect class="{kind}" {place} fill-opacity="{opacity:.2f}"><title>{escape(text)}</title></rect>'


STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1c1e21;--soft:#666;--line:#ddd;--up:#1565c0;--down:#c62828;
--own:#00a152;--other:#e65100}
@media(prefers-color-scheme:dark){:root{--back:#15171a;--text:#e6e6e6;--soft:#9aa0a6;--line:#3a3d42;
--up:#64b5f6;--down:#ef7f7f;--own:#69f0ae;--other:#ffb74d}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;
background:var(--back);color:var(--text)}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem}
table{border-collapse:collapse}th,td{padding:.35rem .6rem;text-align:left;vertical-align:middle}
.ranking tbody tr{border-top:1px solid var(--line)}.ranking th{color:var(--soft);font-weight:600}
.facts th{color:var(--soft);font-weight:600;padding-left:0}.wide{overflow-x:auto}
.weak{opacity:.6}small{color:var(--soft)}
img{image-rendering:pixelated;display:block}.patch{height:36px;width:auto}
.name{display:flex;gap:.5rem;align-items:center}
.framed{position:relative;display:inline-block;line-height:0}.sample{height:96px;width:auto}
.framed i{position:absolute;box-sizing:border-box;border:2px solid}
.framed .own{border-color:var(--own)}.framed .other{border-color:var(--other);border-style:dashed}
.up{fill:var(--up)}.down{fill:var(--down)}.self{fill:var(--line)}
.line{stroke:var(--text);fill:none}.sure{stroke:var(--text);stroke-width:1}
.matrix text{font-size:10px;fill:var(--soft)}dt{font-weight:600;margin-top:.6rem}dd{margin-left:0}
"""

GUIDE = """<section><h2>How to read this</h2><dl>
<dt>The experiment</dt><dd>Each sample is generated twice: with one prototype's activation low and high (or
as it is, and edited), everything else the same, the starting noise too. Both pictures are encoded again.
What differs besides the prototype that was changed is an effect of that one change. Means are tested: an
effect that raises in some pictures and lowers in others cancels out.</dd>
<dt>Effect</dt><dd>Mean change of the other prototype, in standard deviations of the training data, with its
95% bootstrap interval over the samples. For an attribute, of the log-odds that a linear probe gives.</dd>
<dt>Leakage</dt><dd>The effect as a share of the change of the prototype or attribute that was meant, in the
same units.</dd>
<dt>Asked</dt><dd>An attribute is changed by asking all prototypes at once for what goes with it in the data.
So a part of each effect is in the request before any picture is made: that much. Of a prototype, anything
from none to all of it was meant; p, leakage and rank are of what goes beyond. Of another attribute the whole
effect counts, as nobody wanted it, and "what was asked" explains it where that is at least half.</dd>
<dt>p, established</dt><dd>How often chance alone would give so strong an effect anywhere in the same table
(sign flips of whole samples, stepping down from the largest). At 0.05, one table in 20 of a model without
any coupling names one; prototypes and attributes are a table each. Established effects rank first, then
those of which the interval leaves most. An
effect can be established and still too small to matter.</dd>
<dt>Data</dt><dd>How the two correlate in the training data, attributes by their probes' log-odds. A coupling
that follows the data (0.3 or more
in the same direction) was presumably learned there: a shortcut, if the two should be independent.</dd>
<dt>Overlap</dt><dd>Mean intersection over union of the two prototypes' boxes. From 1/3 on they share half
of their patches: both look at the same place, and the change of one shows in the other.</dd>
<dt>Pictures</dt><dd>The sample with the median effect. The solid frame is where the prototype is that was
changed, the dashed one where the other is.</dd>
<dt>AUROC</dt><dd>How well the prototype's activation alone tells the attribute in test images: 0.5 not at
all; below, a low activation is the sign. A prototype that stands for an attribute should move it.</dd>
<dt>The model alone</dt><dd>Neither the data nor the place, nor what was asked, explains the coupling.</dd>
</dl></section>"""
