import { element } from "../dom.js";
export function galleryView(tools) { return element("section"); }
