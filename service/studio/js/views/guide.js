/** First steps: four things to try, each of which the page also does when asked; hidden and done ones are remembered. */

import { element } from "../dom.js";
import { tellingMove } from "../prototypes.js";

const KEPT = "patronus-first-steps";
const STEPS = [
  ["edited", "Change", "Move a prototype's slider: the picture is made anew."],
  ["located", "Where", "Point at a prototype: boxes show where it acts."],
  ["timed", "When", "Scrub through the denoising under “When it appears”."],
  ["coupled", "Coupling", "Diagnose it: does it drag others along?"],
];

/** @param {import("../session.js").Session} session */
export function guide(session) {
  const items = STEPS.map(([step, name, text]) =>
    element("li", { "data-step": step }, element("span", {}, element("strong", {}, name), ` ${text}`), element("span", { class: "only-read" })),
  );
  const demonstrate = element("button", { type: "button", onclick: () => show(next()) }, "Show me");
  const hide = element("button", { type: "button", class: "plain", onclick: () => conceal() }, "Hide");
  const panel = element(
    "section",
    { class: "guide", "aria-label": "First steps", tabindex: -1 },
    element("p", {}, "A prototype is a small pattern that the model has learned; its slider says how strongly the picture should show it."),
    element("ol", {}, ...items),
    element("div", { class: "buttons" }, demonstrate, hide),
  );
  const kept = read();
  panel.hidden = kept.isHidden;
  session.store.update({ steps: { ...session.state.steps, ...kept.steps } });

  const next = () => STEPS.map(([step]) => step).find((step) => !session.state.steps[step]);
  session.store.follow(["steps"], ({ steps }) => {
    const present = next();
    items.forEach((item, i) => {
      const { step } = item.dataset;
      item.classList.toggle("is-done", steps[step]);
      item.dataset.mark = steps[step] ? "✓" : `${i + 1}.`;
      item.lastChild.textContent = steps[step] ? " Done." : "";
      if (step === present) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    if (present === undefined && document.activeElement === demonstrate) hide.focus();
    demonstrate.hidden = present === undefined;
    write();
  });
  session.store.follow(["source"], ({ source }) => (demonstrate.disabled = source === null));

  /** Do a step for the user. */
  function show(step) {
    const { activations, prototypes, edits, settings } = session.state;
    const edited = edits.find(({ target }) => target.kind === "prototype")?.target.index;
    const { index, value } = tellingMove(prototypes, activations);
    if (step === "edited" || edited === undefined) session.setEdit(index, value);
    if (step === "located") session.look(edited ?? index);
    if (step === "timed") session.play();
    if (step === "coupled") session.diagnose(edited ?? index);
  }

  function conceal() {
    panel.hidden = true;
    write();
    document.getElementById("main").focus();
  }

  function write() {
    try {
      localStorage.setItem(KEPT, JSON.stringify({ isHidden: panel.hidden, steps: session.state.steps }));
    } catch {
      // storage is off: they come again with the page
    }
  }

  return {
    element: panel,
    /** Once more, for who has hidden them. */
    show() {
      panel.hidden = false;
      session.store.update({ view: "studio", steps: Object.fromEntries(STEPS.map(([step]) => [step, false])) });
      panel.focus();
    },
  };
}

function read() {
  try {
    const { isHidden = false, steps = {} } = JSON.parse(localStorage.getItem(KEPT)) ?? {};
    return { isHidden: isHidden === true, steps };
  } catch {
    return { isHidden: false, steps: {} }; // storage is off, or holds something else
  }
}
