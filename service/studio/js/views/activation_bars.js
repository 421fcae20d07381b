/** One row for each prototype: its patch and name, its activation as a bar, and the slider that edits it. */

import { element, lookedAt, pixelImage, select } from "../dom.js";
import { editOf, prototypeTarget } from "../edits.js";
import { fullNameOf, hintOf, nameOf, pictureUrl, rangeOf, signed, standardised } from "../prototypes.js";

const ORDERS = {
  unusual: "Distance to mean",
  value: "Activation",
  index: "Number",
  name: "Name",
};
const SLIDER_STEPS = 200;

export function activationBars({ session, showDetails }) {
  let order = "unusual";
  let rows = [];
  const list = element("ul", { class: "bars", "aria-label": "Prototypes", onmouseleave: () => session.look(null) });
  const search = element("input", { type: "search", "aria-label": "Find a prototype", placeholder: "Find", size: 6, oninput: () => arrange() });
  const extrapolate = element("input", {
    type: "checkbox",
    id: "extrapolate",
    onchange: () => session.changeSettings({ extrapolate: extrapolate.checked }),
  });
  const empty = element("p", { class: "empty", hidden: true });
  const panel = element(
    "section",
    { class: "panel bars-panel", "aria-labelledby": "bars-title" },
    element("div", { class: "panel-head" }, element("h2", { id: "bars-title" }, "Prototypes"), element("label", { class: "field" }, extrapolate, "Extrapolate")),
    element(
      "div",
      { class: "bars-tools" },
      select("Sorted by", Object.entries(ORDERS), order, (value) => {
        order = value;
        arrange();
      }),
      search,
    ),
    element("p", { class: "legend" }, "Gray: activation from the training mean. Accent: what you ask for. Diamond: what was reached."),
    empty,
    list,
  );

  session.store.follow(["prototypes"], ({ prototypes }) => {
    if (rows.length === prototypes.length && rows.every((row, i) => row.prototype.name === prototypes[i].name)) return;
    const isRenaming = rows.length === prototypes.length && rows.every((row, i) => row.prototype.picture === prototypes[i].picture);
    if (isRenaming) {
      rows.forEach((row, i) => row.describe(prototypes[i]));
    } else {
      rows = prototypes.map((prototype) => barRow(session, showDetails, prototype));
      arrange();
    }
    show(session.state);
  });
  session.store.follow(["activations"], () => arrange());
  session.store.follow(["activations", "edits", "outcome", "settings"], show);

  function show({ activations, edits, outcome, settings }) {
    extrapolate.checked = settings.extrapolate;
    const achieved = outcome?.response.activations?.achieved ?? null;
    for (const row of rows) row.show(activations, edits, achieved, settings.extrapolate);
    empty.hidden = activations !== null;
    empty.textContent = "Activations appear once there is a picture.";
    list.hidden = activations === null;
  }

  function arrange() {
    const { activations } = session.state;
    const wanted = search.value.trim().toLowerCase();
    const found = rows.filter(({ prototype }) => `${fullNameOf(prototype)} ${hintOf(prototype)}`.toLowerCase().includes(wanted));
    list.replaceChildren(...found.sort(comparison(order, activations)).map(({ item }) => item));
  }
  return panel;
}

function comparison(order, s) {
  const rank = {
    unusual: ({ prototype }) => -Math.abs(standardised(prototype, s?.[prototype.index] ?? 0) ?? s?.[prototype.index] ?? 0),
    value: ({ prototype }) => -(s?.[prototype.index] ?? 0),
    index: ({ prototype }) => prototype.index,
  }[order];
  if (rank === undefined) return (a, b) => fullNameOf(a.prototype).localeCompare(fullNameOf(b.prototype), undefined, { numeric: true });
  return (a, b) => rank(a) - rank(b) || a.prototype.index - b.prototype.index;
}

