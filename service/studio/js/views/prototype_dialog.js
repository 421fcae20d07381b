import { element } from "../dom.js";
export function prototypeDialog(session) { const dialog = element("dialog"); return { element: dialog, show() {} }; }
