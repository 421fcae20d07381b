/** Edits that a link brought are brought into view: each list scrolls within itself, and the page stays where it is. */

const LISTS = ".attributes, .bars";

/** @param {import("../store.js").Store} store @returns {() => void} to be called when a link has been opened */
export function editedRows(store) {
  let isDue = false;
  store.follow(["view"], reveal); // a link may open another view first
  function reveal() {
    if (!isDue || store.state.view !== "studio") return;
    isDue = false;
    for (const list of document.querySelectorAll(LISTS)) revealFirst(list);
  }
  return () => {
    isDue = true;
    reveal();
  };
}

/** Into the middle of the list, where it is not in view already. */
function revealFirst(list) {
  const row = list.querySelector(".is-edited");
  if (row === null) return;
  const frame = list.getBoundingClientRect();
  const { top, bottom, height } = row.getBoundingClientRect();
  if (top >= frame.top && bottom <= frame.bottom) return;
  list.scrollTop += top - frame.top - (frame.height - height) / 2;
}