function barRow(session, showDetails, first) {
  let prototype = first;
  const j = first.index;
  const patch = element("button", { type: "button", class: "bar-patch", onclick: () => showDetails(j) }, pixelImage(pictureUrl(first), ""));
  const name = element("button", { type: "button", class: "plain bar-name", title: "Rename", onclick: rename });
  const hint = element("span", { class: "bar-hint" });
  const value = element("span", { class: "bar-value" });
  const mean = element("div", { class: "mean" });
  const fill = element("div", { class: "fill" });
  const change = element("div", { class: "fill change" });
  const achievedMark = element("div", { class: "achieved", hidden: true });
  const slider = element("input", { type: "range", "data-prototype": j, oninput: () => session.setEdit(j, Number(slider.value)) });
  const reset = element("button", { type: "button", class: "plain", onclick: () => { session.resetEdit(j); slider.focus(); } }, "×");
  const head = element("div", { class: "bar-head" }, name, hint, value);
  const item = element(
    "li",
    { class: "bar", "data-prototype": j, ...lookedAt(() => session.look(j)) },
    patch,
    element("div", {}, head, element("div", { class: "bar-track" }, element("div", { class: "groove" }), fill, change, mean, achievedMark, slider)),
    reset,
  );
  describe(first);

  function describe(described) {
    prototype = described;
    name.textContent = nameOf(prototype);
    name.setAttribute("aria-label", `Rename ${fullNameOf(prototype)}`);
    patch.setAttribute("aria-label", `Details of ${fullNameOf(prototype)}`);
    slider.setAttribute("aria-label", fullNameOf(prototype));
    reset.setAttribute("aria-label", `Reset ${fullNameOf(prototype)}`);
    hint.textContent = hintOf(prototype);
    hint.title = hint.textContent;
  }

  function show(activations, edits, achieved, extrapolate) {
    if (activations === null) return;
    const before = activations[j];
    const edit = editOf(edits, prototypeTarget(j));
    const [low, high] = rangeOf(prototype, extrapolate);
    const place = (s) => (100 * Math.min(1, Math.max(0, (s - low) / (high - low)))) || 0;
    const middle = prototype.statistics?.mean ?? low;
    const asked = edit?.value ?? before;
    slider.min = String(low);
    slider.max = String(high);
    slider.step = String((high - low) / SLIDER_STEPS);
    slider.value = String(asked);
    span(fill, place(middle), place(before));
    span(change, place(before), place(asked));
    mean.style.left = `${place(middle)}%`;
    achievedMark.hidden = edit === undefined || achieved === null;
    if (!achievedMark.hidden) achievedMark.style.left = `${place(achieved[j])}%`;
    item.classList.toggle("is-edited", edit !== undefined);
    reset.hidden = edit === undefined;
    const z = standardised(prototype, asked);
    value.replaceChildren(element("b", {}, asked.toFixed(2)), z === null ? "" : ` ${signed(z)} sd`);
    slider.setAttribute("aria-valuetext", valueText(before, edit, z, achieved?.[j]));
  }

  function rename() {
    const field = element("input", { class: "bar-name-field", "aria-label": `Name of prototype ${j}`, maxlength: 100, value: prototype.name ?? "" });
    const fault = element("span", { role: "alert", class: "muted" });
    let isOver = false;
    const leave = () => {
      isOver = true;
      head.replaceChildren(name, hint, value);
    };
    const keep = async () => {
      if (isOver) return;
      const wanted = field.value.trim() || null;
      if (wanted === prototype.name) return leave();
      try {
        await session.rename(j, wanted);
        leave();
        name.focus();
      } catch (error) {
        fault.textContent = error.message;
        hint.textContent = "";
        field.setAttribute("aria-invalid", "true");
      }
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") keep();
      if (event.key === "Escape") {
        leave();
        name.focus();
      }
    });
    field.addEventListener("blur", () => fault.textContent === "" ? keep() : leave());
    head.replaceChildren(field, fault);
    field.focus();
    field.select();
  }

  return {
    item,
    describe,
    show,
    get prototype() {
      return prototype;
    },
  };
}

function span(bar, from, to) {
  bar.style.left = `${Math.min(from, to)}%`;
  bar.style.width = `${Math.abs(to - from)}%`;
}

function valueText(before, edit, z, achieved) {
  const distance = z === null ? "" : `, ${Math.abs(z).toFixed(1)} standard deviations ${z < 0 ? "below" : "above"} the mean`;
  if (edit === undefined) return `${before.toFixed(2)}${distance}`;
  const reached = achieved === undefined ? "" : `, reached ${achieved.toFixed(2)}`;
  return `asked ${edit.value.toFixed(2)}${distance}, was ${before.toFixed(2)}${reached}`;
}
