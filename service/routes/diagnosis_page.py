"""A diagnosis as one HTML page to read, keep and print: it fetches nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from service.routes.effect_matrix import effect_matrix, strongest_effect
from service.routes.schemas import (
    CouplingModel,
    DiagnoseResponse,
    EditModel,
    EffectsModel,
    InterventionModel,
    ThresholdsModel,
)

ORIGINS = {
    "image": "given images, each from its own x_T",
    "prior": "new images, their activations from the latent prior",
    "resampled_from_training_statistics": "new images, their activations resampled from statistics",
}
FINDINGS = {
    "established": "established",
    "within_asked": "within what was asked",
    "chance": "may be chance",
}
SHOWN_OPEN = 6
"""With more interventions, their own effects are folded."""
LEAST_P = 0.001


def diagnosis_page(
    diagnosis: DiagnoseResponse, patches: Mapping[int, str], image_size: tuple[int, int]
) -> str:
    """The page. patches: a picture of each prototype, as PNG in base64; image_size: (height, width)."""
    title = f"Couplings of {diagnosis.model.name}"
    names = _Names(diagnosis, patches)
    tables = _tables(diagnosis)
    sections = [
        '<section><h2>Strongest unwanted couplings</h2><div class="cards">'
        + "".join(_card(table, diagnosis, names, image_size) for table in tables)
        + "</div></section>",
        _own_effects(diagnosis, names),
        *(_ranking(table, diagnosis, names, image_size) for table in tables),
        *(_matrix(table, diagnosis) for table in tables),
        _facts(diagnosis, names),
        _guide(diagnosis.thresholds),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n<p>{_what_was_done(diagnosis)}</p>\n"
        + "\n".join(sections)
        + "</main></body></html>\n"
    )


@dataclass(frozen=True)
class _Table:
    """Effects on prototypes, or on labelled attributes."""

    what: str
    columns: Sequence[str]
    effects: EffectsModel
    couplings: Sequence[CouplingModel]
    num_pairs: int
    num_established: int

    @property
    def is_of_attributes(self) -> bool:
        return self.what != "prototypes"

    @property
    def shows_asked(self) -> bool:
        return any(item.asked is not None for item in self.couplings)

    @property
    def shows_overlap(self) -> bool:
        return any(item.overlap is not None for item in self.couplings)

    @property
    def shows_auroc(self) -> bool:
        return any(item.auroc is not None for item in self.couplings)

    @property
    def shows_beyond(self) -> bool:
        """Of attributes the whole effect counts."""
        return self.shows_asked and not self.is_of_attributes


def _tables(diagnosis: DiagnoseResponse) -> list[_Table]:
    """Attributes come first where one of them is changed."""
    tables = [
        _Table(
            what="prototypes",
            columns=[str(k) for k in range(len(diagnosis.effects.effect[0]))],
            effects=diagnosis.effects,
            couplings=diagnosis.couplings,
            num_pairs=diagnosis.num_pairs,
            num_established=diagnosis.num_established,
        )
    ]
    if diagnosis.attributes is None:
        return tables
    of_attributes = _Table(
        what="labelled attributes",
        columns=diagnosis.attributes.names,
        effects=diagnosis.attributes.effects,
        couplings=diagnosis.attributes.couplings,
        num_pairs=diagnosis.attributes.num_pairs,
        num_established=diagnosis.attributes.num_established,
    )
    is_attribute_changed = any(item.attribute is not None for item in diagnosis.interventions)
    return [of_attributes, *tables] if is_attribute_changed else [*tables, of_attributes]


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

    def affected(self, item: CouplingModel) -> str:
        return escape(item.affected_name or "") if _is_of_attribute(item) else self.html(item.affected)

    def intervention(self, item: InterventionModel) -> str:
        """What is changed."""
        return escape(item.attribute or "") if item.prototype is None else self.html(item.prototype)

    def intervention_text(self, item: InterventionModel) -> str:
        return escape(item.attribute or "") if item.prototype is None else self.text(item.prototype)


def _what_was_done(diagnosis: DiagnoseResponse) -> str:
    """In a sentence."""
    samples = f"{diagnosis.num_samples} samples ({ORIGINS[diagnosis.activations_from]})"
    same = f"all else the same, in {samples}; what else changes in the pictures is a coupling."
    if all(item.edit is None for item in diagnosis.interventions):
        kinds = {"attribute" if item.prototype is None else "prototype" for item in diagnosis.interventions}
        whose = " and ".join(f"each {kind}" for kind in sorted(kinds, reverse=True))
        return f"Changed: {whose}, one at a time, from its 0.01 to its 0.99 quantile, {same}"
    return f"Changed: each edit by itself, {same}"


def _how(edit: EditModel) -> str:
    return edit.op if edit.value is None else f"{edit.op} {edit.value:g}"


def _card(table: _Table, diagnosis: DiagnoseResponse, names: _Names, image_size: tuple[int, int]) -> str:
    """The first coupling in rank, in words and pictures, or that there is none."""
    title = f"<h3>On {table.what}</h3>"
    if not table.num_established:
        beyond = ", or goes beyond what was asked," if table.shows_beyond else ""
        return (
            f'<article class="card">{title}<p class="big">None established</p><p>Of {table.num_pairs} pairs, '
            f"none could be told from chance{beyond} in {diagnosis.num_samples} samples: more samples see "
            "smaller effects.</p></article>"
        )
    if not table.couplings:
        return (
            f'<article class="card">{title}<p class="big">{table.num_established} established</p>'
            "<p>None of them is listed: num_couplings was 0.</p></article>"
        )
    item = table.couplings[0]
    pictures = f"{_sample(item, 'before', image_size)}<b>→</b>{_sample(item, 'after', image_size)}"
    figures = [
        f"<b>{item.effect:+z.2f}</b> standard deviations, 95% bootstrap interval {item.low:+z.2f} … "
        f"{item.high:+z.2f}"
    ]
    if item.asked is not None:
        figures.append(_asked(item, item.asked))
    if item.leakage is not None:
        own = diagnosis.interventions[item.intervention].effect
        figures.append(f"leakage <b>{item.leakage:+z.2f}</b> of its own change of {own:+z.2f}")
    figures.append(f"p {_p(item.p)}, corrected for all {table.num_pairs} pairs")
    figures.append(
        f"r in the training data {item.data_correlation:+z.2f}"
        + (": correlated there as well" if "data" in item.explained_by else "")
    )
    verb = "also raises" if item.effect >= 0 else "also lowers"
    more = f"<p>{table.num_established} of {table.num_pairs} pairs are established.</p>"
    return (
        f'<article class="card">{title}<p class="big">{names.changed(item)}<small>{verb}</small>'
        f'{names.affected(item)}</p><p class="pictures">{pictures}</p>'
        f"<ul>{''.join(f'<li>{figure}</li>' for figure in figures)}</ul>{more}</article>"
    )


def _asked(item: CouplingModel, asked: float) -> str:
    """How much of an effect lies in the request, in words."""
    share = ""
    if "asked" in item.explained_by:
        share = ", all of it" if abs(item.effect) <= abs(asked) else ", half of it or more"
    if item.attribute is not None:
        beyond = f", <b>{item.beyond:+z.2f}</b> goes beyond it"
        if _is_of_attribute(item):
            beyond = "; an edit with <code>preserve_attributes</code> asks for less" if share else ""
        return f"the request itself asks for {asked:+z.2f}{share}{beyond}"
    return f"the attribute's probe reads the changed prototype itself: {asked:+z.2f}{share}"


def _own_effects(diagnosis: DiagnoseResponse, names: _Names) -> str:
    """How far what was changed moved itself."""
    heads = ["changed", "how", "asked", "own effect", "95% interval", "moved"]
    rows = []
    for item in diagnosis.interventions:
        cells = [
            names.intervention(item),
            "0.01 to 0.99 quantile" if item.edit is None else _how(item.edit),
            f"{item.asked:+z.2f}",
            f"<b>{item.effect:+z.2f}</b>",
            f"{item.low:+z.2f} … {item.high:+z.2f}",
            "yes" if item.responds else "not told from chance",
        ]
        rows.append(f"<tr>{_cells(heads, cells)}</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    is_open = " open" if len(rows) <= SHOWN_OPEN else ""
    return (
        "<section><h2>Own effects</h2><p>How far what was changed moved itself, and how far it was asked to, "
        "in standard deviations of the training data. What does not move itself cannot be judged.</p>"
        f"<details{is_open}><summary>{len(rows)} changed</summary>"
        f'<div class="wide" tabindex="0"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details></section>"
    )


def _ranking(table: _Table, diagnosis: DiagnoseResponse, names: _Names, image_size: tuple[int, int]) -> str:
    title = f"<h2>Effects on {table.what}, strongest first</h2>"
    if not table.couplings:
        return f"<section>{title}<p>None are shown.</p></section>"
    reach = max(max(abs(item.low), abs(item.high), abs(item.effect)) for item in table.couplings) or 1.0
    heads = ["changed", "changes as well", "before, after", "effect"]
    heads += ["asked"] if table.shows_asked else []
    heads += ["beyond"] if table.shows_beyond else []
    heads += ["leakage", "p, corrected", "r in the data"]
    heads += ["overlap"] if table.shows_overlap else []
    heads += ["AUROC"] if table.shows_auroc else []
    head = "".join(f'<th scope="col">{name}</th>' for name in ("rank", *heads))
    rows = []
    for rank, item in enumerate(table.couplings, start=1):
        cells = _cells(heads, _columns(item, table, names, image_size, reach))
        kind = "" if item.is_established else ' class="weak"'
        rows.append(f'<tr{kind}><th scope="row">{rank}</th>{cells}</tr>')
    return (
        f"<section>{title}<p>{len(table.couplings)} of {table.num_pairs} pairs are shown; "
        f"<b>{table.num_established}</b> are established.</p>{_legend(table, diagnosis)}"
        f'<div class="wide" tabindex="0"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _legend(table: _Table, diagnosis: DiagnoseResponse) -> str:
    """What the columns hold."""
    least = diagnosis.thresholds
    lines = {
        "effect": f"mean change over {diagnosis.num_samples} samples, in standard deviations of the training "
        "data, with its 95% bootstrap interval, of each effect by itself",
        "leakage": "the effect as a share of the own effect of what was changed",
        "p": f"of {'nothing beyond' if table.shows_beyond else 'no effect'}, by flipping signs of samples, "
        f"corrected for all {table.num_pairs} pairs of this table; {least.p:g} or less is established",
        "r in the data": "correlation of the activations, or of what the attributes' probes read, over the "
        "training data, which is not that of the labels; of "
        f"{least.data_correlation:g} or more, in the direction of the effect, it is marked as also "
        "correlated. It was only observed, and proves no cause",
    }
    if table.is_of_attributes:
        lines["effect"] += (
            "; of the log-odds that a linear probe gives. Attributes of which only one can be true have to "
            "fall where another rises"
        )
    if table.shows_auroc:
        lines["AUROC"] = "how well the prototype alone tells the attribute in test images; 0.5: not at all"
    if table.shows_overlap:
        lines["overlap"] = f"of the two boxes; from {least.overlap:.2f} on it is marked as the same place"
    if table.shows_asked:
        lines["asked"] = "what the effect would be if pictures showed just what the request itself asks for"
        if table.is_of_attributes:
            lines["asked"] += "; where a prototype is changed, what the probe reads in its own change"
    if table.shows_beyond:
        lines["beyond"] = (
            "what goes further; only that counts, for leakage and p too. Within what was asked, p is 1"
        )
        lines["leakage"] = "beyond, as a share of the own effect of what was changed"
    items = "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in lines.items())
    return f'<dl class="legend">{items}</dl>'


def _is_of_attribute(item: CouplingModel) -> bool:
    """Whether it is an attribute that changes as well."""
    return item.affected_box is None


def _columns(
    item: CouplingModel, table: _Table, names: _Names, image_size: tuple[int, int], reach: float
) -> list[str]:
    leakage = "unknown" if item.leakage is None else f"<b>{item.leakage:+z.2f}</b>"
    if item.leakage_low is not None and item.leakage_high is not None:
        leakage += f"<br><small>{item.leakage_low:+z.2f} … {item.leakage_high:+z.2f}</small>"
    marks = {
        name: f"<br><small>{text}</small>" if name in item.explained_by else ""
        for name, text in (("data", "also correlated"), ("overlap", "same place"))
    }
    pictures = f'<span class="pictures">{_sample(item, "before", image_size)}'
    pictures += f"{_sample(item, 'after', image_size)}</span>"
    interval = f"<small>{item.low:+z.2f} … {item.high:+z.2f}</small>"
    cells = [
        names.changed(item),
        names.affected(item),
        pictures,
        f"{_bar(item, reach)}<br><b>{item.effect:+z.2f}</b><br>{interval}",
    ]
    if table.shows_asked:
        cells.append("" if item.asked is None else f"{item.asked:+z.2f}")
    if table.shows_beyond:
        beyond = f"<br><small>{item.beyond_low:+z.2f} … {item.beyond_high:+z.2f}</small>"
        cells.append("" if item.asked is None else f"<b>{item.beyond:+z.2f}</b>{beyond}")
    p = f"{_p(item.p)}<br><small>{FINDINGS[item.finding]}</small>"
    cells += [leakage, p, f"{item.data_correlation:+z.2f}{marks['data']}"]
    if table.shows_overlap:
        cells.append("" if item.overlap is None else f"{item.overlap:.2f}{marks['overlap']}")
    if table.shows_auroc:
        cells.append("" if item.auroc is None else f"{item.auroc:.2f}")
    return cells


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= LEAST_P else f"&lt; {LEAST_P}"


def _cells(heads: Sequence[str], cells: Sequence[str]) -> str:
    """With their heads, which a narrow screen shows beside them; none of nothing."""
    return "".join(
        f'<td data-head="{head}"><div>{cell}</div></td>' if cell else "<td></td>"
        for head, cell in zip(heads, cells, strict=True)
    )


def _sample(item: CouplingModel, when: str, image_size: tuple[int, int]) -> str:
    frames = "" if item.box is None else _frame(item.box, "own", image_size)
    if item.affected_box is not None:
        frames += _frame(item.affected_box, "other", image_size)
    picture = item.before if when == "before" else item.after
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


def _matrix(table: _Table, diagnosis: DiagnoseResponse) -> str:
    title = f"All effects on {table.what}"
    colour = "what goes beyond the request" if table.shows_beyond else "the effect"
    picture = effect_matrix(
        title, diagnosis.interventions, table.effects, table.columns, diagnosis.thresholds.p
    )
    return (
        f"<section><h2>{title}</h2><p>Rows are changed, columns change. The colour is {colour}: blue rises, "
        f"red falls, the strongest is {strongest_effect(table.effects):.2f} standard deviations. Framed is "
        f"established (p, corrected for all {table.num_pairs} pairs, is {diagnosis.thresholds.p:g} or less), "
        f'grey is what is changed itself.</p><div class="wide" tabindex="0">{picture}</div></section>'
    )


def _facts(diagnosis: DiagnoseResponse, names: _Names) -> str:
    """What was done, so that it can be done again, and what is left to say of all pairs."""
    silent = [item for item in diagnosis.interventions if not item.responds]
    agreement = diagnosis.agreement_with_data
    facts = [
        f"<b>{diagnosis.num_leaking}</b> of {diagnosis.num_established} established effects on prototypes "
        f"have a leakage of {diagnosis.thresholds.leakage:g} or more.",
    ]
    if agreement is not None:
        facts.append(
            "Over all pairs of prototypes, leakage correlates by "
            f"r = {agreement:+z.2f} with how the two correlate in the training data."
        )
    if silent:
        facts.append(f"No change of their own was seen in {', '.join(map(names.intervention_text, silent))}.")
    if diagnosis.clamped:
        facts.append(f"{len(diagnosis.clamped)} changes could not go as far as asked.")
    rows = {
        "Model": f"{escape(diagnosis.model.name)} <code>{escape(diagnosis.model.digest[:12])}</code>",
        "Interventions": str(len(diagnosis.interventions)),
        "Samples": f"{diagnosis.num_samples}: {ORIGINS[diagnosis.activations_from]}",
        "Sampling": f"{diagnosis.steps} steps, seed {diagnosis.seed}, {diagnosis.total_s:.1f} s",
    }
    table = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows.items())
    items = "".join(f"<li>{fact}</li>" for fact in facts)
    return (
        f'<section><h2>The experiment as a whole</h2><ul>{items}</ul><table class="facts">{table}</table>'
        "</section>"
    )


STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1c1e21;--soft:#5f6368;--line:#ddd;--up:#1565c0;
--down:#c62828;--own:#00a152;--other:#e65100;--card:#f6f7f9}
@media(prefers-color-scheme:dark){:root{--back:#15171a;--text:#e6e6e6;--soft:#9aa0a6;--line:#3a3d42;
--up:#64b5f6;--down:#ef7f7f;--own:#69f0ae;--other:#ffb74d;--card:#1e2125}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;
background:var(--back);color:var(--text)}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem}h3{font-size:1rem;margin:0;color:var(--soft)}
table{border-collapse:collapse}th,td{padding:.35rem .6rem;text-align:left;vertical-align:middle}
.rows tbody tr{border-top:1px solid var(--line)}.rows th{color:var(--soft);font-weight:600}
.facts th{color:var(--soft);font-weight:600;padding-left:0}.wide{overflow-x:auto}
.weak td{color:var(--soft)}.weak img,.weak svg{opacity:.6}small{color:var(--soft);white-space:nowrap}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem;
align-items:start}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:1rem}
.card p{margin:.5rem 0}.card ul{margin:.5rem 0;padding-left:1.2rem}
.big{font-size:1.25rem;font-weight:600;display:flex;flex-wrap:wrap;gap:.6rem;align-items:center}
.big small{font-size:1rem;font-weight:400}.pictures{display:flex;gap:.4rem;align-items:center}
.card .sample{height:128px}
.legend{color:var(--soft);font-size:.87rem;max-width:62rem;margin:.5rem 0 1rem}
.legend dt{display:inline;font-weight:600;color:var(--text)}.legend dt::after{content:": "}
.legend dd{display:inline}
img{image-rendering:pixelated;display:block}.patch{height:36px;width:auto}
.name{display:inline-flex;gap:.5rem;align-items:center}
.framed{position:relative;display:inline-block;line-height:0}.sample{height:72px;width:auto}
.framed i{position:absolute;box-sizing:border-box;border:2px solid}
.framed .own{border-color:var(--own)}.framed .other{border-color:var(--other);border-style:dashed}
.up{fill:var(--up)}.down{fill:var(--down)}.self{fill:var(--line)}
.line{stroke:var(--text);fill:none}.sure{stroke:var(--text);stroke-width:1}
.matrix text{font-size:10px;fill:var(--soft)}dt{font-weight:600;margin-top:.6rem}dd{margin-left:0}
summary{cursor:pointer;color:var(--soft)}
@media(max-width:44rem){.rows thead{display:none}.rows,.rows tbody,.rows tr,.rows tbody th{display:block}
.rows tr{padding:.6rem 0}.rows th,.rows td{padding:.15rem 0}.rows td:empty{display:none}
.rows td{display:grid;grid-template-columns:7.5rem 1fr;gap:.6rem}
.rows td::before{content:attr(data-head);color:var(--soft)}}
"""


