/** Asks for the service's API key, which is kept for this browser tab. */

import { element } from "../dom.js";

/** @param {import("../api.js").Api} api @param {() => void} proceed with the key */
export function keyDialog(api, proceed) {
  const field = element("input", { type: "password", id: "api-key", autocomplete: "off", required: true });
  const why = element("p", { class: "muted" });
  const dialog = element(
    "dialog",
    { "aria-labelledby": "key-title" },
    element("div", { class: "dialog-head" }, element("h2", { id: "key-title" }, "API key")),
    element(
      "form",
      { method: "dialog", class: "stack", onsubmit: take },
      why,
      element("label", { class: "field", for: "api-key" }, element("span", {}, "Key"), field),
      element(
        "div",
        { class: "buttons" },
        element("button", { type: "submit", class: "primary" }, "Use this key"),
        element("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      ),
    ),
  );
  function take() {
    api.useKey(field.value.trim());
    proceed();
  }
  return {
    element: dialog,
    /** @param {boolean} isRefused whether the service has just refused what it was given */
    show(isRefused) {
      if (dialog.open) return;
      why.textContent = isRefused && api.hasKey
        ? "The service wants another key than the one given before."
        : "A service with PATRONUS_API_KEYS answers only with one of them. It stays in this tab, and goes to this service alone.";
      field.value = "";
      dialog.showModal();
    },
  };
}
