/** The page's head: views, model, the newcomer's guide, key and theme. */

import { element } from "../dom.js";
import { VIEWS } from "../url_hash.js";

/** @param {import("../session.js").Session} session */
export function viewButtons(session) {
  const buttons = VIEWS.map((view) =>
    element("button", { type: "button", "data-view": view, onclick: () => session.show(view) }, titleOf(view)),
  );
  session.store.follow(["view"], ({ view }) => {
    document.title = view === VIEWS[0] ? "Prototype Studio" : `${titleOf(view)} · Prototype Studio`;
    for (const button of buttons) {
      if (button.dataset.view === view) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
  });
  const fragment = document.createDocumentFragment();
  fragment.append(...buttons);
  return fragment;
}

function titleOf(view) {
  return view.charAt(0).toUpperCase() + view.slice(1);
}

/** @returns {Node[]} */
export function pageControls({ session }, askForKey, introduce) {
  return [
    modelPicker(session),
    element("button", { type: "button", onclick: introduce }, "First steps"),
    element("button", { type: "button", onclick: askForKey }, "Key"),
    themeButton(),
    element("a", { class: "button", href: "/docs" }, "API"),
  ];
}

function modelPicker(session) {
  const field = element("select", { id: "model", "aria-label": "Model", onchange: () => session.openModel(field.value) });
  session.store.follow(["models", "model"], ({ models, model }) => {
    field.replaceChildren(...models.map(({ name }) => element("option", { value: name, selected: name === model }, name)));
    field.disabled = models.length === 0;
  });
  return element("label", {}, element("span", { class: "muted" }, "Model"), field);
}

function themeButton() {
  const root = document.documentElement;
  const button = element("button", { type: "button", onclick: toggle });
  function toggle() {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("patronus-theme", root.dataset.theme);
    } catch {
      // storage is off: the theme holds for this page
    }
  }
  const name = () => (button.textContent = root.dataset.theme === "dark" ? "Light theme" : "Dark theme");
  new MutationObserver(name).observe(root, { attributeFilter: ["data-theme"] });
  name();
  return button;
}
