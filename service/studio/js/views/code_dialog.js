import { element } from "../dom.js";
export function codeDialog(session) { const dialog = element("dialog"); return { element: dialog, show() {} }; }
