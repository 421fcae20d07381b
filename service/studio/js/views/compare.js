import { element } from "../dom.js";
export function compareView(tools) { return element("section"); }
