/** Elements in one expression, so that a view reads like the markup it makes. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element. `class` and other names are attributes (false and null leave one out, true sets it empty);
 * `onclick` and the like take functions; children are nodes, text, or null.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node|string|number|null|false)} children
 * @returns {any} an element of that tag
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. @returns {any} */
export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child != null && child !== false).map(asNode));
  return node;
}

function asNode(child) {
  return child instanceof Node ? child : String(child);
}

/** A pixel picture, enlarged without smoothing. @param {string|null} source a URL @param {string} alt */
export function pixelImage(source, alt, attributes = {}) {
  return element("img", { class: "pixels", ...attributes, src: source ?? EMPTY_IMAGE, alt, draggable: "false" });
}

/** One transparent pixel: an img without a source would be drawn as broken. */
export const EMPTY_IMAGE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

/** @param {string} base64 of a PNG file */
export function pngUrl(base64) {
  return `data:image/png;base64,${base64}`;
}

/** Labelled options of a select; `options` are [value, text], or of a group [its name, [[value, text], …]]. */
export function select(label, options, value, onchange, attributes = {}) {
  const field = element("select", { "aria-label": label, onchange: () => onchange(field.value), ...attributes });
  const made = ([key, text]) =>
    Array.isArray(text) ? element("optgroup", { label: key }, ...text.map(made)) : element("option", { value: key, selected: key === value }, text);
  field.append(...options.map(made));
  return element("label", { class: "field" }, element("span", {}, label), field);
}

let pointer = ""; // where the mouse was last
document.addEventListener("mousemove", (event) => (pointer = placeOf(event)), { capture: true });

/**
 * Listeners of a list's row that is looked at by pointing at it or by moving the focus to it. A row that the focus
 * scrolls under a mouse at rest is not pointed at.
 * @param {() => void} look
 */
export function lookedAt(look) {
  const enter = (event) => {
    const hasMoved = placeOf(event) !== pointer;
    if (hasMoved || !event.currentTarget.parentElement.contains(document.activeElement)) look();
  };
  return { onmouseenter: enter, onfocusin: look };
}

function placeOf({ screenX, screenY }) {
  return `${screenX} ${screenY}`;
}
