/** How edits are made: the options of /edit and of /generate. */

import { element, select } from "../dom.js";
import { CHOICES, leastRounds, RANGES, settingFrom } from "../settings.js";

export function settingsForm({ session }) {
  const form = element("div", { class: "settings" });
  const panel = element("details", { class: "panel settings-panel" }, element("summary", {}, "How it is done"), element("div", {}, form));
  session.store.follow(["settings", "held"], ({ settings, held }) => {
    const focused = document.activeElement?.dataset.setting;
    form.replaceChildren(...fields(session, settings, held));
    form.querySelector(`[data-setting="${focused}"]`)?.focus();
  });
  return panel;
}

function fields(session, settings, held) {
  const choice = (name, label) =>
    select(label, CHOICES[name], settings[name], (value) => session.changeSettings({ [name]: value }), { "data-setting": name });
  const number = (name, label, least = RANGES[name][0]) => {
    const max = RANGES[name][1];
    const field = element("input", { type: "number", min: least, max, step: 1, value: Math.max(least, settings[name]), "data-setting": name, onchange: take });
    function take() {
      field.value = Math.max(least, settingFrom(name, field.value));
      session.changeSettings({ [name]: Number(field.value) });
    }
    return element("label", { class: "field" }, element("span", {}, label), field);
  };
  const flag = (name, label) => {
    const box = element("input", { type: "checkbox", checked: settings[name], "data-setting": name, onchange: () => session.changeSettings({ [name]: box.checked }) });
    return element("label", { class: "field" }, element("span", {}, label), box);
  };
  const rounds = leastRounds(settings, held);
  const ofMethod =
    settings.method === "edit"
      ? [choice("start", "Starts at"), choice("preserve", "Held prototypes"), choice("inversion", "Inversion"), number("rounds", rounds > 1 ? `Rounds, ${rounds} or more to hold` : "Rounds", rounds)]
      : [choice("sampler", "Sampler"), number("seed", "Seed"), number("num_images", "Pictures"), choice("x_T", "Noise")];
  return [choice("method", "The picture is"), number("steps", "Steps"), ...ofMethod, flag("decouple", "Decouple")];
}
