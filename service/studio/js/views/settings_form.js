/** How edits are made: the options of /edit and of /generate. */

import { DEFAULT_SETTINGS } from "../calls.js";
import { element, select } from "../dom.js";

export function settingsForm({ session }) {
  const form = element("div", { class: "settings" });
  const panel = element("details", { class: "panel settings-panel" }, element("summary", {}, "How it is done"), element("div", {}, form));
  session.store.follow(["settings"], ({ settings }) => {
    const focused = document.activeElement?.dataset.setting;
    form.replaceChildren(...fields(session, settings));
    form.querySelector(`[data-setting="${focused}"]`)?.focus();
  });
  return panel;
}

function fields(session, settings) {
  const choice = (name, label, options) =>
    select(label, options, settings[name], (value) => session.changeSettings({ [name]: value }), { "data-setting": name });
  const number = (name, label, min, max) => {
    const field = element("input", { type: "number", min, max, step: 1, value: settings[name], "data-setting": name, onchange: take });
    function take() {
      const value = Math.round(Number(field.value));
      session.changeSettings({ [name]: Number.isFinite(value) ? Math.min(max, Math.max(min, value)) : DEFAULT_SETTINGS[name] });
    }
    return element("label", { class: "field" }, element("span", {}, label), field);
  };
  const flag = (name, label) => {
    const box = element("input", { type: "checkbox", checked: settings[name], "data-setting": name, onchange: () => session.changeSettings({ [name]: box.checked }) });
    return element("label", { class: "field" }, element("span", {}, label), box);
  };
  const isEdit = settings.method === "edit";
  return [
    choice("method", "The picture is", [
      ["edit", "kept and edited"],
      ["generate", "sampled anew"],
    ]),
    number("steps", "Steps", 2, 200),
    ...(isEdit
      ? [
          choice("start", "Starts at", [
            ["full", "pure noise"],
            ["auto", "where it emerges"],
          ]),
          choice("preserve", "Holds", [
            ["none", "nothing else"],
            ["others", "all others"],
          ]),
          choice("inversion", "Inversion", [
            ["ddim", "DDIM"],
            ["bdia", "BDIA, exact"],
          ]),
          number("rounds", "Rounds", 1, 8),
        ]
      : [
          choice("sampler", "Sampler", [
            ["ddim", "DDIM"],
            ["dpmpp_2m", "DPM-Solver++"],
            ["ddpm", "DDPM"],
          ]),
          number("seed", "Seed", 0, 4294967295),
          number("num_images", "Pictures", 1, 4),
          choice("x_T", "Noise", [
            ["random", "of the seed"],
            ["inverted", "the picture's own"],
          ]),
        ]),
    flag("decouple", "Decouple"),
  ];
}
