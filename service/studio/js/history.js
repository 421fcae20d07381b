/** Undo and redo over snapshots. */

const SAME_GESTURE_MS = 900;

export class History {
  #past = [];
  #future = [];
  #lastGesture = null;
  #lastTime = -Infinity;

  /**
   * Keep what was before a change. Changes by one gesture (a slider that is dragged) are undone together.
   * @param {any} snapshot @param {string} gesture @param {number} now in milliseconds
   */
  record(snapshot, gesture, now = performance.now()) {
    const continues = gesture === this.#lastGesture && now - this.#lastTime < SAME_GESTURE_MS;
    if (!continues) this.#past.push(snapshot);
    this.#future = [];
    this.#lastGesture = gesture;
    this.#lastTime = now;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** The snapshot to go back to; `present` is what redo comes back to. */
  undo(present) {
    return this.#step(this.#past, this.#future, present);
  }

  redo(present) {
    return this.#step(this.#future, this.#past, present);
  }

  clear() {
    this.#past = [];
    this.#future = [];
    this.#lastGesture = null;
  }

  #step(from, to, present) {
    if (from.length === 0) return present;
    to.push(present);
    this.#lastGesture = null;
    return from.pop();
  }
}
