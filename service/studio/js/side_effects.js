/** What an edit did, prototype by prototype, and attribute by attribute. */

import { standardised } from "./prototypes.js";

const NOTABLE_STDS = 0.5;
/** Of a prototype, in standard deviations; of attributes the service says what is notable. */

/**
 * @param {{call: any, response: any}} outcome of /edit
 * @param {import("./prototypes.js").Prototype[]} prototypes
 * @returns {{edited: {prototype: any, before: number, asked: number, achieved: number}[],
 *   attributes: {name: string, before: number, asked: number, achieved: number}[],
 *   others: {prototype: any, change: number}[],
 *   otherAttributes: {name: string, before: number, achieved: number, change: number, asked_change: number}[]|null}}
 *   others: by how many standard deviations from what was asked of them, the most first; that is what was before,
 *   unless an attribute moves them all. otherAttributes: as POST /edit describes them; null: a model without labels
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
  const otherAttributes = response.other_attributes?.filter(({ is_notable }) => is_notable) ?? null;
  return { edited, attributes: response.attributes, others, otherAttributes };
}
