/**
 * What a user can do, as verbs: each changes the store, and asks the service where it must.
 * Views call these and follow the store; none of them sends a request that changes anything shown elsewhere.
 * @typedef {import("./calls.js").Source} Source
 */

import * as calls from "./calls.js";
import { Problem } from "./api.js";
import { reachOf, told } from "./attributes.js";
import { reduced } from "./downloads.js";
import { attributeTarget, editOf, prototypeTarget, withEdit, withoutEdit } from "./edits.js";
import { History } from "./history.js";
import { pngUrl } from "./dom.js";
import { rangeOf } from "./prototypes.js";
import { DEFAULT_SETTINGS } from "./settings.js";
import { Task } from "./task.js";

const SETTLE_MS = 140;
/** How long a slider must rest before its edit is sent. */

const DENOISING = "Denoising…";
const MAX_FILE_BYTES = 20e6;
/** Of a picture's file: the service takes bodies of 32 MiB unless it is told otherwise, and base64 adds a third. */

const KEPT_CHARACTERS = 2_000_000;
/** The browser's history is no place for larger ones. */

const NO_LOOK = { focus: null, focusAttribute: null };

export function initialState() {
  return {
    models: [],
    model: null, // its name
    prototypes: [],
    attributes: [], // see attributes.js; none for a model without labels
    references: null, // base64 pictures; null before they are known
    source: null, // see calls.js
    activations: null, // s of the source
    edits: [],
    held: [], // names of attributes that edits of the picture leave where they are
    settings: DEFAULT_SETTINGS,
    live: null, // {edited, reconstruction}: URLs of pictures that are being denoised
    outcome: null, // {call, response} of the last change that was finished
    focus: null, // index of the prototype that is looked at
    focusAttribute: null, // name of the attribute that is looked at, by way of that prototype
    view: "studio",
    compared: [0, 1],
    diagnosed: null, // see edits.js: the target that a diagnosis is wanted of
    isPlaying: false, // whether the timeline shows by itself how the picture comes
    steps: { edited: false, located: false, timed: false, coupled: false }, // what a newcomer has done already
    canUndo: false,
    canRedo: false,
  };
}

export class Session {
  #history = new History();
  #settling = 0;
  #reading = null; // the source that is being encoded, until it is
  #isOpening = false; // from the start of the page, or of a link, until its model is there
  #early = null; // the file that was chosen before its model was there

  /** @param {import("./api.js").Api} api @param {import("./store.js").Store} store */
  constructor(api, store) {
    this.api = api;
    this.store = store;
    this.loading = new Task();
    this.sourcing = new Task();
    this.changing = new Task();
  }

  get state() {
    return this.store.state;
  }

  /** Go on with what is shown, under another key. */
  proceed() {
    this.#changeSoon(0);
  }

  /** Ask what is served, and open what the link names. @param {ReturnType<import("./url_hash.js").fromHash>} wanted */
  start(wanted) {
    this.#leave();
    this.#isOpening = true;
    const { view: before } = this.state;
    return this.loading.start("Asking the service which models it has…", async (options) => {
      const { models } = await this.api.json(calls.models(), options);
      this.store.update({ models });
      const name = models.some(({ name }) => name === wanted.model) ? wanted.model : models[0].name;
      await this.#load(name, options);
      const edits = wanted.edits.filter(({ target }) => this.#has(target));
      const held = wanted.held.filter((name) => this.#has(attributeTarget(name)));
      const view = this.state.view === before ? wanted.view : this.state.view; // another was chosen meanwhile
      this.store.update({ view, edits, held: heldBeside(edits, held), settings: wanted.settings });
      await this.#begin(wanted.origin);
    });
  }

  /** The user's own picture goes along. @param {string} name */
  openModel(name) {
    return this.loading.start(`Opening ${name}…`, async (options) => {
      const source = await this.#load(name, options);
      if (this.#early === null && source?.origin.kind === "upload") await this.#use({ ...source, imageId: null });
      else await this.#begin(null);
    });
  }

  /** Read what there is to know of a model, and leave the one before. @returns {Promise<Source|null>} what was shown, or chosen meanwhile */
  async #load(model, options) {
    const [{ prototypes, attributes }, { images }] = await Promise.all([
      this.api.json(calls.prototypes(model), options),
      this.api.json(calls.references(model), options),
    ]);
    this.#isOpening = false;
    const source = this.#reading ?? this.state.source;
    this.#leave();
    this.#history.clear();
    this.store.update({
      model,
      prototypes,
      attributes: told(attributes),
      references: images,
      source: null,
      activations: null,
      edits: [],
      held: [],
      live: null,
      outcome: null,
      ...NO_LOOK,
      compared: mostAlike(prototypes),
      diagnosed: null,
      ...this.#undoState(),
    });
    return source;
  }

  /** What was still asked for what is left has no place in what comes, nor in its entry of the browser's history. */
  #leave() {
    clearTimeout(this.#settling);
    this.changing.stop();
    this.sourcing.stop();
  }

  #has({ kind, index }) {
    const { prototypes, attributes } = this.state;
    return kind === "prototype" ? index < prototypes.length : attributes.some(({ name }) => name === index);
  }

  /** Show the picture that was chosen meanwhile, or else what is to be shown at first. */
  #begin(origin) {
    const early = this.#early;
    this.#early = null;
    return early === null ? this.#restore(origin) : this.useFile(early);
  }

