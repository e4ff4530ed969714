// The one state of the page, and its forms: the request to the server, and the address that can be shared.
//
// state = {
//   model: "gan", morphology: "spiral", seed: 7,
//   second: null,    a class that the galaxy is in part, of models that mix classes: {name: "elliptical", share: 0.3}
//   values: {size: 0.12, redshift: null},   null: free, the server draws it from real galaxies
//   other: null,     what B has in place of A's settings, as a query; null: nothing is compared
//   sweep: "size",   attribute of the film strip
//   rings: false,    half-light ellipses on the pictures
//   inspect: false,  native pixels and what they hold
// }

import { inPrint } from "./elements.js";

/** Model of the server's table that the state names. */
export const modelOf = (catalogue, id) => catalogue.models.find((model) => model.id === id);

/** Classes that a model knows, with their labels. */
export const classesOf = (catalogue, id) => {
  const { classes } = modelOf(catalogue, id);
  return catalogue.morphologies.filter((m) => classes.includes(m.name));
};

/** Most that the share of a second class can be: the first one leads. */
export const MOST_SECOND = 0.5;

/** A class as the server is asked for it, by itself or with the share of a second one. */
const asAsked = ({ morphology, second }) =>
  second ? `${morphology}:${Number((1 - second.share).toFixed(3))},${second.name}:${Number(second.share.toFixed(3))}` : morphology;

/** Label of the state's class, or of both that it mixes. */
export function classLabel(catalogue, { morphology, second }) {
  const { label } = catalogue.morphologies.find((m) => m.name === morphology);
  if (!second) return label;
  const other = catalogue.morphologies.find((m) => m.name === second.name);
  return `${label} with ${Math.round(100 * second.share)} % ${inSentence(other.label)}`;
}

/**
 * Half-light ellipses asked and measured, in widths of the picture, null where there is none.
 *
 * What is asked is a circle's radius, the mean of the ellipse's semi-axes (see `_ellipse` of service.py), and a shape, but
 * neither a place nor a direction: it is drawn about the measured centre, turned as the measured one is.
 *
 * @param near  measurement of the galaxy, be it at other values  @param fresh the same if it is of these values
 */
export function halfLight(model, values, near, fresh) {
  const isFlux = model.kind === "flux";
  const width = isFlux ? model.pixel_scale * model.image_size : 1;
  const place = near?.ellipse;
  const found = fresh?.ellipse ?? null;
  const ask = (name) => values[name] ?? near?.attributes[name]?.requested ?? null;
  const size = ask(isFlux ? "size_arcsec" : "size");
  if (size === null || !place) return { asked: null, found };
  const ellipticity = ask("ellipticity") ?? 1 - place.semi_minor / place.semi_major;
  const semi_major = (2 * size) / width / (2 - ellipticity);
  return { asked: { ...place, semi_major, semi_minor: semi_major * (1 - ellipticity) }, found };
}

