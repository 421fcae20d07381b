/** Where the picture comes from: a file (chosen, dropped or pasted), a reference picture, or the prior. */

import { element, pixelImage, pngUrl } from "../dom.js";

/** @param {{session: import("../session.js").Session}} tools */
export function sourcePanel({ session }) {
  const file = element("input", {
    type: "file",
    id: "file",
    class: "only-read",
    accept: "image/png,image/jpeg,image/webp",
    onchange: () => take(file.files[0]),
  });
  const seed = element("input", { type: "number", id: "prior-seed", min: 0, max: 4294967295, value: 1, "aria-label": "Seed of the sample" });
  const sample = element("button", { type: "button", onclick: draw }, "Sample");
  const references = element("div", { class: "references", role: "group", "aria-label": "Reference pictures of the model" });
  const note = element("p", { class: "muted" });
  const panel = element(
    "section",
    { class: "panel source-panel", "aria-labelledby": "source-title", ondragover: hover, ondragleave: leave, ondrop: drop },
    element("div", { class: "panel-head" }, element("h2", { id: "source-title" }, "Picture")),
    element(
      "div",
      { class: "source-inputs" },
      element("label", { class: "button" }, file, "Choose a file"),
      element("div", { class: "seed-line" }, sample, seed),
      element("small", { class: "muted" }, "Or drop a picture here, or paste one."),
    ),
    session.sourcing.status.element,
    note,
    references,
  );

  document.addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (pasted !== undefined) take(pasted);
  });

  /** The seed's sample; the next one's where that is shown already. */
  function draw() {
    const { origin } = session.state.source ?? {};
    if (origin?.kind === "sample" && String(origin.seed) === seed.value) seed.value = String(origin.seed + 1);
    session.samplePrior(Number(seed.value) || 0);
  }
  function hover(event) {
    event.preventDefault();
    panel.classList.add("is-target");
  }
  function leave() {
    panel.classList.remove("is-target");
  }
  function drop(event) {
    event.preventDefault();
    leave();
    if (event.dataTransfer.files.length > 0) take(event.dataTransfer.files[0]);
  }
  function take(chosen) {
    if (chosen === undefined) return;
    file.value = ""; // so that the same file can be chosen again
    session.useFile(chosen);
  }

  session.store.follow(["references", "models", "model"], ({ references: pictures, models, model }) => {
    const served = models.find(({ name }) => name === model);
    sample.disabled = served === undefined || !served.has_prior;
    sample.title = served?.has_prior === false ? "This model came without a latent prior" : "Draw activations from the latent prior, and a picture under them";
    note.textContent = pictures?.length === 0 ? "This model keeps no reference pictures." : "";
    references.hidden = !pictures?.length;
    references.replaceChildren(
      ...(pictures ?? []).map((base64, i) =>
        element(
          "button",
          { type: "button", "data-reference": i, "aria-pressed": "false", onclick: () => session.useReference(i) },
          pixelImage(pngUrl(base64), `Reference picture ${i}`),
        ),
      ),
    );
  });
  session.store.follow(["source", "references"], ({ source }) => {
    for (const button of references.children) {
      const isChosen = source?.origin.kind === "reference" && source.origin.index === Number(button.dataset.reference);
      button.setAttribute("aria-pressed", String(isChosen));
    }
  });
  return panel;
}