  #restore(origin) {
    if (origin?.kind === "sample") return this.samplePrior(origin.seed);
    if (origin?.kind === "upload") return this.useUpload(origin.name, origin.base64, pngUrl(origin.base64));
    const index = origin?.kind === "reference" ? origin.index : 0;
    return this.state.references.length > 0 ? this.useReference(Math.min(index, this.state.references.length - 1)) : undefined;
  }

  useReference(index) {
    const base64 = this.state.references[index];
    return this.#use({ origin: { kind: "reference", index }, base64, url: pngUrl(base64), imageId: null });
  }

  /** @param {File} file */
  useFile(file) {
    if (this.#isOpening) {
      this.#early = file;
      return;
    }
    return this.sourcing.start("Reading the picture…", async (options) => {
      if (file.size > MAX_FILE_BYTES) throw new Problem(413, `this file has ${megabytes(file.size)}, this page takes up to ${megabytes(MAX_FILE_BYTES)}`);
      const url = await dataUrl(file);
      const origin = { kind: "upload", name: file.name || "pasted picture" };
      await this.#encode({ origin, base64: url.slice(url.indexOf(",") + 1), url, imageId: null }, options);
    });
  }

  /** @param {string} name of the file @param {string} base64 @param {string} url of the picture, to be shown */
  useUpload(name, base64, url) {
    return this.#use({ origin: { kind: "upload", name }, base64, url, imageId: null });
  }

  samplePrior(seed) {
    return this.sourcing.start("Sampling a picture from the prior…", async (options) => {
      const call = calls.samplePrior(this.state.model, seed);
      const { images } = await this.api.follow(call, {
        ...options,
        onProgress: ({ step, steps }) => this.sourcing.status.advance(step / steps, `${step} of ${steps}`),
      });
      const source = { origin: { kind: "sample", seed }, base64: images[0].image, url: pngUrl(images[0].image), imageId: null };
      await this.#encode(source, options);
    });
  }

  #use(source) {
    return this.sourcing.start("Reading the picture…", (options) => this.#encode(source, options));
  }

  async #encode(source, options) {
    this.#reading = source;
    try {
      const kept = await this.#keepable(source);
      const { images } = await this.api.json(calls.encode(this.state.model, source), options);
      this.#present({ ...source, imageId: images[0].image_id, kept }, images[0].activations);
    } finally {
      if (this.#reading === source) this.#reading = null;
    }
  }

  /** The user's own picture, as the tab keeps it over a reload: a large one is reduced, as in a link. @returns {Promise<string|null>} base64 */
  async #keepable({ origin, base64, url }) {
    if (origin.kind !== "upload" || base64.length <= KEPT_CHARACTERS) return base64;
    const { models, model } = this.state;
    const [, height, width] = models.find(({ name }) => name === model).image_shape;
    return reduced(url, width, height).catch(() => null); // the browser cannot read it; the service says whether it can
  }

  #present(source, activations) {
    this.changing.stop();
    this.store.update({
      source,
      activations,
      live: null,
      outcome: null,
      ...(this.state.source !== null && NO_LOOK), // what was looked at before there was a picture is to be shown
    });
    this.#changeSoon(0);
  }

  /** @param {number} index @param {number} value */
  setEdit(index, value) {
    const [low, high] = rangeOf(this.state.prototypes[index], this.state.settings.extrapolate);
    this.#record(`slider ${index}`);
    this.#edit(withEdit(this.state.edits, { target: prototypeTarget(index), op: "set", value: Math.min(high, Math.max(low, value)) }));
  }

  /** @param {string} name of an attribute @param {number} logOdds */
  setAttribute(name, logOdds) {
    const [low, high] = reachOf(this.state.attributes.find((attribute) => attribute.name === name), this.state.settings.extrapolate);
    this.#record(`slider of ${name}`);
    this.#edit(withEdit(this.state.edits, { target: attributeTarget(name), op: "set", value: Math.min(high, Math.max(low, logOdds)) }));
  }

  /** To the end of what the data has. @param {string} name of an attribute @param {"max"|"min"} op */
  pushAttribute(name, op) {
    this.#record(`${op} of ${name}`);
    this.#edit(withEdit(this.state.edits, { target: attributeTarget(name), op }));
  }

  /** Leave an attribute where it is in the picture, whatever is edited. @param {string} name @param {boolean} isHeld */
  holdAttribute(name, isHeld) {
    this.#record(`hold of ${name}`);
    const others = this.state.held.filter((other) => other !== name);
    this.#edit(this.state.edits, isHeld ? [...others, name] : others);
  }

  resetEdit(index) {
    this.#reset(prototypeTarget(index));
  }

  /** @param {string} name */
  resetAttribute(name) {
    this.#reset(attributeTarget(name));
  }

  #reset(target) {
    if (editOf(this.state.edits, target) === undefined) return;
    this.#record(`reset ${target.kind} ${target.index}`);
    this.#edit(withoutEdit(this.state.edits, target));
  }

  resetEdits() {
    this.#record("reset");
    this.#edit([]);
  }

  #edit(edits, held = this.state.held) {
    this.store.update({ edits, held: heldBeside(edits, held), ...this.#undoState() });
    this.#changeSoon(SETTLE_MS);
  }

  changeSettings(parts) {
    this.#record(`settings ${Object.keys(parts)}`);
    this.store.update({ settings: { ...this.state.settings, ...parts }, ...this.#undoState() });
    this.#changeSoon(SETTLE_MS);
  }

  undo() {
    if (this.#history.canUndo) this.#travel(this.#history.undo(this.#snapshot()));
  }

  redo() {
    if (this.#history.canRedo) this.#travel(this.#history.redo(this.#snapshot()));
  }

  #travel({ edits, held, settings }) {
    this.store.update({ edits, held, settings, ...this.#undoState() });
    this.#changeSoon(0);
  }

  #record(gesture) {
    this.#history.record(this.#snapshot(), gesture);
  }

  #snapshot() {
    return { edits: this.state.edits, held: this.state.held, settings: this.state.settings };
  }

  #undoState() {
    return { canUndo: this.#history.canUndo, canRedo: this.#history.canRedo };
  }

  /**
   * Send the source's picture once more, to a service that no longer keeps it: it was restarted, or saw many others.
   * @param {string} imageId @returns {Promise<boolean>} whether it is kept again
   */
  async sendAgain(imageId, options) {
    const { model, source } = this.state;
    if (source?.imageId !== imageId) return false;
    await this.api.json(calls.encode(model, source), options);
    return true;
  }

  /** The request that the present state stands for; null where there is nothing to ask. */
  presentCall() {
    const { model, source, edits, held, settings } = this.state;
    const isAsked = source !== null && (edits.length > 0 || settings.method === "generate");
    return isAsked ? calls.change(model, source, edits, held, settings) : null;
  }

  /** What a picture alone stands for: its activations. */
  plainCall() {
    const { model, source } = this.state;
    return calls.encode(model, source);
  }

  /** Send the present edits once they have rested; what runs for older ones is given up at once. */
  #changeSoon(milliseconds) {
    clearTimeout(this.#settling);
    this.changing.stop();
    const call = this.presentCall();
    if (call === null) {
      this.changing.status.idle();
      this.store.update({ live: null, outcome: null });
      return;
    }
    this.changing.status.busy(DENOISING); // at once, so that the line does not come and go while a slider moves
    this.#settling = setTimeout(() => this.#change(call), milliseconds);
  }

  #change(call) {
    return this.changing.start(DENOISING, async (options) => {
      const live = { edited: null, reconstruction: null };
      const onProgress = (progress) => {
        this.changing.status.advance(progress.step / progress.steps, stageText(progress));
        if (progress.preview === undefined) return;
        live[call.path === "/edit" && progress.image === 1 ? "reconstruction" : "edited"] = pngUrl(progress.preview);
        this.store.update({ live: { ...live } });
      };
      const response = await this.api.follow(call, { ...options, onProgress }).catch((error) => {
        if (!options.signal.aborted) this.store.update({ live: null }); // what failed half-way is no picture
        throw error;
      });
      this.store.update({ live: null, outcome: { call, response } });
      if (this.state.edits.length > 0) this.hasDone("edited");
      return `Done in ${response.timings.total_s.toFixed(1)} s.`;
    });
  }

  /** @returns {Promise<void>} rejects with what the service says against the name */
  async rename(index, name) {
    const { prototype } = await this.api.json(calls.rename(this.state.model, index, name));
    this.store.update({ prototypes: this.state.prototypes.map((other) => (other.index === index ? prototype : other)) });
  }

  /** @param {number|null} index of a prototype */
  look(index) {
    this.store.update({ ...NO_LOOK, focus: index });
  }

  /** An attribute is looked at where the prototype is that carries most of it. @param {string} name */
  lookAtAttribute(name) {
    const { prototypes } = this.state.attributes.find((attribute) => attribute.name === name);
    this.store.update({ focus: prototypes[0], focusAttribute: name });
  }

  /** Let the timeline run once, from noise to the picture. */
  play() {
    this.pause();
    this.store.update({ isPlaying: true });
  }

  pause() {
    this.store.update({ isPlaying: false });
  }

  show(view) {
    this.store.update({ view });
  }

  /** @param {[number, number]} pair */
  compare(pair) {
    this.store.update({ compared: pair, view: "compare" });
  }

  /** @param {number} index of a prototype */
  diagnose(index) {
    this.store.update({ diagnosed: prototypeTarget(index), view: "diagnose" });
  }

  /** @param {string} name of an attribute */
  diagnoseAttribute(name) {
    this.store.update({ diagnosed: attributeTarget(name), view: "diagnose" });
  }

  /** @param {"edited"|"located"|"timed"|"coupled"} step of the guide */
  hasDone(step) {
    if (!this.state.steps[step]) this.store.update({ steps: { ...this.state.steps, [step]: true } });
  }
}

/** Those of the held attributes that no edit moves; the same list where that is all of them, as nothing has changed then. */
function heldBeside(edits, held) {
  const isLeft = (name) => editOf(edits, attributeTarget(name)) === undefined;
  return held.every(isLeft) ? held : held.filter(isLeft);
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}

/** What is in a file, as a data: URL. @param {File} file @returns {Promise<string>} */
function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(/** @type {string} */ (reader.result));
    reader.onerror = () => reject(new Problem(422, "the browser cannot read this as a file: a folder, or gone by now"));
    reader.readAsDataURL(file);
  });
}

function stageText({ stage, step, steps }) {
  const names = { invert: "taking the picture back to noise", generate: "denoising", correct: "correcting", intervene: "changing" };
  return `${names[stage]}, ${step} of ${steps}`;
}

/** Two prototypes to begin a comparison with: the first two that say most of the same label. */
function mostAlike(prototypes) {
  for (const first of prototypes) {
    const label = first.attributes?.[0]?.name;
    const second = prototypes.find(({ index, attributes }) => index > first.index && attributes?.[0]?.name === label);
    if (label !== undefined && second !== undefined) return [first.index, second.index];
  }
  return [0, Math.min(1, prototypes.length - 1)];
}
