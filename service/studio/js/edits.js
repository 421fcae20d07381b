/**
 * Edits: what is changed in s. Each has a target and sets it to a value, and each target is edited once.
 * @typedef {{kind: "prototype", index: number}} Target
 * @typedef {{target: Target, op: "set", value: number}} Edit
 */

/** @param {number} index @returns {Target} */
export function prototypeTarget(index) {
  return { kind: "prototype", index };
}

/** @param {Target} target */
export function targetKey(target) {
  return `${target.kind}:${target.index}`;
}

/** @param {Edit[]} edits @param {Target} target @returns {Edit|undefined} */
export function editOf(edits, target) {
  return edits.find((edit) => targetKey(edit.target) === targetKey(target));
}

/** The edits with the target set to a value, in place of what was asked of it. @returns {Edit[]} */
export function withEdit(edits, target, value) {
  const edit = { target, op: "set", value };
  const key = targetKey(target);
  if (editOf(edits, target) === undefined) return [...edits, edit];
  return edits.map((other) => (targetKey(other.target) === key ? edit : other));
}

/** @returns {Edit[]} */
export function withoutEdit(edits, target) {
  return edits.filter((edit) => targetKey(edit.target) !== targetKey(target));
}

/** An edit as the API takes it. @param {Edit} edit */
export function toApi({ target, op, value }) {
  return { [target.kind]: target.index, op, value };
}
