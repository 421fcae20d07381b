/** One row for each attribute that the model tells: less of it, more of it, or on a slider how much. */

import { askedOf, reachOf, readable } from "../attributes.js";
import { element, lookedAt } from "../dom.js";
import { attributeTarget, editOf } from "../edits.js";
import { signed } from "../prototypes.js";
import { holdButton } from "./hold_button.js";

const SLIDER_STEPS = 200;
const HOLD = {
  edit: "Hold: edits of anything else are asked to leave it, as far as they can.",
  generate: "Hold is for pictures that are kept and edited; this one is sampled anew.",
};

/** @param {{session: import("../session.js").Session}} tools */
export function attributeEdits({ session }) {
  let rows = [];
  const holdLegend = element("span", {});
  const list = element("ul", { class: "attributes", "aria-labelledby": "attributes-title", onmouseleave: () => session.look(null) });
  const panel = element(
    "details",
    { class: "panel attributes-panel", open: true, hidden: true },
    element("summary", {}, element("h2", { id: "attributes-title" }, "Attributes")),
    element("p", { class: "legend" }, "Each moves all prototypes together, as they go together in the data. ", holdLegend, " AUROC: how surely it is told."),
    list,
  );

  session.store.follow(["attributes"], ({ attributes }) => {
    rows = attributes.map((attribute) => attributeRow(session, attribute));
    list.replaceChildren(...rows.map(({ item }) => item));
    panel.hidden = rows.length === 0;
  });
  session.store.follow(["settings"], ({ settings }) => (holdLegend.textContent = HOLD[settings.method]));
  session.store.follow(["attributes", "source", "edits", "held", "outcome", "settings"], (state) => {
    for (const row of rows) row.show(state);
  });
  return panel;
}

/** @param {import("../session.js").Session} session @param {import("../attributes.js").Attribute} attribute */
function attributeRow(session, attribute) {
  const { name, auroc } = attribute;
  const label = readable(name);
  const buttons = { min: pushButton("min", "Less"), max: pushButton("max", "More") };
  const hold = holdButton(session, name);
  const value = element("span", { class: "bar-value" });
  const change = element("div", { class: "fill change" });
  const achievedMark = element("div", { class: "achieved", hidden: true });
  const slider = element("input", { type: "range", "aria-label": `${label}, log-odds`, oninput: () => session.setAttribute(name, Number(slider.value)) });
  const reset = element("button", { type: "button", class: "plain", "aria-label": `Reset ${label}`, onclick: () => { session.resetAttribute(name); buttons.max.focus(); } }, "×");
  const measure = element("button", { type: "button", class: "plain", "aria-label": `Measure what ${label} drags along`, onclick: () => session.diagnoseAttribute(name) }, "Measure");
  const amount = element(
    "div",
    { class: "attribute-amount", hidden: true },
    element("div", { class: "bar-track" }, element("div", { class: "groove" }), change, achievedMark, slider),
    value,
    measure,
    reset,
  );
  const item = element(
    "li",
    { class: "attribute", "data-attribute": name, ...lookedAt(() => session.lookAtAttribute(name)) },
    element("span", { class: "attribute-name", title: label }, label),
    element("span", { class: "bar-value" }, `AUROC ${auroc.toFixed(2)}`),
    element("div", { class: "attribute-buttons" }, buttons.min, buttons.max, hold.element),
    amount,
  );

  function pushButton(op, text) {
    const button = element("button", { type: "button", "aria-pressed": "false", "aria-label": `${text} ${label}`, onclick: push }, text);
    function push() {
      if (button.getAttribute("aria-pressed") === "true") session.resetAttribute(name);
      else session.pushAttribute(name, op);
    }
    return button;
  }

  function show(state) {
    const { source, edits, outcome, settings } = state;
    hold.show(state);
    const edit = editOf(edits, attributeTarget(name));
    for (const [op, button] of Object.entries(buttons)) {
      button.disabled = source === null;
      button.setAttribute("aria-pressed", String(edit?.op === op));
    }
    item.classList.toggle("is-edited", edit !== undefined);
    amount.hidden = edit === undefined;
    if (edit === undefined) return;
    const asked = askedOf(attribute, edit);
    const known = outcome?.response.attributes?.find((other) => other.name === name); // from the first edit on
    const [low, high] = reachOf(attribute, settings.extrapolate);
    const place = (logOdds) => 100 * Math.min(1, Math.max(0, (logOdds - low) / (high - low)));
    slider.min = String(low);
    slider.max = String(high);
    slider.step = String((high - low) / SLIDER_STEPS);
    slider.value = String(asked);
    const from = place(known?.before ?? asked);
    change.style.left = `${Math.min(from, place(asked))}%`;
    change.style.width = `${Math.abs(place(asked) - from)}%`;
    achievedMark.hidden = known === undefined;
    if (known !== undefined) achievedMark.style.left = `${place(known.achieved)}%`;
    value.replaceChildren(element("b", {}, signed(asked)));
    const reached = known === undefined ? "" : `, was ${known.before.toFixed(1)}, reached ${known.achieved.toFixed(1)}`;
    slider.setAttribute("aria-valuetext", `asked ${asked.toFixed(1)}${reached}`);
  }
  return { item, show };
}
