/**
 * Requests to the service: its key, its problems as errors, and patience where it is busy or away.
 * @typedef {import("./calls.js").Call} Call
 * @typedef {{seconds: number, reason: string}} Wait
 * @typedef {{signal?: AbortSignal, onWait?: (wait: Wait) => void, onWork?: () => void}} Options
 */

import { ConnectionLost, events } from "./event_stream.js";

const KEY = "patronus-api-key";
const BUSY = [429, 503];
const MAX_ATTEMPTS = 6;
const TIMEOUT_MS = 150_000;
const LONGEST_WAIT_S = 30;

/** The service refused or failed; the message is its `detail`, as a sentence. */
export class Problem extends Error {
  /** @param {number} status @param {string} detail @param {number|null} retryAfterS */
  constructor(status, detail, retryAfterS = null) {
    super(sentence(detail));
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** Nobody answered. */
export class ServiceAway extends Error {
  constructor() {
    super("The service does not answer. It may have been stopped, or the network is down.");
  }
}

export class Api {
  /**
   * @param {{onKeyNeeded: () => void, sendAgain: (imageId: string, options: Options) => Promise<boolean>}} hooks
   *   sendAgain: a picture that the service does not keep any more; whether it does now
   */
  constructor({ onKeyNeeded, sendAgain }) {
    this.#onKeyNeeded = onKeyNeeded;
    this.#sendAgain = sendAgain;
    try {
      this.#key = sessionStorage.getItem(KEY) ?? "";
    } catch {
      this.#key = ""; // storage is off: the key lives as long as the page
    }
  }

  #onKeyNeeded;
  #sendAgain;
  #key;

  /** @param {string} key kept for this browser tab only */
  useKey(key) {
    this.#key = key;
    try {
      sessionStorage.setItem(KEY, key);
    } catch {
      // as above
    }
  }

  get hasKey() {
    return this.#key !== "";
  }

  /** The JSON that a call answers. @param {Call} call @param {Options} [options] @returns {Promise<any>} */
  json(call, options = {}) {
    return this.#patiently(call, options, async (signal) => {
      const response = await this.#fetch(call, "application/json", within(signal));
      return response.status === 204 ? null : response.json();
    });
  }

  /** An answer in another form. @returns {Promise<Blob>} */
  blob(call, accept, options = {}) {
    return this.#patiently(call, options, async (signal) => (await this.#fetch(call, accept, within(signal))).blob());
  }

  /**
   * The result of a call that is followed while it runs.
   * @param {Call} call @param {Options & {onProgress: (progress: any) => void}} options
   */
  follow(call, options) {
    return this.#patiently(call, options, async (signal) => {
      const response = await this.#opened(call, signal); // from here on silence ends it, however long it takes
      let result;
      for await (const { name, data } of events(response)) {
        if (name === "progress") options.onProgress(data);
        else if (name === "result") result = data; // and on to the end: to leave earlier would look like giving up
        else if (name === "error") throw new Problem(data.status, data.detail);
      }
      if (result === undefined) throw new ConnectionLost("the stream broke off");
      return result;
    });
  }

  /** The stream of a call, of which the service sends the beginning soon, if only a comment. */
  async #opened(call, signal) {
    const opening = new AbortController();
    const timer = setTimeout(() => opening.abort(new DOMException("no answer began", "TimeoutError")), TIMEOUT_MS);
    const either = signal ? AbortSignal.any([signal, opening.signal]) : opening.signal;
    try {
      return await this.#fetch(call, "text/event-stream", either);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Try again where the service is busy or away, after the time that it asks for; six times at most. */
  async #patiently({ body }, { signal, onWait, onWork }, work) {
    let isSentAgain = false;
    for (let attempt = 1; ; attempt++) {
      let wait;
      try {
        return await work(signal);
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof Problem && error.status === 404 && body?.image_id !== undefined && !isSentAgain) {
          isSentAgain = true;
          if (await this.#sendAgain(body.image_id, { signal, onWait, onWork })) continue;
        }
        wait = waitAfter(error, attempt);
        if (error instanceof Problem && error.status === 401) this.#onKeyNeeded();
        if (wait === null) throw error;
        if (attempt === MAX_ATTEMPTS) throw error instanceof Problem ? error : new ServiceAway();
      }
      onWait?.(wait);
      await pause(wait.seconds * 1000, signal);
      onWork?.();
    }
  }

  async #fetch({ method, path, query = {}, body }, accept, signal) {
    const headers = { Accept: accept };
    if (this.#key) headers["X-API-Key"] = this.#key;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const search = new URLSearchParams(query).toString();
    const response = await connected(
      fetch(search ? `${path}?${search}` : path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
      }),
    );
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

/** The signal, which also comes when an answer takes too long. @param {AbortSignal} [signal] */
function within(signal) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  return signal ? AbortSignal.any([signal, timeout]) : timeout;
}

async function connected(request) {
  try {
    return await request;
  } catch (error) {
    throw error instanceof TypeError ? new ConnectionLost(error.message) : error; // what fetch calls a network error
  }
}

/** @returns {Wait|null} null where trying again is of no use */
function waitAfter(error, attempt) {
  if (error instanceof Problem) {
    if (!BUSY.includes(error.status)) return null;
    const seconds = Math.min(error.retryAfterS ?? 2 ** (attempt - 1), LONGEST_WAIT_S);
    return { seconds, reason: error.status === 429 ? error.message : `The service is busy. ${error.message}` };
  }
  if (error instanceof ConnectionLost) {
    return { seconds: Math.min(2 ** (attempt - 1), 8), reason: "The service does not answer." };
  }
  if (error instanceof DOMException && error.name === "TimeoutError") {
    throw new Problem(504, "the service took longer than this page waits");
  }
  return null;
}

async function problemOf(response) {
  const retryAfter = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  let detail = `the service answered ${response.status} ${response.statusText}`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // not the service's own answer, but that of something in between
  }
  return new Problem(response.status, detail, Number.isFinite(retryAfter) ? retryAfter : null);
}

function sentence(detail) {
  const text = `${detail.charAt(0).toUpperCase()}${detail.slice(1)}`;
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
