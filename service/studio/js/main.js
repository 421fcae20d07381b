/** Puts the page together, once. */

import { Api } from "./api.js";
import { element } from "./dom.js";
import { initialState, Session } from "./session.js";
import { Store } from "./store.js";
import { fromHash, toHash } from "./url_hash.js";
import { activationBars } from "./views/activation_bars.js";
import { attributeEdits } from "./views/attribute_edits.js";
import { codeDialog } from "./views/code_dialog.js";
import { compareView } from "./views/compare.js";
import { diagnoseView } from "./views/diagnose.js";
import { editedRowsOfLinks } from "./views/edited_rows.js";
import { galleryView } from "./views/gallery.js";
import { guide } from "./views/guide.js";
import { keyDialog } from "./views/key_dialog.js";
import { pageControls, viewButtons } from "./views/page_header.js";
import { pictures } from "./views/pictures.js";
import { prototypeDialog } from "./views/prototype_dialog.js";
import { settingsForm } from "./views/settings_form.js";
import { sourcePanel } from "./views/source_panel.js";
import { timeline } from "./views/timeline.js";

const store = new Store({ ...initialState(), view: wanted().view });
const api = new Api({ onKeyNeeded: () => key.show(true), sendAgain: (...picture) => session.sendAgain(...picture) });
const session = new Session(api, store);

const code = codeDialog(session);
const details = prototypeDialog({ session, showCode: code.show });
const introduction = guide(session);
const tools = { session, showCode: code.show, showDetails: details.show };
const views = {
  studio: element(
    "div",
    { class: "studio" },
    sourcePanel(tools),
    pictures(tools),
    element("div", { class: "edits-column" }, attributeEdits(tools), activationBars(tools)),
    element("div", { class: "stack" }, timeline(tools), settingsForm(tools)),
  ),
  prototypes: galleryView(tools),
  compare: compareView(tools),
  diagnose: diagnoseView(tools),
};

const key = keyDialog(api, () => (store.state.source === null ? open() : session.proceed()));

document.getElementById("views").append(viewButtons(session));
document.getElementById("page-controls").append(...pageControls(tools, () => key.show(false), introduction.show));
const main = document.getElementById("main");
main.replaceChildren(introduction.element, session.loading.status.element, ...Object.values(views));
document.body.append(code.element, details.element, key.element);

store.follow(["view"], ({ view }) => {
  for (const [name, node] of Object.entries(views)) {
    if (name !== view && node.contains(document.activeElement)) main.focus();
    node.hidden = name !== view;
  }
});

const revealEdits = editedRowsOfLinks(store);

/** Open what the address asks for. */
async function open() {
  await session.start(wanted());
  revealEdits();
}

const REST_MS = 100;

/** The user's own picture, as the tab keeps it over a reload: a link holds only what it is told to. */
function uploadOf({ origin, kept }) {
  return origin.kind === "upload" && kept !== null ? { name: origin.name, base64: kept } : null;
}

/** What the address asks for, with the picture that was here before a reload. */
function wanted() {
  const asked = fromHash(location.hash);
  const upload = history.state?.upload;
  return asked.origin === null && upload ? { ...asked, origin: { kind: "upload", ...upload } } : asked;
}

// Back and forward go through the views; what else the link holds is the present state's, whatever the view. Each
// entry of the browser's history says which opening of a link it belongs to: on the way to another, that is opened.
let opened = history.state?.opened ?? Date.now();
let writing = 0;
store.follow(["model", "source", "edits", "held", "settings", "view"], () => {
  clearTimeout(writing);
  if (isInAnotherView()) write();
  else writing = setTimeout(write, REST_MS); // browsers refuse to have it written at every move of a slider
});
function isInAnotherView() {
  return history.state !== null && history.state.view !== store.state.view;
}
function write() {
  const { source, view } = store.state;
  if (source === null) return; // not there yet: the link is still to be followed
  history[isInAnotherView() ? "pushState" : "replaceState"]({ view, opened, upload: uploadOf(source) }, "", toHash(store.state));
}
window.addEventListener("popstate", ({ state }) => {
  if (state?.opened === opened) return session.show(state.view);
  clearTimeout(writing); // what is shown does not belong to this entry
  opened = state?.opened ?? Date.now(); // none where another link was put into the address
  open();
});
document.querySelector(".skip-link").addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the state, and no place in the page
  main.focus();
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLElement && event.target.matches("input:not([type=range]):not([type=checkbox]), textarea");
  if (!(event.ctrlKey || event.metaKey) || isTyping) return;
  const letter = event.key.toLowerCase();
  if (letter !== "z" && letter !== "y") return;
  event.preventDefault();
  if (letter === "y" || event.shiftKey) session.redo();
  else session.undo();
});

open();
