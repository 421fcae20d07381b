/**
 * The state that a link carries: model, picture, edits, held attributes, settings and view.
 * A picture that was uploaded travels inside the link, reduced to the model's size.
 */

import { attributeTarget, prototypeTarget } from "./edits.js";
import { DEFAULT_SETTINGS, RANGES, settingFrom } from "./settings.js";

/** Parts of the page; the first is shown where a link names none. */
export const VIEWS = ["studio", "prototypes", "compare", "diagnose"];

/** @param {any} state of the store @param {string|null} reduced base64 of an uploaded picture */
export function toHash({ model, source, edits, held, settings, view }, reduced = null) {
  const fields = new URLSearchParams();
  if (model !== null) fields.set("model", model);
  const origin = originText(source?.origin, reduced);
  if (origin !== null) fields.set("picture", origin);
  if (edits.length > 0) {
    fields.set("edits", edits.map(editText).join(","));
  }
  if (held.length > 0) fields.set("held", held.map(encodeURIComponent).join(","));
  for (const [name, usual] of Object.entries(DEFAULT_SETTINGS)) {
    if (settings[name] !== usual) fields.set(name, String(settings[name]));
  }
  if (view !== VIEWS[0]) fields.set("view", view);
  return `#${fields}`;
}

/**
 * What a hash asks for; what it does not name, or names wrongly, is left out.
 * @param {string} hash
 */
export function fromHash(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    model: fields.get("model"),
    origin: originFrom(fields.get("picture") ?? ""),
    edits: editsFrom(fields.get("edits") ?? ""),
    held: [...new Set((fields.get("held") ?? "").split(",").flatMap(decoded).filter((name) => name !== ""))],
    settings: settingsFrom(fields),
    view: VIEWS.includes(fields.get("view")) ? fields.get("view") : VIEWS[0],
  };
}

function originText(origin, reduced) {
  switch (origin?.kind) {
    case "reference":
      return `reference-${origin.index}`;
    case "sample":
      return `sample-${origin.seed}`;
    case "upload":
      return reduced === null ? null : `png-${reduced}`;
    default:
      return null;
  }
}

function originFrom(text) {
  const [, kind, value] = /^(reference|sample|png)-(.+)$/s.exec(text) ?? [];
  if (kind === "png") return { kind: "upload", name: "picture of the link", base64: value.replaceAll(" ", "+") };
  if (!/^\d{1,10}$/.test(value ?? "")) return null;
  if (kind === "reference") return { kind, index: Number(value) };
  return Number(value) <= RANGES.seed[1] ? { kind: "sample", seed: Number(value) } : null;
}

/** As 21=5.3, or for an attribute as @glasses=5.3 or @glasses=max. */
function editText({ target, op, value }) {
  const key = target.kind === "attribute" ? `@${encodeURIComponent(target.index)}` : target.index;
  return `${key}=${op === "set" ? value : op}`; // all digits: what is given back is the very edit
}

function editsFrom(text) {
  return text.split(",").flatMap((part) => {
    const [, index, name, asked] = /^(?:(\d{1,6})|@([^=]+))=(max|min|-?\d+(?:\.\d+)?(?:e-?\d+)?)$/.exec(part) ?? [];
    if (asked === undefined) return [];
    const edit = asked === "max" || asked === "min" ? { op: asked } : { op: "set", value: Number(asked) };
    if (name !== undefined) return decoded(name).map((attribute) => ({ target: attributeTarget(attribute), ...edit }));
    return edit.op === "set" ? [{ target: prototypeTarget(Number(index)), ...edit }] : [];
  });
}

/** The text in a list, or an empty one where it cannot be read. */
function decoded(text) {
  try {
    return [decodeURIComponent(text)];
  } catch {
    return [];
  }
}

function settingsFrom(fields) {
  const named = Object.keys(DEFAULT_SETTINGS).filter((name) => fields.has(name));
  return { ...DEFAULT_SETTINGS, ...Object.fromEntries(named.map((name) => [name, settingFrom(name, fields.get(name))])) };
}
