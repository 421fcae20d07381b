/** Work of one panel, of which only the latest counts, and the line that says how it is doing. */

import { Problem, ServiceAway } from "./api.js";
import { element } from "./dom.js";

/** How a request is doing, for eyes (`<progress>`, a countdown) and for screen readers (a live region). */
export class StatusLine {
  #text = element("span", { role: "status" });
  #extra = element("span", { "aria-hidden": "true", class: "number" });
  #progress = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
  #alert = element("span", { role: "alert" });
  #retry = element("button", { type: "button", hidden: true }, "Try again");
  #ticking = 0;

  constructor() {
    this.element = element("div", { class: "status" }, this.#text, this.#extra, this.#progress, this.#alert, this.#retry);
    this.#retry.addEventListener("click", () => this.#onRetry());
  }

  #onRetry = () => {};

  idle(text = "") {
    this.#show("idle", text);
  }

  busy(text) {
    this.#show("busy", text);
    this.#progress.hidden = false;
    this.#progress.removeAttribute("value");
  }

  /** @param {number} fraction 0 to 1 @param {string} text beside it; not read out, it changes too often */
  advance(fraction, text) {
    this.#progress.value = fraction;
    this.#extra.textContent = text;
  }

  /** @param {import("./api.js").Wait} wait */
  waiting({ seconds, reason }) {
    this.#show("waiting", `${reason} Trying again in ${Math.ceil(seconds)} s.`);
    let left = Math.ceil(seconds);
    this.#ticking = setInterval(() => {
      left -= 1;
      this.#extra.textContent = left > 0 ? `${left} s` : "now";
    }, 1000);
  }

  /** @param {string} message @param {() => void} retry */
  failed(message, retry) {
    this.#show("failed", "");
    this.#alert.replaceChildren(element("strong", {}, "That did not work. "), message);
    this.#onRetry = retry;
    this.#retry.hidden = false;
  }

  #show(state, text) {
    clearInterval(this.#ticking);
    this.element.dataset.state = state;
    this.#text.textContent = text;
    this.#extra.textContent = "";
    this.#alert.replaceChildren();
    this.#progress.hidden = true;
    this.#retry.hidden = true;
  }
}

/** Whether an error is the service's own affair; any other is a fault of this page. */
function isExpected(error) {
  return error instanceof Problem || error instanceof ServiceAway;
}

export class Task {
  #running = null;

  /** @param {StatusLine} status */
  constructor(status = new StatusLine()) {
    this.status = status;
  }

  get isRunning() {
    return this.#running !== null;
  }

  /**
   * Run `work`, in place of what runs: that is aborted, and so is its request. Failures end in the status
   * line, with a button that starts the same work again.
   * @param {string} text what is going on
   * @param {(options: import("./api.js").Options) => Promise<string|void>} work resolves to what to say at the end
   */
  async start(text, work) {
    this.#running?.abort();
    const running = (this.#running = new AbortController());
    const options = {
      signal: running.signal,
      onWait: (wait) => this.status.waiting(wait),
      onWork: () => this.status.busy(text),
    };
    this.status.busy(text);
    try {
      const said = await work(options);
      if (this.#running === running) this.status.idle(said ?? "");
    } catch (error) {
      if (this.#running === running) this.status.failed(error.message, () => this.start(text, work));
      if (!running.signal.aborted && !isExpected(error)) console.error(error);
    } finally {
      if (this.#running === running) this.#running = null;
    }
  }

  /** Give up what runs, if anything does, and say nothing of it any more. */
  stop() {
    if (!this.isRunning) return;
    this.#running.abort();
    this.#running = null;
    this.status.idle();
  }
}
