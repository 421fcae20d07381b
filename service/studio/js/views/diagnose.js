/** Which prototypes drag others along: a ranked report, and the same as a page of its own. */

import { readable } from "../attributes.js";
import * as calls from "../calls.js";
import { element, pixelImage, select } from "../dom.js";
import { downloadBlob } from "../downloads.js";
import { editedPrototypes } from "../edits.js";
import { fullNameOf, nameOf, pictureUrl, signed } from "../prototypes.js";
import { Task } from "../task.js";
import { boxed } from "./boxed_picture.js";

const EXPLANATIONS = {
  data: "the two go together in the training data",
  overlap: "both look at the same pixels",
};

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
    element("div", { class: "panel-head" }, element("h2", { id: "diagnose-title" }, "Which prototypes drag others along?"), element("div", { class: "buttons" }, code, report)),
    element(
      "p",
      { class: "muted" },
      "Each prototype is set from its 0.01 to its 0.99 quantile in the same samples; what else changes is a coupling. ",
      "Intervals are 95% bootstrap intervals; p-values hold for all pairs together.",
    ),
    element("div", { class: "tools" }, choice, samples.label, steps.label, element("button", { type: "button", class: "primary", onclick: () => run() }, "Diagnose")),
    task.status.element,
    saving.status.element,
    results,
  );

  session.store.follow(["prototypes", "edits"], ({ prototypes, edits }) => {
    const isEdited = editedPrototypes(edits).length > 0;
    const options = [
      ["all", "all prototypes"],
      ...(isEdited ? [["edited", "the edited ones"]] : []),
      ...prototypes.map((prototype) => [String(prototype.index), fullNameOf(prototype)]),
    ];
    if (!options.some(([key]) => key === which)) which = isEdited ? "edited" : "all";
    choice.replaceChildren(select("Change", options, which, (value) => (which = value)));
  });
  session.store.follow(["model"], clear);
  session.store.follow(["diagnosed"], ({ diagnosed }) => {
    if (diagnosed === null) return;
    which = String(diagnosed);
    const field = choice.querySelector("select");
    if (field !== null) field.value = which;
    session.store.update({ diagnosed: null }); // wanted once
    run();
  });

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

  function indices() {
    if (which === "all") return null;
    return which === "edited" ? editedPrototypes(session.state.edits) : [Number(which)];
  }

  function run() {
    const call = calls.diagnose(session.state.model, indices(), samples.value(), steps.value());
    return task.start("Changing prototypes in samples…", async (options) => {
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
    choice.querySelector("select").value = which = "all";
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

function contents(response, { prototypes, models, model }, diagnoseAll) {
  const shape = models.find(({ name }) => name === model).image_shape;
  const { num_pairs, num_established, num_samples, couplings, attributes } = response;
  const silent = response.interventions.filter(({ responds }) => !responds).map(({ prototype }) => nameOf(prototypes[prototype]));
  const found = [...couplings].map((coupling) => ({ ...coupling, effected: prototypes[coupling.affected] }));
  return [
    element(
      "p",
      {},
      num_established === 0
        ? `None of ${num_pairs} pairs is coupled beyond chance in ${num_samples} samples: more samples see smaller effects. `
        : `${num_established} of ${num_pairs} pairs are coupled beyond chance, in ${num_samples} samples.`,
      num_established === 0 && response.interventions.length < prototypes.length ? element("button", { type: "button", onclick: diagnoseAll }, "Diagnose all prototypes") : null,
    ),
    ...(silent.length > 0 ? [element("p", { class: "muted" }, `Hardly responds itself: ${silent.join(", ")}.`)] : []),
    found.length === 0 ? element("p", { class: "empty" }, "No pair to rank.") : couplingsTable("Couplings of prototypes, ranked", found, prototypes, shape),
    ...(attributes === null || attributes.couplings.length === 0
      ? []
      : [
          element("h3", {}, "Effects on labelled attributes"),
          couplingsTable("Effects on labels, ranked", attributes.couplings.map((coupling) => ({ ...coupling, label: readable(coupling.affected_name ?? attributes.names[coupling.affected]) })), prototypes, shape),
        ]),
  ];
}

function couplingsTable(caption, couplings, prototypes, shape) {
  const widest = Math.max(...couplings.flatMap(({ low, high }) => [Math.abs(low), Math.abs(high)]), 0.1);
  return element(
    "table",
    { class: "couplings" },
    element("caption", { class: "only-read" }, caption),
    element("thead", {}, element("tr", {}, ...["Raised", "What changes", "Before, after", "Effect in sd, 95% interval", "Why"].map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...couplings.map((coupling) => couplingRow(coupling, prototypes, shape, widest))),
  );
}

function couplingRow(coupling, prototypes, shape, widest) {
  const { effect, low, high, p, is_established, explained_by, data_correlation } = coupling;
  const percent = (value) => 50 + (50 * value) / widest;
  const bar = element("i", {});
  bar.style.left = `${percent(low)}%`;
  bar.style.width = `${percent(high) - percent(low)}%`;
  const mark = element("b", {});
  mark.style.left = `${percent(effect)}%`;
  const why = explained_by.length === 0 ? "the model couples them by itself" : explained_by.map((word) => EXPLANATIONS[word]).join("; ");
  return element(
    "tr",
    { class: is_established ? "is-established" : "chance" },
    element("td", {}, who(prototypes[coupling.prototype])),
    element("td", {}, coupling.label === undefined ? who(coupling.effected) : element("strong", {}, coupling.label)),
    element("td", {}, element("div", { class: "who" }, boxed(coupling.before, "Before", shape, [coupling.box]), boxed(coupling.after, "After", shape, [coupling.box, coupling.affected_box]))),
    element("td", {}, element("div", { class: "interval", "aria-hidden": "true" }, bar, mark), element("span", { class: "number" }, `${signed(effect, 2)} (${signed(low, 2)} to ${signed(high, 2)})`)),
    element("td", {}, is_established ? why : "may be chance", element("br"), element("small", { class: "muted number" }, `p ${p < 0.001 ? "< 0.001" : p.toFixed(3)}, correlation in the data ${signed(data_correlation, 2)}`)),
  );
}

function who(prototype) {
  return element("div", { class: "who" }, pixelImage(pictureUrl(prototype), ""), element("span", {}, nameOf(prototype)));
}
