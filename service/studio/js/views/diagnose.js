/** What a change of a prototype or of an attribute drags along: a ranked report, and the same as a page of its own. */

import { readable } from "../attributes.js";
import * as calls from "../calls.js";
import { element, pixelImage, select } from "../dom.js";
import { downloadBlob } from "../downloads.js";
import { editedAttributes, editedPrototypes } from "../edits.js";
import { fullNameOf, nameOf, pictureUrl, signed } from "../prototypes.js";
import { Task } from "../task.js";
import { boxed } from "./boxed_picture.js";

const SEEN_BESIDE = {
  data: "the two correlate over the training data",
  overlap: "both look at the same pixels",
  asked: "at least half of it was asked for",
};
const ALL_ATTRIBUTES = "@";
/** As a choice; one attribute is its name behind that, and one prototype its index. */
const SHOWN_CHANGES = 6;
/** More are not listed one by one. */

export function diagnoseView({ session, showCode }) {
  const task = new Task();
  const saving = new Task();
  let made = null; // the call whose answer is shown
  let which = "edited";
  const choice = element("div", {});
  const samples = numberField("Samples", 32, 6, 64);
  const steps = numberField("Steps", 8, 2, 50);
  const results = element("div", { class: "stack" });
  const report = element("button", { type: "button", hidden: true, onclick: () => save() }, "Save report (HTML)");
  const code = element("button", { type: "button", hidden: true, onclick: () => showCode(made) }, "Code");
  const view = element(
    "section",
    { class: "panel stack", "aria-labelledby": "diagnose-title" },
    element("div", { class: "panel-head" }, element("h2", { id: "diagnose-title" }, "What does a change drag along?"), element("div", { class: "buttons" }, code, report)),
    element(
      "p",
      { class: "muted" },
      "Each prototype or attribute is set from its 0.01 to its 0.99 quantile in the same samples; what else changes is a coupling. ",
      "An attribute is set by asking every prototype for what goes with it in the data; how much that asks of anything else stands beside the effect. ",
      "Intervals are 95% bootstrap intervals; p-values hold for all pairs of a table together.",
    ),
    element("div", { class: "tools" }, choice, samples.label, steps.label, element("button", { type: "button", class: "primary", onclick: () => run() }, "Diagnose")),
    task.status.element,
    saving.status.element,
    results,
  );

  session.store.follow(["prototypes", "attributes", "edits"], ({ prototypes, attributes, edits }) => {
    const isEdited = edits.length > 0;
    const several = [["all", "all prototypes"]];
    if (attributes.length > 0) several.push([ALL_ATTRIBUTES, "all attributes"]);
    if (isEdited) several.push(["edited", "the edited ones"]);
    const groups = [
      ["Several", several],
      ["Attributes", attributes.map(({ name }) => [keyOf({ kind: "attribute", index: name }), readable(name)])],
      ["Prototypes", prototypes.map((prototype) => [keyOf({ kind: "prototype", index: prototype.index }), fullNameOf(prototype)])],
    ].filter(([, options]) => options.length > 0);
    if (!groups.some(([, options]) => options.some(([key]) => key === which))) which = isEdited ? "edited" : "all";
    const hadFocus = choice.contains(document.activeElement);
    choice.replaceChildren(select("Change", groups, which, (value) => (which = value)));
    if (hadFocus) choice.querySelector("select").focus();
  });
  session.store.follow(["model"], clear);
  session.store.follow(["diagnosed"], ({ diagnosed }) => {
    if (diagnosed === null) return;
    choose(keyOf(diagnosed));
    session.store.update({ diagnosed: null }); // wanted once
    run();
  });

  function choose(key) {
    which = key;
    const field = choice.querySelector("select");
    if (field !== null) field.value = key;
  }

  function clear() {
    task.stop();
    task.status.idle();
    saving.stop();
    saving.status.idle();
    made = null;
    code.hidden = true;
    report.hidden = true;
    results.replaceChildren(element("p", { class: "empty" }, "Nothing diagnosed yet. Choose what is changed, and press Diagnose."));
  }

  function changed() {
    const { attributes, edits } = session.state;
    if (which === "all") return {};
    if (which === ALL_ATTRIBUTES) return { attributes: attributes.map(({ name }) => name) };
    if (which.startsWith(ALL_ATTRIBUTES)) return { attributes: [which.slice(ALL_ATTRIBUTES.length)] };
    if (which !== "edited") return { prototypes: [Number(which)] };
    const both = { prototypes: editedPrototypes(edits), attributes: editedAttributes(edits) };
    return Object.fromEntries(Object.entries(both).filter(([, targets]) => targets.length > 0));
  }

  function run() {
    const call = calls.diagnose(session.state.model, changed(), samples.value(), steps.value());
    if (made === null) results.replaceChildren(); // that nothing is diagnosed yet
    return task.start("Generating samples with and without the change…", async (options) => {
      const response = await session.api.follow(call, {
        ...options,
        onProgress: ({ step, steps: all }) => task.status.advance(step / all, `${step} of ${all}`),
      });
      made = call;
      code.hidden = false;
      report.hidden = false;
      results.replaceChildren(...contents(response, session.state, diagnoseAll));
      session.hasDone("coupled"); // that nothing is coupled is an answer, too
      return `Done in ${response.total_s.toFixed(1)} s.`;
    });
  }

  function diagnoseAll() {
    choose("all");
    run();
  }

  function save() {
    const call = made;
    return saving.start("Writing the report…", async (options) => {
      downloadBlob(await session.api.blob(call, "text/html", options), `diagnosis-${call.body.model}.html`);
      return "Saved: a page that needs nothing else.";
    });
  }
  return view;
}

