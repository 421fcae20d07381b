/** How an edit is made: what may be chosen, and what it is where nothing was. */

/** Their values, each with what the page calls it. */
export const CHOICES = {
  method: [
    ["edit", "kept and edited"],
    ["generate", "sampled anew"],
  ],
  start: [
    ["full", "pure noise"],
    ["auto", "where it emerges"],
  ],
  preserve: [
    ["none", "none"],
    ["others", "all others"],
  ],
  inversion: [
    ["ddim", "DDIM"],
    ["bdia", "BDIA, exact"],
  ],
  sampler: [
    ["ddim", "DDIM"],
    ["dpmpp_2m", "DPM-Solver++"],
    ["ddpm", "DDPM"],
  ],
  x_T: [
    ["random", "of the seed"],
    ["inverted", "the picture's own"],
  ],
};

/** From and to, both included. */
export const RANGES = { steps: [2, 200], rounds: [1, 8], seed: [0, 4294967295], num_images: [1, 4] };

/** method: keep the picture (/edit), or sample anew under its activations (/generate). */
export const DEFAULT_SETTINGS = Object.freeze({
  method: "edit",
  steps: 20,
  extrapolate: false,
  decouple: false,
  start: "full",
  preserve: "none",
  inversion: "ddim",
  rounds: 4,
  sampler: "ddim",
  seed: 0,
  num_images: 1,
  x_T: "random",
});

/** The rounds an edit needs: what else it changes is taken back in the second at the earliest. @param {string[]} held attributes */
export function leastRounds({ preserve }, held) {
  return preserve === "others" || held.length > 0 ? 2 : RANGES.rounds[0];
}

/** The value of a setting that a text stands for; the usual one where it stands for none. @param {string} text */
export function settingFrom(name, text) {
  if (name in RANGES) {
    const [low, high] = RANGES[name];
    const value = text.trim() === "" ? NaN : Math.round(Number(text));
    return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : DEFAULT_SETTINGS[name];
  }
  if (name in CHOICES) return CHOICES[name].some(([value]) => value === text) ? text : DEFAULT_SETTINGS[name];
  return text === "true";
}
