/** When prototypes emerge while the picture is denoised, and x̂₀ at every step of it. */

import * as calls from "../calls.js";
import { element, pixelImage, pngUrl } from "../dom.js";
import { linePlot } from "../plots.js";
import { EMERGENCE, nameOf, standardised } from "../prototypes.js";
import { StatusLine, Task } from "../task.js";

const BEFORE = "Denoises once more and reads every step: make an edit first, or trace the picture as it is. ";
const PLAY_MS = 2500;
const SHOWN_WITHOUT_EDITS = 3;
const SHOWN_OF_AN_ATTRIBUTE = 2;

export function timeline({ session, showCode }) {
  const task = new Task(new StatusLine());
  let tracing = null; // the call that is being traced
  let traced = null; // the call, its answer, and the change whose run it is
  const plot = element("div", {});
  const picture = pixelImage(null, "");
  const caption = element("figcaption", { class: "muted number" });
  const scrub = element("input", { type: "range", min: 0, max: 0, step: 1, value: 0, id: "timestep", "aria-label": "Step of denoising", oninput: take });
  const body = element(
    "div",
    { class: "timeline-body", hidden: true },
    element("div", {}, plot, scrub),
    element("figure", {}, element("div", { class: "frame" }, picture), caption),
    element("p", { class: "legend" }, EMERGENCE),
  );
  const code = element("button", { type: "button", class: "plain", hidden: true, onclick: () => showCode(traced.call) }, "Code");
  const hint = element("p", { class: "muted" }, BEFORE);
  const run = element("button", { type: "button", onclick: () => trace() }, "Trace");
  const play = element("button", { type: "button", hidden: true, onclick: () => session.play() }, "Play");
  let playing = 0;
  const panel = element(
    "details",
    { class: "panel timeline-panel", open: true, ontoggle: () => panel.open && session.state.outcome !== null && isStale() && trace() },
    element("summary", {}, "When it appears"),
    element("div", { class: "panel-head" }, hint, element("div", { class: "buttons" }, run, play, code)),
    task.status.element,
    body,
  );

  session.store.follow(["outcome", "source"], ({ outcome, source }) => {
    if (!isStale()) return;
    if (outcome === null || (traced !== null && traced.source !== source)) clear();
    if (panel.open && outcome !== null) trace();
  });
  session.store.follow(["edits", "held", "settings", "source"], () => isStale() && halt()); // what it traces is not what is shown any more
  session.store.follow(["edits", "held", "settings", "source", "outcome"], () => (run.disabled = wanted() === null));
  session.store.follow(["prototypes", "focus"], () => traced !== null && show());
  session.store.follow(["isPlaying"], ({ isPlaying }) => {
    clearInterval(playing);
    if (!isPlaying) return;
    panel.open = true;
    reveal();
    if (traced !== null) begin();
    else if (!task.isRunning) trace();
  });

  /** The run that made what is shown, as a call; null while that is being made. */
  function wanted() {
    const { model, source, settings, outcome } = session.state;
    const change = session.presentCall();
    if (source === null || (change !== null && JSON.stringify(change) !== JSON.stringify(outcome?.call))) return null;
    return calls.trace(model, source, settings, change && outcome);
  }

  /** Whether what is shown is neither traced nor, where a trace runs, what that is of. */
  function isStale() {
    const call = task.isRunning ? tracing : traced?.call;
    return JSON.stringify(wanted()) !== JSON.stringify(call);
  }

  function halt() {
    task.stop();
    session.pause(); // or the next trace, which nobody asked to see, would play
  }

  function clear() {
    halt();
    task.status.idle();
    traced = null;
    body.hidden = true;
    code.hidden = true;
    play.hidden = true;
    hint.textContent = BEFORE;
  }

  function trace() {
    return task.start("Tracing…", async (options) => {
      const call = (tracing = wanted()); // of this moment, also where it is tried again
      if (call === null) return ""; // it comes when there is what it is of
      const { source, outcome } = session.state;
      const onProgress = ({ step, steps }) => task.status.advance(step / steps, `${step} of ${steps}`);
      const response = await session.api.follow(call, { ...options, onProgress }).catch((error) => {
        if (!options.signal.aborted) session.pause();
        throw error;
      });
      traced = { call, response, source, outcome };
      scrub.max = String(response.images[0].previews.length - 1);
      scrub.value = scrub.max;
      body.hidden = false;
      code.hidden = false;
      play.hidden = false;
      show();
      if (session.state.isPlaying) begin();
      return "";
    });
  }

  /** From noise to the picture, step by step. */
  function begin() {
    const last = Number(scrub.max);
    clearInterval(playing);
    scrub.value = "0";
    show();
    reveal(); // there is more of it now
    playing = setInterval(() => {
      scrub.value = String(Number(scrub.value) + 1);
      scrubbed();
      if (Number(scrub.value) === last) session.pause();
    }, PLAY_MS / last);
  }

  function reveal() {
    panel.scrollIntoView({ block: "nearest" });
  }

  function take() {
    session.pause();
    scrubbed();
  }

  function scrubbed() {
    show();
    session.hasDone("timed");
  }

  function shownPrototypes() {
    const { prototypes, attributes, activations, focus } = session.state;
    const carriers = (name) => attributes.find((attribute) => attribute.name === name)?.prototypes.slice(0, SHOWN_OF_AN_ATTRIBUTE) ?? [];
    const edited = (traced.outcome?.call.body.edits ?? []).flatMap(({ prototype, attribute }) => (attribute === undefined ? [prototype] : carriers(attribute)));
    const notable = [...prototypes]
      .sort((a, b) => Math.abs(standardised(b, activations[b.index]) ?? 0) - Math.abs(standardised(a, activations[a.index]) ?? 0))
      .slice(0, SHOWN_WITHOUT_EDITS)
      .map(({ index }) => index);
    const chosen = new Set(edited.length > 0 ? edited : notable);
    if (focus !== null) chosen.add(focus);
    return { indices: [...chosen], main: focus ?? [...chosen][0] };
  }

  function show() {
    const { prototypes } = session.state;
    const image = traced.response.images[0];
    const preview = image.previews[Number(scrub.value)];
    const { indices, main } = shownPrototypes();
    const t = traced.response.timesteps;
    const series = indices.map((j) => ({
      name: nameOf(prototypes[j]),
      isChosen: j === main,
      values: image.activations.map((s) => standardised(prototypes[j], s[j]) ?? s[j]),
      event: image.emergence[j],
    }));
    plot.replaceChildren(
      linePlot({
        title: series.map((one) => (one.event === null ? `${one.name} does not emerge` : `${one.name} ${verb(one)} at timestep ${one.event}`)).join("; "),
        x: t,
        series,
        now: preview.timestep,
        xLabel: "timestep t: noise → picture",
        yLabel: prototypes[0].statistics === null ? "activation" : "sd from the mean",
      }),
    );
    const emergence = series.find(({ isChosen }) => isChosen);
    picture.src = pngUrl(preview.image);
    picture.alt = `Predicted picture after step ${preview.step}`;
    caption.textContent = `x̂₀ after step ${preview.step} of ${t.length}, t = ${preview.timestep}`;
    scrub.setAttribute("aria-valuetext", `step ${preview.step} of ${t.length}, timestep ${preview.timestep}`);
    hint.textContent = `${runText(traced.outcome)} ${emergenceText(emergence, t, prototypes[0].statistics !== null)}`;
  }
  return panel;
}

/** Whose run it is. */
function runText(outcome) {
  if (outcome === null) return "The picture's own way back from noise, nothing changed.";
  const { images } = outcome.response;
  if (images === undefined) return "The run that made the edited picture.";
  return images.length === 1 ? "The run that made the sample." : "The run that made the first sample.";
}

function verb({ values }) {
  return values.at(-1) < values[0] ? "fades" : "emerges";
}

/** @param {boolean} isStandardised whether values count from the mean over the training data */
function emergenceText(one, timesteps, isStandardised) {
  const { name, event, values } = one;
  if (event === null) {
    const how = !isStandardised ? "" : values[0] >= 0 ? "it is already there at the first step and " : "it is weak at the first step and ";
    return `${name} does not emerge: ${how}ends as it began.`;
  }
  const step = timesteps.indexOf(event) + 1; // the first step is what the change counts from
  return `${name} ${verb(one)} at t = ${event}, step ${step} of ${timesteps.length}${step === 2 ? ": as good as from the start" : ""}.`;
}
