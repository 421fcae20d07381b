/** What an edit did: what was asked and reached, what was held, and what else changed. */

import { readable } from "../attributes.js";
import { element, pixelImage } from "../dom.js";
import { nameOf, pictureUrl, signed } from "../prototypes.js";
import { changes } from "../side_effects.js";
import { holdButton } from "./hold_button.js";

const SHOWN_SIDE_EFFECTS = 3;
const SHOWN_ATTRIBUTES = 5;
const NONE = "None by half a standard deviation of the training data.";
const UNITS = "In standard deviations of the training data; asked: what the edit itself carries of it.";

/** @param {import("../session.js").Session} session */
export function editSummary(session) {
  let holds = new Map(); // by the names of attributes that the page offers
  const summary = element("div", { class: "effects", role: "group", "aria-label": "What the edit did", tabindex: -1, hidden: true });

  session.store.follow(["outcome", "prototypes"], ({ outcome, prototypes, attributes }) => {
    const focused = summary.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    holds = new Map(attributes.map(({ name }) => [name, holdButton(session, name)]));
    summary.replaceChildren(...contents(session, outcome, prototypes, holds));
    summary.hidden = summary.childElementCount === 0;
    if (focused !== null) refocus(focused);
  });
  session.store.follow(["outcome", "prototypes", "edits", "held", "settings"], (state) => {
    for (const hold of holds.values()) hold.show(state);
  });

  /** Where the focus was before all was made anew, or as near as there is. @param {string} label of what had it */
  function refocus(label) {
    const same = summary.querySelector(`[aria-label="${CSS.escape(label)}"]`);
    (same ?? (summary.hidden ? document.getElementById("main") : summary)).focus({ preventScroll: true });
  }
  return summary;
}

function contents(session, outcome, prototypes, holds) {
  if (outcome?.response.activations?.achieved === undefined) return [];
  const { edited, attributes, others, heldAttributes, otherAttributes } = changes(outcome, prototypes);
  const clamped = outcome.response.clamped.map(({ prototype, attribute, requested, used }) =>
    element("p", { class: "muted" }, `${beyondText(prototypes[prototype], attribute, requested)}, ${used.toFixed(2)} was used. Tick Extrapolate to leave the data's range.`),
  );
  const cause = causeOf(session, edited, attributes);
  const rowOf = (attribute) => attributeRow(attribute, holds.get(attribute.name), cause);
  return [
    element("h3", {}, "Asked and reached"),
    ...attributes.map(({ name, before, asked, achieved }) =>
      element("p", {}, `${readable(name)} `, element("span", { class: "number muted" }, `log-odds ${signed(before)} → ${signed(achieved)} of ${signed(asked)} asked`)),
    ),
    ...edited.map(({ prototype, before, asked, achieved }) =>
      row(prototype, `${before.toFixed(2)} → ${achieved.toFixed(2)} of ${asked.toFixed(2)} asked`, null),
    ),
    ...clamped,
    ...(heldAttributes.length === 0 ? [] : [element("h3", {}, "Held: attributes"), element("p", { class: "muted" }, UNITS), ...heldAttributes.map(rowOf)]),
    ...(otherAttributes === null ? [] : attributesThatMoved(otherAttributes, rowOf, heldAttributes.length === 0 ? UNITS : null)),
    element("h3", {}, `What else changed: prototypes${attributes.length === 0 ? "" : ", beyond what was asked of them"}`),
    ...(others.length === 0 ? [element("p", { class: "muted" }, NONE)] : []),
    ...others.slice(0, SHOWN_SIDE_EFFECTS).map(({ prototype, change }) => row(prototype, `${signed(change)} sd`, measureButton(cause, nameOf(prototype)))),
  ];
}

/** Attributes that nobody named. @param {string|null} units null where they have been told */
function attributesThatMoved(moved, rowOf, units) {
  const text = moved.length === 0 ? NONE : units;
  const more = moved.slice(SHOWN_ATTRIBUTES).map(({ name, change }) => `${readable(name)} ${signed(change)} sd`);
  return [
    element("h3", {}, "What else changed: attributes"),
    ...(text === null ? [] : [element("p", { class: "muted" }, text)]),
    ...moved.slice(0, SHOWN_ATTRIBUTES).map(rowOf),
    ...(more.length === 0 ? [] : [element("p", { class: "muted number" }, `And ${more.join(", ")}.`)]),
  ];
}

/** How far an attribute moved that no edit names, and how much of it the request itself asked for. */
function attributeRow({ name, before, achieved, change, asked_change }, hold, cause) {
  return element(
    "div",
    { class: "effect of-attribute" },
    element(
      "span",
      {},
      `${readable(name)} `,
      element("span", { class: "number" }, `${signed(change)} sd`),
      element("span", { class: "number muted" }, `, asked ${signed(asked_change)}; log-odds ${signed(before)} → ${signed(achieved)}`),
    ),
    element("div", { class: "buttons" }, hold?.element, measureButton(cause, readable(name))), // no hold of what the page does not offer
  );
}

function beyondText(prototype, attribute, requested) {
  if (attribute === null) return `${nameOf(prototype)}: ${requested.toFixed(2)} is beyond the data`;
  return `${readable(attribute)}: log-odds of ${requested.toFixed(2)} take activations beyond the data`;
}

function row(prototype, text, action) {
  return element(
    "div",
    { class: "effect" },
    pixelImage(pictureUrl(prototype), ""),
    element("span", {}, `${nameOf(prototype)} `, element("span", { class: "number muted" }, text)),
    action,
  );
}

/** What a diagnosis of an edit is of: its first attribute, or else its first prototype. */
function causeOf(session, edited, attributes) {
  if (attributes.length > 0) return { name: readable(attributes[0].name), diagnose: () => session.diagnoseAttribute(attributes[0].name) };
  return { name: nameOf(edited[0].prototype), diagnose: () => session.diagnose(edited[0].prototype.index) };
}

function measureButton(cause, affected) {
  return element("button", { type: "button", "aria-label": `Measure whether ${cause.name} and ${affected} are coupled`, onclick: cause.diagnose }, "Measure");
}
