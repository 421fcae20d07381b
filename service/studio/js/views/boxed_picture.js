/** A picture with the places of prototypes drawn on it. */

import { element, pixelImage, pngUrl } from "../dom.js";

/**
 * @param {string} base64 @param {string} alt @param {[number, number, number]} shape channels, height, width
 * @param {([number, number, number, number]|null)[]} boxes [x0, y0, x1, y1]; the second is dashed
 */
export function boxed(base64, alt, [, height, width], boxes) {
  const drawnBoxes = boxes.map((box, i) => {
    if (box === null) return null;
    const mark = element("span", { class: `box${i > 0 ? " is-second" : ""}` });
    place(mark, box, height, width);
    return mark;
  });
  return element("div", { class: "boxed" }, pixelImage(pngUrl(base64), alt), ...drawnBoxes);
}

/** Put an element over the pixels of a box, whatever size the picture is shown at. */
export function place(mark, [x0, y0, x1, y1], height, width) {
  mark.style.left = `${(100 * x0) / width}%`;
  mark.style.top = `${(100 * y0) / height}%`;
  mark.style.width = `${(100 * (x1 - x0)) / width}%`;
  mark.style.height = `${(100 * (y1 - y0)) / height}%`;
}