def _guide(least: ThresholdsModel) -> str:
    return f"""<section><h2>How to read this</h2><dl>
<dt>The experiment</dt><dd>Each sample is generated twice: with one prototype's activation low and high (or
as it is, and edited), everything else the same, the starting noise too. Both pictures are encoded again.
What differs besides what was changed is an effect of that one change, in this model. Means are tested: an
effect that raises in some pictures and lowers in others cancels out.</dd>
<dt>Asked</dt><dd>An attribute is changed by asking all prototypes at once for what goes with it in the data.
So a part of each effect is in the request before any picture is made. Of a prototype, anything from none to
all of it was meant; p, leakage and rank are of what goes beyond, and within it p is 1. Of another attribute
the whole effect counts, as nobody wanted it. Where a prototype is changed, an attribute's probe reads it
along with all others, and what it reads in the prototype's own change counts as asked.</dd>
<dt>p, established</dt><dd>How often chance alone would give so strong an effect anywhere in the same table
(sign flips of whole samples, stepping down from the largest). At {least.p:g}, one table in 20 of a model
without any coupling names one; prototypes and attributes are a table each. Established effects rank first,
then those of which the interval leaves most. An effect can be established and still too small to matter.</dd>
<dt>Also correlated, same place</dt><dd>The effect was measured by changing something in this model. That the
two correlate over the training data (their activations, or what the attributes' probes read, which can
confuse labels that the data has apart), or that both look at the same place (the mean intersection over
union of their boxes is {least.overlap:.2f} or more), was only seen beside it. It fits a shortcut that was
learned, or one thing seen twice, and proves neither.</dd>
<dt>Pictures</dt><dd>The sample with the median effect. The solid frame is where the prototype is that was
changed, the dashed one where the other is.</dd>
<dt>AUROC</dt><dd>Below 0.5, a low activation is the sign of the attribute. A prototype that stands for an
attribute should move it.</dd>
</dl></section>"""
