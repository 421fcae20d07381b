/**
 * Every request that the page makes, as a value: `api` sends it, and `code_export` shows it.
 * @typedef {{method: string, path: string, query?: Record<string, string>, body?: Record<string, any>}} Call
 * @typedef {{kind: "reference", index: number} | {kind: "sample", seed: number} | {kind: "upload", name: string}} Origin
 * @typedef {{origin: Origin, base64: string|null, url: string, imageId: string|null, kept?: string|null}} Source
 *   kept: what stays over a reload, in base64; null where nothing does
 */

import { toApi } from "./edits.js";
import { DEFAULT_SETTINGS, leastRounds } from "./settings.js";

const INLINE_CHARACTERS = 100_000;
/** Larger pictures are sent once, and named by their image_id from then on. */

const MAX_PREVIEWS = 50;

const get = (path, query) => ({ method: "GET", path, ...(query && { query }) });
const post = (path, body) => ({ method: "POST", path, body });

export const models = () => get("/models");
export const prototypes = (model) => get("/prototypes", { model });
export const prototype = (model, index) => get(`/prototypes/${index}`, { model });
export const references = (model) => get("/references", { model });

/** @returns {Call} */
export function rename(model, index, name) {
  return { method: "PUT", path: `/prototypes/${index}`, query: { model }, body: { name } };
}

/** A picture from the latent prior. */
export function samplePrior(model, seed) {
  return post("/generate", { model, seed, steps: DEFAULT_SETTINGS.steps });
}

/** @param {Source} source */
export function encode(model, source) {
  return post("/encode", { model, image: source.base64 });
}

/** @param {string[]} images base64 */
export function encodeAll(model, images) {
  return post("/encode", { model, images });
}

/** Where prototypes are in a picture. @param {Record<string, string>} picture {image} or {image_id} */
export function locate(model, picture, indices) {
  return post("/locate", { model, ...picture, prototypes: indices });
}

/** The picture of a source, as a request names it. @param {Source} source */
export function pictureOf(source) {
  const isSmall = source.base64 !== null && source.base64.length <= INLINE_CHARACTERS;
  return isSmall ? { image: source.base64 } : { image_id: source.imageId };
}

/** What the studio's pictures come from: /edit or /generate. @param {string[]} held attributes that /edit holds @returns {Call} */
export function change(model, source, edits, held, settings) {
  return settings.method === "edit" ? edit(model, source, edits, held, settings) : generate(model, source, edits, settings);
}

function edit(model, source, edits, held, settings) {
  const { steps, start, inversion } = settings;
  return post("/edit", {
    model,
    ...pictureOf(source),
    edits: edits.map(toApi),
    steps,
    ...flags(settings),
    ...(settings.preserve === "others" && { preserve: "others" }),
    ...(held.length > 0 && { preserve_attributes: held }),
    start,
    inversion,
    rounds: Math.max(settings.rounds, leastRounds(settings, held)),
    preview_every: 2,
  });
}

function generate(model, source, edits, settings) {
  const { steps, sampler, seed, num_images, x_T } = settings;
  return post("/generate", {
    model,
    ...pictureOf(source),
    edits: edits.map(toApi),
    steps,
    ...flags(settings),
    sampler,
    seed,
    num_images,
    x_T,
    preview_every: 2,
  });
}

/**
 * When prototypes appear in the run that made a picture: of an edit the round that is shown, of several samples the
 * first; without a change, the source's own way back from noise.
 * @param {{call: Call, response: any}|null} outcome @returns {Call}
 */
export function trace(model, source, settings, outcome) {
  const previews = { num_previews: Math.min(settings.steps, MAX_PREVIEWS) };
  if (outcome?.call.path === "/generate") {
    const { num_images, preview_every, ...sampled } = outcome.call.body;
    return post("/trace", { ...sampled, ...previews });
  }
  const { driven } = outcome?.response.activations ?? {};
  return post("/trace", {
    model,
    ...pictureOf(source),
    ...(driven && { activations: driven, start: outcome.response.start_timestep, inversion: settings.inversion }),
    steps: settings.steps,
    x_T: "inverted",
    ...previews,
  });
}

export function visualize(model, indices, numSamples) {
  return post("/visualize", { model, prototypes: indices, num_samples: numSamples });
}

/** @param {{prototypes?: number[], attributes?: string[]}} changed what is changed; neither: every prototype */
export function diagnose(model, changed, numSamples, steps) {
  return post("/diagnose", { model, ...changed, num_samples: numSamples, steps });
}

function flags({ extrapolate, decouple }) {
  return { ...(extrapolate && { extrapolate }), ...(decouple && { decouple }) };
}
