/**
 * Prototypes as the page speaks of them.
 * @typedef {{index: number, name: string|null, statistics: {mean: number, std: number, min: number, max: number,
 *   quantiles: Record<string, number>}|null, emergence_timestep: number|null, emergence_spread: number|null,
 *   emergence_share: number|null, attributes: {name: string, auroc: number, sign: 1|-1}[]|null,
 *   picture: string|null}} Prototype as GET /prototypes describes it
 */

import { readable } from "./attributes.js";
import { EMPTY_IMAGE, pngUrl } from "./dom.js";

/** The largest activation that there is: log((d + 1) / (d + 1e-4)) at d = 0. */
const LARGEST_ACTIVATION = Math.log(1e4);
const EXTRAPOLATED_STDS = 6;
const TELLING_AUROC = 0.7;
const LEAST_TELLING_AUROC = 0.55;

/** What it is to emerge, as `model/emergence.py` reckons it. */
export const EMERGENCE =
  "Emerges, or fades: the step, counted from noise, from which on the activation in the predicted picture x̂₀ stays beyond half " +
  "of its change from the first step to the last. Below 0.1 there is no such step: it was there already, or never comes.";

/** @param {Prototype} prototype */
export function nameOf(prototype) {
  return prototype.name ?? `Prototype ${prototype.index}`;
}

/** The number as well, where there is a name. @param {Prototype} prototype */
export function fullNameOf(prototype) {
  return prototype.name === null ? nameOf(prototype) : `${prototype.name} (prototype ${prototype.index})`;
}

/** @param {Prototype} prototype */
export function pictureUrl(prototype) {
  return prototype.picture === null ? EMPTY_IMAGE : pngUrl(prototype.picture);
}

/** What labels say of a prototype, or "". @param {Prototype} prototype */
export function hintOf(prototype) {
  const best = prototype.attributes?.[0];
  return best === undefined || best.auroc < TELLING_AUROC ? "" : attributeText(best);
}

/** @param {{name: string, sign: 1|-1}} attribute */
export function attributeText({ name, sign }) {
  return `${sign === 1 ? "more with" : "less with"} ${readable(name)}`;
}

/** In standard deviations from the mean over the training data; null where nobody measured these. */
export function standardised(prototype, activation) {
  const { mean, std } = prototype.statistics ?? {};
  return std > 0 ? (activation - mean) / std : null;
}

/** Where a slider may go: between the data's 0.01 and 0.99 quantiles, or beyond. @returns {[number, number]} */
export function rangeOf(prototype, extrapolate) {
  if (prototype.statistics === null) return [0, LARGEST_ACTIVATION];
  const { mean, std, quantiles } = prototype.statistics;
  if (!extrapolate) return [quantiles["0.01"], quantiles["0.99"]];
  return [
    Math.max(0, mean - EXTRAPOLATED_STDS * std),
    Math.min(LARGEST_ACTIVATION, mean + EXTRAPOLATED_STDS * std),
  ];
}

/**
 * An edit that shows something: of the prototype that is far from its upper end, and tells a label well, to that end.
 * @param {Prototype[]} prototypes @param {number[]} activations @returns {{index: number, value: number}}
 */
export function tellingMove(prototypes, activations) {
  const moves = prototypes.map((prototype) => {
    const { index, statistics, attributes } = prototype;
    const [, value] = rangeOf(prototype, false);
    const room = (value - activations[index]) / (statistics?.std || 1);
    const telling = Math.max(attributes?.[0]?.auroc ?? 0, LEAST_TELLING_AUROC) - 0.5;
    return { index, value, worth: telling * room };
  });
  return moves.reduce((best, move) => (move.worth > best.worth ? move : best));
}

/** A number with its sign, as +1.4 or −0.3. */
export function signed(value, digits = 1) {
  const sign = Number(value.toFixed(digits)) < 0 ? "−" : "+"; // of what is shown: there is no −0.0
  return `${sign}${Math.abs(value).toFixed(digits)}`;
}