/** What else was measured of flux, in words. */
export const besidesWords = (besides) =>
  Object.entries(besides ?? {})
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${inPrint(value.toFixed(2))}`)
    .join(", ");

/** Part of a slider between two places of its thumb, where its steps are of no unit. */
export const STEP = 0.001;

/** Value on the scale in whose equal steps a slider goes, and back. */
const onScale = ({ scale, softening }, value) =>
  scale === "log" ? Math.log10(value) : scale === "asinh" ? Math.asinh(value / softening) : value;
const offScale = ({ scale, softening }, steps) =>
  scale === "log" ? 10 ** steps : scale === "asinh" ? softening * Math.sinh(steps) : steps;

/** Where on its slider a value is, 0 to 1 within it; and the value that is somewhere. */
export const place = (a, value) => (onScale(a, value) - onScale(a, a.low)) / (onScale(a, a.high) - onScale(a, a.low));
export const valueAt = (a, part) => offScale(a, onScale(a, a.low) + part * (onScale(a, a.high) - onScale(a, a.low)));

/** Write a value with as many digits as the slider's step has there. */
export function write(attribute, value) {
  if (attribute.scale === "linear") return value.toFixed(Math.max(0, Math.ceil(-Math.log10(attribute.step) - 1e-9)));
  const step = Math.abs(valueAt(attribute, place(attribute, value) + STEP) - value) / Math.abs(value);
  const digits = step > 0 && step < Infinity ? 1 + Math.ceil(-Math.log10(step)) : 3;
  return String(Number(value.toPrecision(Math.min(9, Math.max(3, digits)))));
}

/** The same for people to read: a field or an address holds a hyphen, a text a minus sign. */
export const print = (attribute, value) => inPrint(write(attribute, value));

/** What a model's training data are called: real galaxies of the sky, mock ones of a survey, simulated ones. */
export const originOf = ({ training_data }) => training_data.origin;

/** What an `input` of type range holds of a value, and the value of what it holds. */
export const held = (attribute, value) => (attribute.scale === "linear" ? value : Number(place(attribute, value).toFixed(3)));
export const released = (attribute, number) => (attribute.scale === "linear" ? number : onSlider(attribute, valueAt(attribute, number)));

/** Supported range of an attribute for a class as words, or null where nothing is known. */
export const rangeWords = (attribute, morphology) =>
  attribute.supported[morphology]?.map((end) => print(attribute, end)).join(" to ") ?? null;

/** Tell whether a value lies among the real galaxies of a class. */
export function isSupported(attribute, morphology, value) {
  const range = attribute.supported[morphology];
  return Boolean(range) && range[0] <= value && value <= range[1];
}

/** Median of a class's real galaxies as a slider's value, or null where none is known. */
export const typical = (attribute, morphology) => {
  const value = attribute.typical[morphology] ?? null;
  return value === null ? null : onSlider(attribute, value);
};

/** The value that a slider can take nearest to the one given. */
export const onSlider = (attribute, value) =>
  Number(write(attribute, Math.min(attribute.high, Math.max(attribute.low, value))));

/** A typical galaxy of the first class. */
export function initialState(catalogue) {
  const model = modelOf(catalogue, catalogue.default);
  const morphology = classesOf(catalogue, model.id)[0].name;
  return {
    model: model.id,
    morphology,
    second: null,
    seed: 0,
    values: Object.fromEntries(model.attributes.map((a) => [a.name, typical(a, morphology)])),
    other: null,
    sweep: (model.attributes.find((a) => a.measured) ?? model.attributes[0]).name,
    rings: false,
    inspect: false,
  };
}

/** Change the class; sliders at the typical value of the old class move to that of the new one. A second class stays. */
export function withMorphology(state, catalogue, morphology) {
  const values = { ...state.values };
  for (const a of modelOf(catalogue, state.model).attributes) {
    if (values[a.name] === typical(a, state.morphology)) values[a.name] = typical(a, morphology);
  }
  return { morphology, values, second: state.second?.name === morphology ? null : state.second };
}

/** Change the model; attributes that both have keep their values, and the class stays where both know it. */
export function withModel(state, catalogue, id) {
  const { attributes, mixes } = modelOf(catalogue, id);
  const classes = classesOf(catalogue, id).map((m) => m.name);
  const second = mixes && classes.includes(state.second?.name) && classes.includes(state.morphology) ? state.second : null;
  const morphology = classes.includes(state.morphology) ? state.morphology : classes[0];
  const values = attributes.map((a) => [a.name, a.name in state.values ? state.values[a.name] : typical(a, morphology)]);
  const sweep = attributes.some((a) => a.name === state.sweep) ? state.sweep : attributes[0].name;
  return { model: id, morphology, second, values: Object.fromEntries(values), sweep };
}

/** Parameters of the server's answers: what is set, and nothing that is free. */
export function request(state, catalogue, extra = {}) {
  const model = modelOf(catalogue, state.model);
  const query = new URLSearchParams({ morphology: asAsked(state) });
  for (const a of model.attributes) {
    if (state.values[a.name] !== null) query.set(a.name, write(a, state.values[a.name]));
  }
  query.set("seed", state.seed);
  query.set("model", model.id);
  for (const [name, value] of Object.entries(extra)) query.set(name, value);
  return query.toString();
}

/** Query of the page's address: the same parameters, and what only the page has. */
export function address(state, catalogue) {
  const extra = {};
  if (state.other) extra.b = state.other;
  if (state.sweep !== initialState(catalogue).sweep) extra.sweep = state.sweep;
  if (state.rings) extra.rings = "1";
  if (state.inspect) extra.inspect = "1";
  return `?${request(state, catalogue, extra)}`;
}

/** Read an address; `notes` says in words what in it could not be taken as it stands. */
export function readAddress(search, catalogue) {
  const query = new URLSearchParams(search);
  const notes = [];
  const state = overlay(initialState(catalogue), query, catalogue, notes);
  if (query.has("morphology")) {
    for (const a of modelOf(catalogue, state.model).attributes) {
      if (!query.has(a.name)) state.values[a.name] = null;
    }
  }
  state.other = query.get("b") || null;
  if (query.get("sweep") in state.values) state.sweep = query.get("sweep");
  state.rings = query.get("rings") === "1";
  state.inspect = query.get("inspect") === "1";
  return { state, notes };
}

/** Settings of A as a query that fixes everything, to become B. */
export function pinned(state, catalogue) {
  const query = new URLSearchParams(request(state, catalogue));
  for (const [name, value] of Object.entries(state.values)) if (value === null) query.set(name, "free");
  return query.toString();
}

/** State of B: A's, but for what `other` names. Null where nothing is compared. */
export const otherState = (state, catalogue) =>
  state.other === null ? null : overlay(state, new URLSearchParams(state.other), catalogue, []);

function overlay(state, query, catalogue, notes) {
  let next = { ...state, values: { ...state.values } };
  const model = query.get("model");
  if (model !== null && model !== state.model) {
    if (modelOf(catalogue, model)) next = { ...next, ...withModel(next, catalogue, model) };
    else notes.push(`The link names the model ${model}, which is not here.`);
  }
  const morphology = query.get("morphology");
  if (morphology !== null) {
    const known = classesOf(catalogue, next.model).map((m) => m.name);
    const parts = known.includes(morphology) ? [[morphology, 1]] : sharesIn(morphology);
    const strange = parts.find(([name]) => !known.includes(name));
    if (strange) notes.push(`The link names the class ${strange[0]}, which is not here.`);
    else next = { ...next, ...withMixture(next, catalogue, parts, notes) };
  }
  const seed = query.get("seed");
  if (seed !== null) {
    if (/^\d+$/.test(seed) && Number(seed) <= catalogue.max_seed) next.seed = Number(seed);
    else notes.push(`The link's seed ${seed} is no whole number up to ${catalogue.max_seed}.`);
  }
  for (const a of modelOf(catalogue, next.model).attributes) {
    const text = query.get(a.name);
    if (text === null) continue;
    const value = text.trim() === "" ? NaN : Number(text);
    if (text === "free") next.values[a.name] = null;
    else if (!Number.isFinite(value)) notes.push(`The link's ${a.name} ${text} is no number.`);
    else {
      next.values[a.name] = onSlider(a, value);
      if (value < a.low || value > a.high) notes.push(`The link's ${a.name} ${text} is off the slider: its end is taken.`);
    }
  }
  return next;
}

