/** Two prototypes side by side: what each stands for, how they go together, and what each does to the other. */

import * as calls from "../calls.js";
import { element, pixelImage, select } from "../dom.js";
import { scatterPlot } from "../plots.js";
import { fullNameOf, hintOf, nameOf, pictureUrl, signed, standardised } from "../prototypes.js";
import { Task } from "../task.js";
import { boxed } from "./boxed_picture.js";
import { facts } from "./prototype_dialog.js";

const NUM_SOURCES = 8;
const NUM_SAMPLES = 12;
const STEPS = 8;

export function compareView({ session, showCode }) {
  const parts = [
    part("What each stands for", "Enhanced in the reference picture where it rises most.", visualized),
    part("Do they occur together?", "One dot for each reference picture of the model.", occurring),
    part("Does one drag the other along?", "Each set from its 0.01 to its 0.99 quantile in the same samples.", dragging),
  ];
  const choices = element("div", { class: "tools" });
  const swap = element("button", { type: "button", onclick: () => session.compare([...session.state.compared].reverse()) }, "Swap");
  const view = element(
    "section",
    { "aria-labelledby": "compare-title" },
    element("div", { class: "panel" }, element("div", { class: "panel-head" }, element("h2", { id: "compare-title" }, "Compare two prototypes"), choices)),
    element("div", { class: "pair" }, ...parts.map(({ panel }) => panel)),
  );
  let shown = "";
  session.store.follow(["prototypes", "compared"], ({ prototypes, compared }) => {
    const options = prototypes.map((prototype) => [String(prototype.index), fullNameOf(prototype)]);
    choices.replaceChildren(
      ...["First", "Second"].map((text, i) =>
        select(text, options, String(compared[i]), (value) => session.compare(compared.with(i, Number(value))), { "data-compared": i }),
      ),
      swap,
    );
  });
  session.store.follow(["view", "compared", "model", "references"], ({ view: present, model, compared, references }) => {
    const wanted = JSON.stringify([model, compared]);
    if (shown === wanted) return;
    for (const { task } of parts) task.stop(); // what it asks is of other prototypes
    shown = "";
    if (present !== "compare" || model === null || references === null) return;
    shown = wanted;
    for (const { run } of parts) run();
  });

  function part(title, text, ask) {
    const task = new Task();
    const body = element("div", { class: "stack" });
    let call = null;
    const code = element("button", { type: "button", class: "plain", onclick: () => showCode(call), "aria-label": `${title} Code` }, "Code");
    code.hidden = true;
    const panel = element("section", { class: "panel stack" }, element("div", { class: "panel-head" }, element("h3", {}, title), code), element("p", { class: "muted" }, text), task.status.element, body);
    const run = () => {
      body.replaceChildren();
      code.hidden = true;
      const pair = session.state.compared.map((j) => session.state.prototypes[j]);
      return task.start("Asking…", async (options) => {
        const made = await ask(pair, options, task);
        call = made.call;
        code.hidden = call === null;
        body.replaceChildren(...made.nodes);
      });
    };
    return { panel, run, task };
  }

  function shape() {
    const { models, model } = session.state;
    return models.find(({ name }) => name === model).image_shape;
  }

  async function followed(call, options, task) {
    return session.api.follow(call, { ...options, onProgress: ({ step, steps }) => task.status.advance(step / steps, `${step} of ${steps}`) });
  }

  async function visualized(pair, options, task) {
    const indices = [...new Set(pair.map(({ index }) => index))];
    const call = calls.visualize(session.state.model, indices, Math.min(NUM_SOURCES, session.state.references.length || NUM_SOURCES));
    const { prototypes: found } = await followed(call, options, task);
    const nodes = found.map((item) => {
      const prototype = session.state.prototypes[item.prototype];
      return element(
        "div",
        {},
        element("strong", {}, nameOf(prototype)),
        element("span", { class: "muted" }, ` ${hintOf(prototype)}`),
        element("div", { class: "strip" }, boxed(item.source, "Source", shape(), []), boxed(item.enhanced, "Enhanced", shape(), [item.box]), boxed(item.patch, "Patch", shape(), [])),
        element("small", { class: "muted number" }, `source, enhanced, patch: ${item.activation_before.toFixed(2)} → ${item.activation_after.toFixed(2)}; rose in ${item.raised || "none"} of ${item.num_sources}`),
      );
    });
    return { call, nodes };
  }

  async function occurring([a, b], options) {
    const { references, model } = session.state;
    if (references.length < 3) return { call: null, nodes: [element("p", { class: "empty" }, "This model keeps too few reference pictures.")] };
    const call = calls.encodeAll(model, references);
    const { images } = await session.api.json(call, options);
    const measure = (prototype, s) => standardised(prototype, s[prototype.index]) ?? s[prototype.index];
    const points = images.map(({ activations: s }, i) => ({ x: measure(a, s), y: measure(b, s), isChosen: isShown(i), label: `reference picture ${i}` }));
    const both = points.filter(({ x, y }) => x > 1 && y > 1).length;
    const r = correlation(points);
    const title = `Activations of ${nameOf(a)} and ${nameOf(b)} in ${points.length} reference pictures: correlation ${signed(r, 2)}`;
    return {
      call,
      nodes: [
        scatterPlot({ title, points, xLabel: `${nameOf(a)}, sd from the mean`, yLabel: `${nameOf(b)}, sd from the mean` }),
        facts([
          ["Correlation in these pictures", signed(r, 2)],
          ["Both beyond one sd", `${both} of ${points.length}`],
        ]),
      ],
    };
  }

  function isShown(i) {
    const origin = session.state.source?.origin;
    return origin?.kind === "reference" && origin.index === i;
  }

  async function dragging([a, b], options, task) {
    if (a.index === b.index) return { call: null, nodes: [element("p", { class: "empty" }, "Choose two different prototypes.")] };
    const call = calls.diagnose(session.state.model, { prototypes: [a.index, b.index] }, NUM_SAMPLES, STEPS);
    const { effects, overlap } = await followed(call, options, task);
    const arrow = (i, cause, affected) =>
      element(
        "div",
        { class: "effect" },
        pixelImage(pictureUrl(cause), ""),
        element(
          "span",
          {},
          `Raising ${nameOf(cause)} changes ${nameOf(affected)} by `,
          element("strong", { class: "number" }, `${signed(effects.effect[i][affected.index], 2)} sd`),
          element("span", { class: "muted number" }, ` (${signed(effects.low[i][affected.index], 2)} to ${signed(effects.high[i][affected.index], 2)}), p ${pText(effects.p[i][affected.index])}`),
        ),
        pixelImage(pictureUrl(affected), ""),
      );
    return {
      call,
      nodes: [
        arrow(0, a, b),
        arrow(1, b, a),
        facts([
          ["Correlation in the training data", signed(effects.data_correlation[0][b.index], 2)],
          ["Overlap of their places", `${Math.round(100 * overlap[0][b.index])}%`],
        ]),
        element("div", { class: "buttons" }, element("button", { type: "button", onclick: () => session.diagnose(a.index) }, `Diagnose ${nameOf(a)} against all`)),
      ],
    };
  }
  return view;
}

function pText(p) {
  return p === null ? "unknown" : p < 0.001 ? "< 0.001" : p.toFixed(3);
}

/** Pearson's, of the points' x and y. */
function correlation(points) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [x, y] = [mean(points.map((point) => point.x)), mean(points.map((point) => point.y))];
  const product = (f, g) => points.reduce((sum, point) => sum + f(point) * g(point), 0);
  const dx = (point) => point.x - x;
  const dy = (point) => point.y - y;
  return product(dx, dy) / Math.sqrt(product(dx, dx) * product(dy, dy)) || 0;
}
