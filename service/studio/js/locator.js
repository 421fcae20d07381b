/** Where the prototype that is looked at is: asked once for each picture, and only when a look rests on it. */

import * as calls from "./calls.js";

const REST_MS = 90;

export class Locator {
  #known = new Map();
  #looking = null;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  #api;

  stop() {
    this.#looking?.abort();
    this.#looking = null;
  }

  /**
   * @param {string} model @param {import("./calls.js").Source} source
   * @param {string|null} edited base64 of the edited picture @param {number} index
   * @returns {Promise<any>} {original, edited} as POST /locate describes them, {problem}, or null when another
   *   look has come in between
   */
  async find(model, source, edited, index) {
    this.stop();
    const looking = (this.#looking = new AbortController());
    try {
      await new Promise((resolve) => setTimeout(resolve, REST_MS));
      if (looking.signal.aborted) return null;
      const [before, after] = await Promise.all([
        this.#locate(model, calls.pictureOf(source), index, looking.signal),
        edited === null ? null : this.#locate(model, { image: edited }, index, looking.signal),
      ]);
      return looking.signal.aborted ? null : { original: before, edited: after };
    } catch (error) {
      return looking.signal.aborted ? null : { problem: error.message };
    }
  }

  async #locate(model, picture, index, signal) {
    const key = `${model} ${index} ${picture.image ?? picture.image_id}`;
    if (!this.#known.has(key)) {
      const { prototypes } = await this.#api.json(calls.locate(model, picture, [index]), { signal });
      if (this.#known.size > 500) this.#known.clear();
      this.#known.set(key, prototypes[0]);
    }
    return this.#known.get(key);
  }
}
