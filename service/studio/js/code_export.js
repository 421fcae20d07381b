/**
 * A call as code that runs elsewhere: curl and Python. The picture is fetched or named first, so that what is
 * shown stays readable and gives the same answer.
 * @typedef {import("./calls.js").Call} Call
 * @typedef {import("./calls.js").Source} Source
 */

import { DEFAULT_SETTINGS } from "./settings.js";

const PICTURE = "picture.png";
const STREAMED_ONLY = ["preview_every"];

/** @param {Call} call @param {Source|null} source @param {string} base of the service @param {boolean} hasKey */
export function toCurl(call, source, base, hasKey) {
  const key = hasKey ? ` -H "X-API-Key: $PATRONUS_KEY"` : "";
  const address = quoted(base + call.path + queryText(call.query));
  if (call.method === "GET") return `curl -s${key} ${address}`;
  const { hasPicture, others, fields } = parts(call);
  if (!hasPicture && others === null) {
    return [`curl -s${key} -X ${call.method} -H 'Content-Type: application/json' \\`, `  -d ${quoted(JSON.stringify(fields))} \\`, `  ${address}`].join("\n");
  }
  const form = Object.entries(fields).map(([name, value]) => `  ${formField(name, value)} \\`);
  return [
    ...(others === null ? curlPicture(source, fields.model, base, key) : curlReferences(others.length, fields.model, base, key)),
    `curl -s${key} \\`,
    others === null ? `  -F ${quoted(`image=@${fileOf(source)}`)} \\` : `  $(printf ' -F image=@picture-%d.png' $(seq 0 ${others.length - 1})) \\`,
    ...form,
    `  ${address}`,
  ].join("\n");
}

/** With the client of this service. */
export function toPython(call, source, base, hasKey) {
  const { hasPicture, others, fields } = parts(call);
  const edits = fields.edits !== undefined;
  const lines = [
    ...(hasKey ? ["import os", ""] : []),
    `from patronus_server import Client${edits ? ", Edit" : ""}`,
    "",
    `with Client(${python(base)}${hasKey ? ', api_key=os.environ["PATRONUS_KEY"]' : ""}) as patronus:`,
  ];
  if (hasPicture) lines.push(`    picture = ${pythonPicture(source, fields.model)}`);
  if (others !== null) lines.push(`    pictures = [image.png for image in patronus.references(model=${python(fields.model)}).images]`);
  lines.push(`    answer = ${pythonCall(call, hasPicture, others, fields)}`);
  const saved = { "/edit": "answer.image", "/generate": "answer.images[0].image" }[call.path];
  lines.push(saved === undefined ? "    print(answer)" : `    ${saved}.save("edited.png")`);
  return lines.join("\n");
}

/** What is sent, as JSON. */
export function toJson(call) {
  const { hasPicture, others, fields } = parts(call);
  const images = { ...(hasPicture && { image: "…" }), ...(others !== null && { images: "…" }) };
  return JSON.stringify({ method: call.method, path: call.path + queryText(call.query), body: { ...images, ...fields } }, null, 2);
}

/** A call's body apart from what stands for pictures in it: hasPicture for one, others for a list or null. */
function parts({ body = {} }) {
  const { image, image_id, images, ...rest } = body;
  const fields = Object.fromEntries(Object.entries(rest).filter(([name]) => !STREAMED_ONLY.includes(name)));
  return { hasPicture: image !== undefined || image_id !== undefined, others: images ?? null, fields };
}

function curlPicture(source, model, base, key) {
  const origin = source.origin;
  if (origin.kind === "reference") {
    const address = `${base}/references/${origin.index}?model=${encodeURIComponent(model)}`;
    return [`curl -s${key} ${quoted(address)} -o ${PICTURE}`];
  }
  if (origin.kind === "sample") {
    const body = { model, seed: origin.seed, steps: DEFAULT_SETTINGS.steps };
    return [
      `curl -s${key} -H 'Accept: image/png' -H 'Content-Type: application/json' \\`,
      `  -d ${quoted(JSON.stringify(body))} ${quoted(`${base}/generate`)} -o ${PICTURE}`,
    ];
  }
  return [];
}

/** All of the model's pictures. */
function curlReferences(length, model, base, key) {
  const address = `"${base}/references/$i?model=${encodeURIComponent(model)}"`;
  return [`for i in $(seq 0 ${length - 1}); do curl -s${key} ${address} -o picture-$i.png; done`];
}

/** A file as -F takes it, for which some characters of a name mean something. */
function fileOf({ origin }) {
  if (origin.kind !== "upload") return PICTURE;
  return /[;,"\\]/.test(origin.name) ? `"${origin.name.replace(/["\\]/g, "\\$&")}"` : origin.name;
}

/** -F reads a type behind a semicolon; --form-string takes a value as it is. */
function formField(name, value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return `${text.includes(";") ? "--form-string" : "-F"} ${quoted(`${name}=${text}`)}`;
}

function pythonPicture({ origin }, model) {
  if (origin.kind === "reference") return `patronus.references(model=${python(model)}).images[${origin.index}].png`;
  if (origin.kind === "sample") return `patronus.generate(model=${python(model)}, seed=${origin.seed}, steps=${DEFAULT_SETTINGS.steps}).images[0].image.png`;
  return python(origin.name);
}

function pythonCall(call, hasPicture, others, fields) {
  const { edits, prototypes, ...rest } = fields;
  const named = Object.entries(rest).map(([name, value]) => `${name}=${python(value)}`);
  const image = hasPicture ? ["picture"] : [];
  const changes = edits === undefined ? [] : [`[${edits.map(pythonEdit).join(", ")}]`];
  const which = prototypes === undefined ? [] : [`prototypes=${python(prototypes)}`];
  const asKeyword = (values, name) => values.map((value) => `${name}=${value}`);
  const query = Object.entries(call.query ?? {}).map(([name, value]) => `${name}=${python(value)}`);
  const [, noun, index] = call.path.split("/");
  switch (noun) {
    case "edit":
      return invocation("edit", [...image, ...changes, ...named]);
    case "generate":
    case "trace":
      return invocation(noun, [...asKeyword(image, "image"), ...asKeyword(changes, "edits"), ...named]);
    case "encode":
      return invocation("encode", [...image, ...(others === null ? [] : ["*pictures"]), ...named]);
    case "locate":
      return invocation("locate", [...image, ...which, ...named]);
    case "visualize":
      return invocation("visualize", [...(prototypes ?? []).map(python), ...named]);
    case "diagnose":
      return invocation("diagnose", [...which, ...named]);
    case "prototypes":
      if (call.method === "PUT") return invocation("rename", [index, python(fields.name), ...query]);
      return index === undefined ? invocation("prototypes", query) : invocation("prototype", [index, ...query]);
    default:
      return invocation(noun, query);
  }
}

function invocation(method, parameters) {
  const line = `patronus.${method}(${parameters.join(", ")})`;
  if (line.length <= 92) return line;
  return `patronus.${method}(\n${parameters.map((parameter) => `        ${parameter},\n`).join("")}    )`;
}

function pythonEdit(edit) {
  const { prototype = null, op, value, attribute } = edit;
  const parts = [prototype, op, value].filter((part) => part !== undefined).map(python);
  if (attribute !== undefined) parts.push(`attribute=${python(attribute)}`);
  return `Edit(${parts.join(", ")})`;
}

/** A JSON value as Python writes it. */
function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  return JSON.stringify(value);
}

function queryText(query = {}) {
  const text = new URLSearchParams(query).toString();
  return text === "" ? "" : `?${text}`;
}

/** For a POSIX shell. */
function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
