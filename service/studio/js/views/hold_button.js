/** Holds an attribute where it is in the picture, or lets it go. */

import { readable } from "../attributes.js";
import { element } from "../dom.js";
import { attributeTarget, editOf } from "../edits.js";

/** @param {import("../session.js").Session} session @param {string} name of the attribute */
export function holdButton(session, name) {
  const button = element("button", { type: "button", "aria-pressed": "false", "aria-label": `Hold ${readable(name)}`, onclick: () => session.holdAttribute(name, !isHeld()) }, "Hold");

  function isHeld() {
    return session.state.held.includes(name);
  }

  /** Nothing is held against its own edit, nor in pictures that are sampled anew. @param {any} state of the store */
  function show({ source, edits, settings }) {
    button.disabled = source === null || settings.method !== "edit" || editOf(edits, attributeTarget(name)) !== undefined;
    button.setAttribute("aria-pressed", String(isHeld() && settings.method === "edit"));
  }
  return { element: button, show };
}
