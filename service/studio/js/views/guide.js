/**
 * First steps: four things to try, each of which the page also does when asked; hidden and done ones are remembered.
 * They are docked to the window's lower edge, so that *Show me* stays where it is whatever a step scrolls or opens.
 */

import { element } from "../dom.js";
import { editedPrototypes } from "../edits.js";
import { tellingMove } from "../prototypes.js";
import { revealEditedRows } from "./edited_rows.js";

const PROTOTYPE = "A prototype is a small pattern that the model has learned; its slider says how strongly the picture should show it.";
const ALL_DONE = "All four done. Now try any other prototype.";
const KEPT = "patronus-first-steps";
const STEPS = [
  ["edited", "Change", "Move a prototype's slider: the picture is made anew."],
  ["located", "Where", "Point at a prototype: boxes show where it acts."],
  ["timed", "When", "Scrub or play “When it appears”: the picture comes."],
  ["coupled", "Coupling", "Diagnose it: does it drag others along?"],
];

const SHOWN_IN = ["studio", "diagnose"]; // where the steps lead
const SHOWN_AT = { edited: ".pictures", located: ".where-line" };

/** @param {import("../session.js").Session} session */
export function guide(session) {
  const items = STEPS.map(([step, name, text]) =>
    element("li", { "data-step": step }, element("span", {}, element("strong", {}, name), ` ${text}`), element("span", { class: "only-read" })),
  );
  const demonstrate = element("button", { type: "button", class: "primary", onclick: demonstrateNext }, "Show me");
  const hide = element("button", { type: "button", class: "plain", onclick: () => conceal() }, "Hide");
  const introduction = element("p", {});
  const begun = new Set(); // steps that were shown: nobody who clicks on is shown one twice while it takes its time
  const panel = element(
    "section",
    { class: "guide", "aria-label": "First steps", tabindex: -1 },
    introduction,
    element("ol", {}, ...items),
    element("div", { class: "buttons" }, demonstrate, hide),
  );
  const kept = read();
  let { isHidden } = kept;
  session.store.update({ steps: { ...session.state.steps, ...kept.steps } });

  new ResizeObserver(() => document.documentElement.style.setProperty("--dock", `${panel.offsetHeight}px`)).observe(panel);

  session.store.follow(["steps"], ({ steps }) => {
    const [present] = undone();
    panel.classList.toggle("is-begun", Object.values(steps).some(Boolean) && present !== undefined);
    introduction.textContent = present === undefined ? ALL_DONE : PROTOTYPE;
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
  session.store.follow(["view"], place);
  session.store.follow(["source"], ({ source }) => (demonstrate.disabled = source === null));

  function undone() {
    return STEPS.map(([step]) => step).filter((step) => !session.state.steps[step]);
  }

  function demonstrateNext() {
    const left = undone();
    const step = left.find((name) => !begun.has(name)) ?? left[0]; // again, where it came to nothing
    begun.add(step);
    show(step);
  }

  /** Do a step for the user, where it can be seen. */
  function show(step) {
    const { activations, prototypes, edits } = session.state;
    const [edited] = editedPrototypes(edits);
    const { index, value } = tellingMove(prototypes, activations);
    if (step === "coupled") return session.diagnose(edited ?? index);
    session.show("studio");
    if (step === "timed") return session.play();
    if (step === "edited") {
      session.setEdit(index, value);
      revealEditedRows();
    } else {
      session.look(edited ?? index);
    }
    document.querySelector(SHOWN_AT[step]).scrollIntoView({ block: "nearest" });
  }

  function place() {
    panel.hidden = isHidden || !SHOWN_IN.includes(session.state.view);
  }

  function conceal() {
    isHidden = true;
    place();
    write();
    document.getElementById("main").focus();
  }

  function write() {
    try {
      localStorage.setItem(KEPT, JSON.stringify({ isHidden, steps: session.state.steps }));
    } catch {
      // storage is off: they come again with the page
    }
  }

  return {
    element: panel,
    /** Once more, for who has hidden them. */
    show() {
      isHidden = false;
      begun.clear();
      session.store.update({ view: "studio", steps: Object.fromEntries(STEPS.map(([step]) => [step, false])) });
      place(); // also where the studio is shown already
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
