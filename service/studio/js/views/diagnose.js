import { element } from "../dom.js";
export function diagnoseView(tools) { return element("section"); }
