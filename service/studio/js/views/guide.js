/** Three things to try, which tick themselves off. */

import { element } from "../dom.js";

const STEPS = [
  ["edited", "Move a slider: the picture is made anew with that prototype changed."],
  ["located", "Hover over a prototype: see where it acts, and below when."],
  ["coupled", "Under What else changed, press Measure: is it a coupling?"],
];

/** @param {import("../session.js").Session} session */
export function guide(session) {
  const items = STEPS.map(([step, text]) => element("li", { "data-step": step }, element("span", {}, text)));
  const panel = element(
    "section",
    { class: "guide", "aria-label": "Three things to try" },
    element("ol", {}, ...items),
    element("button", { type: "button", class: "plain", onclick: () => panel.remove() }, "Hide"),
  );
  session.store.follow(["steps"], ({ steps }) => {
    items.forEach((item, i) => {
      const isDone = steps[item.dataset.step];
      item.classList.toggle("is-done", isDone);
      item.dataset.mark = isDone ? "✓" : `${i + 1}.`;
    });
  });
  return panel;
}
