/** All prototypes as cards. */

import { readable } from "../attributes.js";
import * as calls from "../calls.js";
import { element, pixelImage, select } from "../dom.js";
import { attributeText, EMERGENCE, fullNameOf, nameOf, pictureUrl } from "../prototypes.js";
import { facts } from "./prototype_dialog.js";

const ORDERS = {
  index: ["Number", ({ index }) => index],
  label: ["Agreement with a label", ({ attributes }) => -(attributes?.[0]?.auroc ?? 0)],
  emergence: ["Emergence, first to last", ({ emergence_timestep }) => -(emergence_timestep ?? -1)],
  spread: ["Spread over the data", ({ statistics }) => -(statistics?.std ?? 0)],
};

export function galleryView({ session, showCode, showDetails }) {
  let order = "index";
  const cards = element("ul", { class: "gallery" });
  const search = element("input", { type: "search", placeholder: "Name or label", "aria-label": "Find prototypes", oninput: () => arrange() });
  const code = element("button", { type: "button", class: "plain", onclick: () => showCode(calls.prototypes(session.state.model)) }, "Code");
  const count = element("span", { class: "muted", role: "status" });
  const view = element(
    "section",
    { class: "panel", "aria-labelledby": "gallery-title" },
    element(
      "div",
      { class: "panel-head" },
      element("h2", { id: "gallery-title" }, "All prototypes"),
      element("div", { class: "tools" }, select("Sorted by", Object.entries(ORDERS).map(([key, [text]]) => [key, text]), order, (value) => { order = value; arrange(); }), search, count, code),
    ),
    element("p", { class: "legend" }, `${EMERGENCE} On the cards: the median over samples.`),
    cards,
  );
  session.store.follow(["prototypes"], () => arrange());

  function arrange() {
    const { prototypes } = session.state;
    const wanted = search.value.trim().toLowerCase();
    const rank = ORDERS[order][1];
    const found = prototypes
      .filter((prototype) => `${fullNameOf(prototype)} ${(prototype.attributes ?? []).map(({ name }) => readable(name)).join(" ")}`.toLowerCase().includes(wanted))
      .sort((a, b) => rank(a) - rank(b) || a.index - b.index);
    code.disabled = prototypes.length === 0;
    count.textContent = prototypes.length === 0 ? "" : `${found.length} of ${prototypes.length}`;
    cards.replaceChildren(...found.map((prototype) => element("li", {}, card(prototype, showDetails))));
  }
  return view;
}

function card(prototype, showDetails) {
  const best = prototype.attributes?.[0];
  return element(
    "button",
    { type: "button", class: "card", "aria-label": `${fullNameOf(prototype)}: details`, onclick: () => showDetails(prototype.index) },
    pixelImage(pictureUrl(prototype), "", { class: "pixels card-picture" }),
    element("strong", {}, nameOf(prototype)),
    best && element("small", { class: "muted" }, attributeText(best)),
    facts([
      ["AUROC", best && best.auroc.toFixed(2)],
      ["Emerges", prototype.emergence_timestep === null ? null : `t = ${prototype.emergence_timestep}`],
    ]),
  );
}