/** Read the classes of a mixture with their shares, the largest first; what is none comes back as a class of that name. */
function sharesIn(text) {
  const parts = [...text.matchAll(/\s*(.+?)\s*:\s*(\d*\.?\d+)\s*(?:,|$)/g)].map(([, name, share]) => [name, Number(share)]);
  const sum = parts.reduce((total, [, share]) => total + share, 0);
  if (Math.abs(sum - 1) > 1e-3 || new Set(parts.map(([name]) => name)).size < parts.length) return [[text, 1]];
  return parts.filter(([, share]) => share > 0).sort(([, one], [, other]) => other - one);
}

/** Change the class to the largest of a mixture, and lean it toward the next, if the model takes that. */
function withMixture(state, catalogue, parts, notes) {
  const [[first, most], next] = parts;
  const changed = withMorphology({ ...state, second: null }, catalogue, first);
  if (!next) return changed;
  if (!modelOf(catalogue, state.model).mixes) {
    notes.push(`The link mixes classes, and this model was trained on one class a galaxy: ${first} is taken.`);
    return changed;
  }
  if (parts.length > 2) notes.push(`The link mixes ${parts.length} classes, and the page two: ${first} and ${next[0]} are taken.`);
  return { ...changed, second: { name: next[0], share: next[1] / (most + next[1]) } };
}

/** Return the label of a class as it stands within a sentence: spiral, but SAb and E. */
export const inSentence = (label) => (/^\p{Lu}(\p{Ll}|[ -])/u.test(label) ? label[0].toLowerCase() + label.slice(1) : label);