function numberField(text, usual, min, max) {
  const field = element("input", { type: "number", min, max, value: usual });
  return {
    label: element("label", {}, text, field),
    value: () => Math.min(max, Math.max(min, Math.round(Number(field.value) || usual))),
  };
}

/** @param {import("../edits.js").Target} target */
function keyOf({ kind, index }) {
  return kind === "attribute" ? `${ALL_ATTRIBUTES}${index}` : String(index);
}

function contents(response, { prototypes, models, model }, diagnoseAll) {
  const shape = models.find(({ name }) => name === model).image_shape;
  const { interventions, num_established, num_samples, couplings, attributes } = response;
  const silent = interventions.filter(({ responds }) => !responds).map((item) => changedName(item, prototypes));
  const isOfAttributes = interventions.some(({ attribute }) => attribute !== null);
  const tables = [
    part("Prototypes that changed along", couplings.map((coupling) => ({ ...coupling, effected: prototypes[coupling.affected] }))),
    ...(attributes === null ? [] : [part("Attributes that changed along", attributes.couplings.map((coupling) => ({ ...coupling, label: readable(coupling.affected_name) })))]),
  ];
  function part(title, found) {
    if (found.length === 0) return [element("h3", {}, title), element("p", { class: "empty" }, "No pair to rank.")];
    return [element("h3", {}, title), couplingsTable(`${title}, ranked`, found, prototypes, shape)];
  }
  return [
    interventions.length > SHOWN_CHANGES ? null : element("p", {}, "Changed: ", interventions.map((item) => changeText(item, prototypes)).join("; "), "."),
    element(
      "p",
      {},
      `More than chance, in ${num_samples} samples: ${num_established} of ${response.num_pairs} effects on prototypes`,
      isOfAttributes ? " beyond what was asked of them" : "",
      attributes === null ? "" : `, ${attributes.num_established} of ${attributes.num_pairs} on attributes`,
      num_established === 0 ? ". More samples see smaller effects. " : ". ",
      num_established === 0 && !isOfAttributes && interventions.length < prototypes.length ? element("button", { type: "button", onclick: diagnoseAll }, "Diagnose all prototypes") : null,
    ),
    silent.length === 0 ? null : element("p", { class: "muted" }, `Hardly responds itself: ${silent.join(", ")}.`),
    ...(isOfAttributes ? tables.reverse() : tables).flat(), // what nobody asked for comes first
  ].filter((node) => node !== null);
}

