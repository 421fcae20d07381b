/** What an edit did, prototype by prototype, and attribute by attribute. */

import { standardised } from "./prototypes.js";

const NOTABLE_STDS = 0.5;
/** Of a prototype, in standard deviations; of attributes the service says what is notable. */

/**
 * @typedef {{name: string, before: number, achieved: number, change: number, asked_change: number, is_notable: boolean}}
 *   OtherAttribute as POST /edit describes it
 * @param {{call: any, response: any}} outcome of /edit
 * @param {import("./prototypes.js").Prototype[]} prototypes
 * @returns {{edited: {prototype: any, before: number, asked: number, achieved: number}[],
 *   attributes: {name: string, before: number, asked: number, achieved: number}[],
 *   others: {prototype: any, change: number}[], heldAttributes: OtherAttribute[], otherAttributes: OtherAttribute[]|null}}
 *   others: by how many standard deviations from what was asked of them, the most first; that is what was before,
 *   unless an attribute moves them all. heldAttributes: whether they moved or not; otherAttributes: those that moved,
 *   and are not held; null: a model without labels
 */
export function changes({ call, response }, prototypes) {
  const { before, asked, achieved } = response.activations;
  const chosen = new Set(call.body.edits.map(({ prototype }) => prototype).filter((j) => j !== undefined));
  const edited = [...chosen].map((j) => ({ prototype: prototypes[j], before: before[j], asked: asked[j], achieved: achieved[j] }));
  const others = prototypes
    .filter(({ index, statistics }) => !chosen.has(index) && statistics !== null)
    .map((prototype) => ({
      prototype,
      change: standardised(prototype, achieved[prototype.index]) - standardised(prototype, asked[prototype.index]),
    }))
    .filter(({ change }) => Math.abs(change) >= NOTABLE_STDS)
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
  const isHeld = ({ name }) => response.preserved_attributes.includes(name);
  const heldAttributes = (response.other_attributes ?? []).filter(isHeld);
  const otherAttributes = response.other_attributes?.filter((attribute) => attribute.is_notable && !isHeld(attribute)) ?? null;
  return { edited, attributes: response.attributes, others, heldAttributes, otherAttributes };
}
