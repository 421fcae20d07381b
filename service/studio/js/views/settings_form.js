/** How edits are made: the options of /edit and of /generate. */

import { element, select } from "../dom.js";
import { CHOICES, RANGES, settingFrom } from "../settings.js";

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
  const choice = (name, label) =>
    select(label, CHOICES[name], settings[name], (value) => session.changeSettings({ [name]: value }), { "data-setting": name });
  const number = (name, label) => {
    const [min, max] = RANGES[name];
    const field = element("input", { type: "number", min, max, step: 1, value: settings[name], "data-setting": name, onchange: take });
    function take() {
      field.value = settingFrom(name, field.value);
      session.changeSettings({ [name]: Number(field.value) });
    }
    return element("label", { class: "field" }, element("span", {}, label), field);
  };
  const flag = (name, label) => {
    const box = element("input", { type: "checkbox", checked: settings[name], "data-setting": name, onchange: () => session.changeSettings({ [name]: box.checked }) });
    return element("label", { class: "field" }, element("span", {}, label), box);
  };
  const ofMethod =
    settings.method === "edit"
      ? [choice("start", "Starts at"), choice("preserve", "Holds"), choice("inversion", "Inversion"), number("rounds", "Rounds")]
      : [choice("sampler", "Sampler"), number("seed", "Seed"), number("num_images", "Pictures"), choice("x_T", "Noise")];
  return [choice("method", "The picture is"), number("steps", "Steps"), ...ofMethod, flag("decouple", "Decouple")];
}