function changedName({ prototype, attribute }, prototypes) {
  return attribute === null ? nameOf(prototypes[prototype]) : readable(attribute);
}

/** What was changed, and how far it went itself. */
function changeText(item, prototypes) {
  return `${changedName(item, prototypes)}, by ${signed(item.effect, 2)} sd (${signed(item.low, 2)} to ${signed(item.high, 2)})`;
}

function couplingsTable(caption, couplings, prototypes, shape) {
  const widest = Math.max(...couplings.flatMap(({ low, high }) => [Math.abs(low), Math.abs(high)]), 0.1);
  return element(
    "table",
    { class: "couplings" },
    element("caption", { class: "only-read" }, caption),
    element("thead", {}, element("tr", {}, ...["Raised", "What changes", "Before, after", "Effect in sd, 95% interval", "Finding"].map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...couplings.map((coupling) => couplingRow(coupling, prototypes, shape, widest))),
  );
}

function couplingRow(coupling, prototypes, shape, widest) {
  const { effect, low, high, p, is_established, data_correlation } = coupling;
  const percent = (value) => 50 + (50 * value) / widest;
  const bar = element("i", {});
  bar.style.left = `${percent(low)}%`;
  bar.style.width = `${percent(high) - percent(low)}%`;
  const mark = element("b", {});
  mark.style.left = `${percent(effect)}%`;
  return element(
    "tr",
    { class: is_established ? "is-established" : "chance" },
    element("td", {}, coupling.attribute === null ? who(prototypes[coupling.prototype]) : element("strong", {}, readable(coupling.attribute))),
    element("td", {}, coupling.label === undefined ? who(coupling.effected) : element("strong", {}, coupling.label)),
    element("td", {}, element("div", { class: "who" }, boxed(coupling.before, "Before", shape, [coupling.box]), boxed(coupling.after, "After", shape, [coupling.box, coupling.affected_box]))),
    element(
      "td",
      {},
      element("div", { class: "interval", "aria-hidden": "true" }, bar, mark),
      element("span", { class: "number" }, `${signed(effect, 2)} (${signed(low, 2)} to ${signed(high, 2)})`),
      ...askedParts(coupling),
    ),
    element("td", {}, findingText(coupling), element("br"), element("small", { class: "muted number" }, `p ${p < 0.001 ? "< 0.001" : p.toFixed(3)}, correlation in the data ${signed(data_correlation, 2)}`)),
  );
}

/** What of an effect the change of an attribute asked for, and how far it went beyond, or stayed short. */
function askedParts({ effect, asked }) {
  if (asked === null) return [];
  const isShort = effect * asked > 0 && Math.abs(effect) < Math.abs(asked);
  const rest = isShort ? `short of it by ${Math.abs(effect - asked).toFixed(2)}` : `beyond it ${signed(effect - asked, 2)}`;
  return [element("br"), element("small", { class: "muted number" }, `asked ${signed(asked, 2)}, ${rest}`)];
}

/** Of what is no chance, what was seen beside it, which is no proof of its cause. */
function findingText({ finding, explained_by }) {
  if (finding === "chance") return "may be chance";
  if (finding === "within_asked") return "within what was asked";
  if (explained_by.length === 0) return "established; nothing was seen that goes with it";
  return `established; ${explained_by.map((word) => SEEN_BESIDE[word]).join("; ")}`;
}

function who(prototype) {
  return element("div", { class: "who" }, pixelImage(pictureUrl(prototype), ""), element("span", {}, nameOf(prototype)));
}
