/** Original, reconstruction and edited picture side by side, heat maps over them; below, what the edit did. */

import { readable } from "../attributes.js";
import * as calls from "../calls.js";
import { EMPTY_IMAGE, element, pixelImage, pngUrl } from "../dom.js";
import { Locator } from "../locator.js";
import { fullNameOf } from "../prototypes.js";
import { place } from "./boxed_picture.js";
import { editSummary } from "./edit_summary.js";

export function pictures({ session, showCode }) {
  const original = frame("Original");
  const reconstruction = frame("Reconstruction");
  const edited = frame("Edited");
  const where = element("span", { "aria-live": "polite" });
  const whereCode = element("button", { type: "button", class: "plain", hidden: true, "aria-label": "Where: Code", onclick: () => showCode(located) }, "Code");
  let located = null; // the call that told where
  const undo = element("button", { type: "button", "aria-keyshortcuts": "Control+Z", onclick: () => session.undo() }, "Undo");
  const redo = element("button", { type: "button", "aria-keyshortcuts": "Control+Shift+Z", onclick: () => session.redo() }, "Redo");
  const reset = element("button", { type: "button", onclick: () => session.resetEdits() }, "Reset edits");
  const code = element("button", { type: "button", class: "primary", onclick: () => showCode() }, "Export");
  const panel = element(
    "section",
    { class: "panel pictures-panel", "aria-labelledby": "pictures-title" },
    element(
      "div",
      { class: "panel-head" },
      element("h2", { id: "pictures-title" }, "What changes, and where"),
      element("div", { class: "buttons" }, undo, redo, reset, code),
    ),
    element("div", { class: "pictures" }, original.figure, reconstruction.figure, edited.figure),
    element("div", { class: "where-line" }, where, whereCode),
    session.changing.status.element,
    editSummary(session),
  );

  session.store.follow(["canUndo", "canRedo", "edits"], ({ canUndo, canRedo, edits }) => {
    undo.disabled = !canUndo;
    redo.disabled = !canRedo;
    reset.disabled = edits.length === 0;
  });

  session.store.follow(["source", "live", "outcome", "settings"], ({ source, live, outcome, settings }) => {
    const isEdit = settings.method === "edit";
    code.disabled = source === null;
    original.show(source?.url ?? null, source === null ? "Choose a picture" : originText(source.origin));
    original.note(source === null ? "Drop, paste or choose a picture, or pick one of the model's" : "");
    const response = outcome?.response;
    reconstruction.figure.hidden = !isEdit;
    reconstruction.show(live?.reconstruction ?? (response?.reconstruction ? pngUrl(response.reconstruction) : null), "by the model, nothing changed");
    reconstruction.live(live?.reconstruction != null);
    edited.title(isEdit ? "Edited" : "Sampled anew");
    const several = response?.images?.map(({ image }) => pngUrl(image));
    const only = onlyPicture(outcome);
    edited.show(live?.edited ?? (only === null ? null : pngUrl(only)), editedText(outcome));
    edited.several(live === null && several?.length > 1 ? several : []);
    edited.live(live?.edited != null);
    const waits = source !== null && live === null && outcome === null;
    edited.note(waits ? "Move a slider" : "");
    reconstruction.note(waits ? "Comes with the first edit" : "");
  });

  const locator = new Locator(session.api);
  session.store.follow(["focus", "focusAttribute", "source", "outcome"], async ({ focus, source, outcome, model, prototypes }) => {
    if (focus === null || source === null) {
      locator.stop();
      original.heat(null);
      edited.box(null);
      where.textContent = "";
      whereCode.hidden = true;
      return;
    }
    const after = onlyPicture(outcome);
    const found = await locator.find(model, source, after, focus);
    if (found === null) return; // another prototype is looked at by now
    if (found.problem) {
      where.textContent = found.problem;
      return;
    }
    original.heat(pngUrl(found.original.overlay));
    edited.box(found.edited === null ? null : found.edited.box, shapeOf(session.state)); // heat would hide the edit
    where.textContent = carrierText(session.state) + whereText(prototypes[focus], found);
    located = calls.locate(model, calls.pictureOf(source), [focus]);
    whereCode.hidden = false;
    session.hasDone("located");
  });
  return panel;
}

function frame(title) {
  const picture = pixelImage(null, "");
  const heat = pixelImage(null, "", { class: "pixels heat" });
  const mark = element("span", { class: "box", hidden: true });
  const note = element("div", { class: "frame-note" });
  const grid = element("div", { class: "several", hidden: true });
  const name = element("strong", {}, title);
  const caption = element("span", { class: "muted" });
  const box = element("div", { class: "frame" }, picture, grid, heat, mark, note);
  const figure = element("figure", {}, box, element("figcaption", {}, name, element("br"), caption));
  return {
    figure,
    title: (text) => (name.textContent = text),
    show: (url, text) => {
      picture.src = url ?? EMPTY_IMAGE;
      picture.alt = url === null ? "" : `${name.textContent}: ${text}`;
      caption.textContent = text;
    },
    several: (urls) => {
      grid.hidden = urls.length === 0;
      grid.replaceChildren(...urls.map((url, i) => pixelImage(url, `Sample ${i + 1}`)));
    },
    note: (text) => (note.textContent = text),
    live: (isLive) => box.classList.toggle("is-live", isLive),
    box: (box, [, height, width] = []) => {
      mark.hidden = box === null;
      if (box !== null) place(mark, box, height, width);
    },
    heat: (url) => {
      heat.classList.toggle("is-shown", url !== null);
      if (url !== null) heat.src = url;
    },
  };
}

/** Base64 of the one picture that came of a change; null where several did, or none. */
function onlyPicture(outcome) {
  const { image, images } = outcome?.response ?? {};
  return image ?? (images?.length === 1 ? images[0].image : null);
}

function shapeOf({ models, model }) {
  return models.find(({ name }) => name === model).image_shape;
}

function originText(origin) {
  switch (origin.kind) {
    case "reference":
      return `reference picture ${origin.index}`;
    case "sample":
      return `sample of the prior, seed ${origin.seed}`;
    default:
      return origin.name;
  }
}

function editedText(outcome) {
  if (outcome === null) return "";
  const { response, call } = outcome;
  if (call.path === "/generate") return `seed ${response.images.map(({ seed }) => seed).join(", ")}`;
  return `${response.network_calls} network calls, from t = ${response.start_timestep}`;
}

/** How the prototype that is looked at comes to stand for an attribute, where it does. */
function carrierText({ focusAttribute, attributes }) {
  if (focusAttribute === null) return "";
  const { prototypes: carriers } = attributes.find(({ name }) => name === focusAttribute);
  const name = capitalised(readable(focusAttribute));
  return carriers.length === 1 ? `${name} is carried by one prototype. ` : `${name} is carried by ${carriers.length} prototypes; shown is the one that carries most. `;
}

function capitalised(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function whereText(prototype, { original, edited }) {
  const [x0, y0, x1, y1] = original.box;
  const place = `columns ${x0} to ${x1 - 1}, rows ${y0} to ${y1 - 1}`;
  const change = edited === null ? "" : `, after the edit ${edited.activation.toFixed(2)}`;
  return `${fullNameOf(prototype)} is strongest in ${place}: ${original.activation.toFixed(2)}${change}.`;
}
