/**
 * Attributes: labels of the training data that linear probes tell from s. Their values are log-odds.
 * @typedef {{name: string, auroc: number, low: number, high: number, prototypes: number[]}} Attribute as
 *   GET /prototypes lists them
 */

const TOLD_AUROC = 0.6;
/** Below, a probe hardly tells the attribute, and to move it says little. */

/** Those that can be edited with some sense. @param {Attribute[]|null} attributes null: a model without labels */
export function told(attributes) {
  return (attributes ?? []).filter(({ auroc }) => auroc >= TOLD_AUROC);
}

/** @param {string} name of an attribute */
export function readable(name) {
  return name.replaceAll("_", " ");
}

/** Where a slider may go: between the data's 0.01 and 0.99 quantiles, or half as far again. @returns {[number, number]} */
export function reachOf({ low, high }, extrapolate) {
  const beyond = extrapolate ? (high - low) / 2 : 0;
  return [low - beyond, high + beyond];
}

/** The log-odds that an edit asks for. @param {Attribute} attribute @param {import("./edits.js").Edit} edit */
export function askedOf({ low, high }, { op, value }) {
  return { set: value, max: high, min: low }[op];
}
