/**
 * Edits: what is changed in s. Each has a target and sets it to a value, or to its 0.99 (max) or 0.01 quantile (min);
 * each target is edited once.
 * @typedef {{kind: "prototype", index: number} | {kind: "attribute", index: string}} Target an attribute's index: its name
 * @typedef {{target: Target, op: "set", value: number} | {target: Target, op: "max"|"min"}} Edit
 */

/** @param {number} index @returns {Target} */
export function prototypeTarget(index) {
  return { kind: "prototype", index };
}

/** @param {string} name @returns {Target} */
export function attributeTarget(name) {
  return { kind: "attribute", index: name };
}

/** The edits that are of prototypes, by their indices. @param {Edit[]} edits @returns {number[]} */
export function editedPrototypes(edits) {
  return edits.filter(({ target }) => target.kind === "prototype").map(({ target }) => target.index);
}

/** The same of attributes, by their names. @param {Edit[]} edits @returns {string[]} */
export function editedAttributes(edits) {
  return edits.filter(({ target }) => target.kind === "attribute").map(({ target }) => target.index);
}

/** @param {Target} target */
export function targetKey(target) {
  return `${target.kind}:${target.index}`;
}

/** @param {Edit[]} edits @param {Target} target @returns {Edit|undefined} */
export function editOf(edits, target) {
  return edits.find((edit) => targetKey(edit.target) === targetKey(target));
}

/** The edits with this one, in place of what was asked of its target. @param {Edit} edit @returns {Edit[]} */
export function withEdit(edits, edit) {
  const key = targetKey(edit.target);
  if (editOf(edits, edit.target) === undefined) return [...edits, edit];
  return edits.map((other) => (targetKey(other.target) === key ? edit : other));
}

/** @returns {Edit[]} */
export function withoutEdit(edits, target) {
  return edits.filter((edit) => targetKey(edit.target) !== targetKey(target));
}

/** An edit as the API takes it. @param {Edit} edit */
export function toApi({ target, op, value }) {
  return { [target.kind]: target.index, op, ...(value !== undefined && { value }) };
}
