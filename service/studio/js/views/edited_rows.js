/** The rows of what is edited, brought into view: each list scrolls within itself, and the page stays where it is. */

const LISTS = ".attributes, .bars";

/** In every list that is shown, the first of them, into the middle where it is not in view already. */
export function revealEditedRows() {
  for (const list of document.querySelectorAll(LISTS)) {
    const row = list.querySelector(".is-edited");
    if (row === null) continue;
    const frame = list.getBoundingClientRect();
    const { top, bottom, height } = row.getBoundingClientRect();
    if (top < frame.top || bottom > frame.bottom) list.scrollTop += top - frame.top - (frame.height - height) / 2;
  }
}

/**
 * The same once a link has been opened, as soon as the studio is shown: a link may open another view first.
 * @param {import("../store.js").Store} store @returns {() => void} to be called when it has been opened
 */
export function editedRowsOfLinks(store) {
  let isDue = false;
  store.follow(["view"], reveal);
  function reveal() {
    if (!isDue || store.state.view !== "studio") return;
    isDue = false;
    revealEditedRows();
  }
  return () => {
    isDue = true;
    reveal();
  };
}
