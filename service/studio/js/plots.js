/** Plots as SVG. */

import { drawn } from "./dom.js";

const WIDTH = 520;
const HEIGHT = 196;
const LABEL_HEIGHT = 16;
const MARGIN = { left: 48, right: 118, top: 10, bottom: 36 }; // of names in the larger type of phones, too

/**
 * Lines over denoising: x falls from noise on the left to the picture on the right.
 * @param {{title: string, x: number[], series: {name: string, isChosen: boolean, values: number[],
 *   event: number|null}[], now: number, xLabel: string, yLabel: string}} plot event: where a dashed line goes
 */
export function linePlot({ title, x, series, now, xLabel, yLabel }) {
  const all = series.flatMap(({ values }) => values);
  const [low, high] = padded(Math.min(...all), Math.max(...all));
  const left = Math.max(...x);
  const right = Math.min(...x);
  const px = (t) => MARGIN.left + ((left - t) / (left - right || 1)) * (WIDTH - MARGIN.left - MARGIN.right);
  const py = (value) => MARGIN.top + ((high - value) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const bottom = HEIGHT - MARGIN.bottom;
  const drawnLast = [...series].sort((a, b) => Number(a.isChosen) - Number(b.isChosen));
  return drawn(
    "svg",
    { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    ...ticks(low, high).flatMap((value) => [
      drawn("line", { class: "axis", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: py(value), y2: py(value) }),
      drawn("text", { x: MARGIN.left - 5, y: py(value) + 4, "text-anchor": "end" }, String(value).replace("-", "−")),
    ]),
    ...[left, Math.round((left + right) / 2), right].map((t) =>
      drawn("text", { x: px(t), y: bottom + 14, "text-anchor": "middle" }, t),
    ),
    drawn("text", { x: (MARGIN.left + WIDTH - MARGIN.right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xLabel),
    drawn("text", { x: 11, y: bottom / 2 + 5, "text-anchor": "middle", transform: `rotate(-90 11 ${bottom / 2 + 5})` }, yLabel),
    ...drawnLast
      .filter(({ event }) => event !== null)
      .map(({ event, isChosen }) =>
        drawn("line", { class: `emergence${chosen(isChosen)}`, x1: px(event), x2: px(event), y1: MARGIN.top, y2: bottom }),
      ),
    ...drawnLast.map(({ values, isChosen }) =>
      drawn("polyline", { class: `series${chosen(isChosen)}`, points: values.map((value, i) => `${px(x[i])},${py(value)}`).join(" ") }),
    ),
    ...labelPlaces(series.map(({ values }) => py(values.at(-1)))).map((y, i) =>
      drawn("text", { class: "label", x: WIDTH - MARGIN.right + 6, y: y + 4 }, shortened(series[i].name)),
    ),
    drawn("line", { class: "now", x1: px(now), x2: px(now), y1: MARGIN.top, y2: bottom }),
  );
}

/**
 * Points of two measures; each is a button's worth of information, so the plot has a sentence for a name.
 * @param {{title: string, points: {x: number, y: number, isChosen: boolean, label: string}[], xLabel: string,
 *   yLabel: string}} plot
 */
export function scatterPlot({ title, points, xLabel, yLabel }) {
  const size = 300;
  const margin = 36;
  const scale = (values) => padded(Math.min(...values), Math.max(...values));
  const [left, right] = scale(points.map(({ x }) => x));
  const [low, high] = scale(points.map(({ y }) => y));
  const px = (value) => margin + ((value - left) / (right - left)) * (size - margin - 8);
  const py = (value) => 8 + ((high - value) / (high - low)) * (size - margin - 8);
  return drawn(
    "svg",
    { class: "plot", viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": title },
    ...ticks(low, high).flatMap((value) => [
      drawn("line", { class: "axis", x1: margin, x2: size - 8, y1: py(value), y2: py(value) }),
      drawn("text", { x: margin - 4, y: py(value) + 4, "text-anchor": "end" }, String(value).replace("-", "−")),
    ]),
    ...ticks(left, right).flatMap((value) => [
      drawn("line", { class: "axis", x1: px(value), x2: px(value), y1: 8, y2: size - margin + 8 }),
      drawn("text", { x: px(value), y: size - margin + 20, "text-anchor": "middle" }, String(value).replace("-", "−")),
    ]),
    drawn("text", { x: size / 2, y: size - 3, "text-anchor": "middle" }, xLabel),
    drawn("text", { x: 10, y: size / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${size / 2})` }, yLabel),
    ...points.map(({ x, y, isChosen, label }) =>
      drawn("circle", { class: `dot${chosen(isChosen)}`, cx: px(x), cy: py(y), r: 4 }, drawn("title", {}, label)),
    ),
  );
}

function chosen(isChosen) {
  return isChosen ? " is-chosen" : "";
}

function padded(low, high) {
  const room = (high - low) * 0.08 || 0.5;
  return [low - room, high + room];
}

/** About four round numbers between low and high. */
function ticks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(Number(value.toFixed(6)));
  return found;
}

/** Heights of labels that do not overlap, each near where its line ends, all above the plot's lower edge. */
function labelPlaces(wanted) {
  const order = wanted.map((y, i) => [y, i]).sort(([a], [b]) => a - b);
  const places = [];
  let previous = -Infinity;
  for (const [y, i] of order) {
    previous = Math.max(y, previous + LABEL_HEIGHT);
    places[i] = previous;
  }
  const room = HEIGHT - LABEL_HEIGHT;
  let next = Infinity;
  for (const [, i] of order.reverse()) {
    places[i] = Math.min(places[i], room, next - LABEL_HEIGHT);
    next = places[i];
  }
  return places;
}

function shortened(name) {
  return name.length > 14 ? `${name.slice(0, 13)}…` : name;
}
