/** The page's state: one object, whose parts views follow. */

export class Store {
  #followers = [];

  /** @param {Record<string, any>} state */
  constructor(state) {
    this.state = state;
  }

  /** Replace parts of the state; those who follow one that is another object or value now hear of it, once. */
  update(parts) {
    const changed = new Set(Object.keys(parts).filter((name) => !Object.is(parts[name], this.state[name])));
    if (changed.size === 0) return;
    this.state = { ...this.state, ...parts };
    for (const { names, callback } of this.#followers) {
      if (names.some((name) => changed.has(name))) callback(this.state);
    }
  }

  /** Call `callback(state)` now, and whenever one of the parts changes. @param {string[]} names */
  follow(names, callback) {
    this.#followers.push({ names, callback });
    callback(this.state);
  }
}
