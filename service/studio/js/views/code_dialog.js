/** The present state, or another call, as code, files and a link. */

import { toCurl, toJson, toPython } from "../code_export.js";
import { element, pngUrl } from "../dom.js";
import { downloadBlob, reduced, sideBySide } from "../downloads.js";
import { toHash } from "../url_hash.js";

const FORMS = { curl: toCurl, Python: toPython, JSON: toJson };
const PICTURE_SCALE = 8;

/** @param {import("../session.js").Session} session */
export function codeDialog(session) {
  let call = null;
  let form = "curl";
  const code = element("pre", { class: "code", tabindex: 0, "aria-label": "Code" });
  const said = element("span", { role: "status", class: "muted" });
  const tabs = Object.keys(FORMS).map((name) =>
    element("button", { type: "button", onclick: () => choose(name) }, name),
  );
  const files = element(
    "div",
    { class: "buttons" },
    element("button", { type: "button", onclick: savePicture }, "Save PNG"),
    element("button", { type: "button", onclick: saveJson }, "Save JSON"),
    element("button", { type: "button", onclick: copyLink }, "Copy link"),
  );
  const note = element("p", { class: "muted" });
  const dialog = element(
    "dialog",
    { "aria-labelledby": "code-title" },
    element(
      "div",
      { class: "dialog-head" },
      element("h2", { id: "code-title" }, "This call as code"),
      element("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ),
    element("div", { class: "code-tabs", role: "group", "aria-label": "Language" }, ...tabs, element("button", { type: "button", class: "primary", onclick: () => copy(code.textContent, "Code copied.") }, "Copy code")),
    note,
    code,
    files,
    said,
  );

  function choose(name) {
    form = name;
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.textContent === form));
    code.textContent = FORMS[form](call, session.state.source, location.origin, session.api.hasKey);
    said.textContent = "";
  }

  async function copy(text, done) {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = done;
    } catch {
      said.textContent = "The browser does not let this page copy: mark the text and copy it.";
    }
  }

  async function copyLink() {
    const { source, models, model } = session.state;
    const [, height, width] = models.find(({ name }) => name === model).image_shape;
    const small = source?.origin.kind === "upload" ? await reduced(source.url, width, height) : null;
    const link = `${location.origin}/${toHash(session.state, small)}`;
    await copy(link, small === null ? "Link copied." : `Link copied; it carries your picture, reduced to ${width} by ${height} pixels.`);
  }

  async function savePicture() {
    const { source, outcome, models, model } = session.state;
    const [, height, width] = models.find(({ name }) => name === model).image_shape;
    const response = outcome?.response ?? {};
    const made = [response.reconstruction, response.image, ...(response.images ?? []).map(({ image }) => image)];
    const urls = [source.url, ...made.filter((image) => image !== undefined).map(pngUrl)];
    downloadBlob(await sideBySide(urls, PICTURE_SCALE, width, height), `${model}.png`);
    said.textContent = "Saved: original, and what came of it.";
  }

  function saveJson() {
    const { outcome, model, edits, held, settings, source } = session.state;
    const state = { model, picture: source?.origin, edits, held, settings, call, answer: outcome?.response ?? null };
    downloadBlob(new Blob([JSON.stringify(state, null, 2)], { type: "application/json" }), `${model}.json`);
    said.textContent = "Saved: state, call and answer.";
  }

  return {
    element: dialog,
    /** @param {import("../calls.js").Call} [shown] another call than what the studio shows */
    show(shown) {
      const { source } = session.state;
      call = shown ?? session.presentCall() ?? session.plainCall();
      files.hidden = shown !== undefined;
      const isOwn = source?.origin.kind === "upload" && call.body !== undefined && ("image" in call.body || "image_id" in call.body);
      note.textContent = isOwn ? "Your picture stands here under its file name." : "";
      choose(form);
      dialog.showModal();
    },
  };
}
