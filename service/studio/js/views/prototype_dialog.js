/** One prototype in detail: its nearest training patches, its numbers, and what it drags along. */

import * as calls from "../calls.js";
import { element, pixelImage, pngUrl } from "../dom.js";
import { attributeText, EMERGENCE, fullNameOf, nameOf, pictureUrl, signed } from "../prototypes.js";
import { Task } from "../task.js";

/** @param {{session: import("../session.js").Session, showCode: (call: import("../calls.js").Call) => void}} tools */
export function prototypeDialog({ session, showCode }) {
  const task = new Task();
  const title = element("h2", { id: "prototype-title" });
  const body = element("div", { class: "stack" });
  let call = null;
  const dialog = element(
    "dialog",
    { "aria-labelledby": "prototype-title", onclose: () => task.stop() },
    element("div", { class: "dialog-head" }, title, element("div", { class: "buttons" }, element("button", { type: "button", class: "plain", onclick: () => showCode(call) }, "Code"), element("button", { type: "button", onclick: () => dialog.close() }, "Close"))),
    task.status.element,
    body,
  );

  async function show(index) {
    const { model, prototypes } = session.state;
    title.textContent = fullNameOf(prototypes[index]);
    body.replaceChildren();
    if (!dialog.open) dialog.showModal();
    call = calls.prototype(model, index);
    await task.start("Reading…", async (options) => {
      const answer = await session.api.json(call, options);
      body.replaceChildren(...contents(answer, prototypes));
    });
  }

  function contents({ prototype, own_effect, effects, patches }, prototypes) {
    const { statistics, emergence_timestep, emergence_share, attributes } = prototype;
    const shown = patches ?? (prototype.picture === null ? [] : [prototype.picture]);
    const act = (text, todo) =>
      element("button", { type: "button", onclick: () => { dialog.close(); todo(); } }, text);
    return [
      element("div", { class: "patches" }, ...shown.map((patch, i) => pixelImage(pngUrl(patch), `Training patch ${i + 1}`))),
      element("p", { class: "muted" }, shown.length > 1 ? "The training patches nearest to it, nearest first." : ""),
      facts([
        ["Emerges at timestep", emergence_timestep === null ? null : `${emergence_timestep}, in ${Math.round(100 * emergence_share)}% of samples`],
        ["Mean, spread", statistics && `${statistics.mean.toFixed(2)}, ${statistics.std.toFixed(2)}`],
        ["0.01 to 0.99 quantile", statistics && `${statistics.quantiles["0.01"].toFixed(2)} to ${statistics.quantiles["0.99"].toFixed(2)}`],
        ...(attributes ?? []).map((attribute) => [attributeText(attribute), `AUROC ${attribute.auroc.toFixed(2)}`]),
      ]),
      ...(emergence_timestep === null ? [] : [element("p", { class: "legend" }, EMERGENCE)]),
      ...(effects === null
        ? []
        : [
            element("h3", {}, "Driven from its 0.01 to its 0.99 quantile"),
            element("p", {}, `it changes itself by ${signed(own_effect.effect)} sd, and others, as measured when the model was exported:`),
            element(
              "div",
              { class: "effects-list" },
              ...effects.map((effect) =>
                element(
                  "div",
                  { class: "effect" },
                  pixelImage(pictureUrl(prototypes[effect.prototype]), ""),
                  element("span", {}, `${nameOf(prototypes[effect.prototype])} `, element("span", { class: "muted number" }, `${signed(effect.effect, 2)} ± ${effect.standard_error.toFixed(2)} sd`)),
                  act("Compare", () => session.compare([prototype.index, effect.prototype])),
                ),
              ),
            ),
          ]),
      element("div", { class: "buttons" }, act("Diagnose its couplings", () => session.diagnose(prototype.index))),
    ];
  }
  return { element: dialog, show };
}

/** @param {[string, string|null|undefined][]} pairs those without a value are left out */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value != null);
  return element("dl", { class: "facts" }, ...known.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}
