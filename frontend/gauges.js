// Class buttons, sliders and their gauges: built from the server's table, one row for each attribute.

import { inPrint, make, setText } from "./elements.js";
import { STEP, held, inSentence, isSupported, modelOf, originOf, place as placeOf, print, rangeWords, valueAt, write } from "./state.js";

const place = (attribute, value) => Math.min(1, Math.max(0, placeOf(attribute, value)));

/** Whether a picture shows an attribute: photometry measures it, or a network has read it off pictures. */
export const isSeen = (a) => a.measured || a.is_told === true;

/** How much a picture tells of an attribute that photometry does not measure, in words, as far as that is known. */
const toldWords = (a) =>
  a.told === null
    ? ""
    : a.is_told
      ? `A picture tells of it: a network reads it with an R² of ${inPrint(a.told.toFixed(2))}.`
      : `A picture tells nothing of it: a network reads it with an R² of ${inPrint(a.told.toFixed(2))}.`;

/** Build one button for each choice into a fieldset. */
export function buildChoice(fieldset, choices) {
  fieldset.querySelectorAll("button").forEach((button) => button.remove());
  for (const { name, label, title, glyph } of choices) {
    const button = make("button", { type: "button", title: title ?? "" });
    button.dataset.choice = name;
    if (glyph && document.getElementById(glyph)) {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
      use.setAttribute("href", `#${glyph}`);
      svg.setAttribute("aria-hidden", "true");
      svg.append(use);
      button.append(svg);
    }
    button.append(make("span", {}, label));
    fieldset.append(button);
  }
}

export function renderChoice(fieldset, chosen) {
  for (const button of fieldset.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.choice === chosen));
  }
}

/** Sliders with gauges of one model's attributes. */
export class Gauges {
  #rows = new Map();
  #model = null;

  /** @param {HTMLElement} root that the rows are appended to */
  constructor(root) {
    this.root = root;
  }

  #build(model) {
    for (const { row } of this.#rows.values()) row.remove();
    this.fold?.remove();
    this.#rows.clear();
    const unseen = model.attributes.filter((a) => !isSeen(a));
    const isOne = unseen.length === 1;
    const seer = model.kind === "flux" ? "Photometry does not measure" : "A picture does not show";
    const what = model.kind === "flux" ? "the light" : "a picture";
    this.fold = make(
      "details",
      { className: "fold" },
      make("summary", {}, `${unseen.map((a) => a.label).join(", ")}: not visible in a picture`),
      make(
        "p",
        {},
        `${seer} ${isOne ? "it" : "them"}: the network is told the ${isOne ? "value" : "values"}, but nothing here tells ` +
          `whether it heeds ${isOne ? "it" : "them"}, and in ${what} you may see no change.`,
      ),
    );
    for (const a of [...model.attributes.filter(isSeen), ...unseen]) {
      const id = `slider-${a.name}`;
      const parts = {
        value: make("input", { className: "value", inputMode: "decimal", autocomplete: "off", spellcheck: false, ariaLabel: `Value of ${a.label}` }),
        free: make("button", { type: "button", className: "free", ariaLabel: `${a.label} free: drawn from ${originOf(model)} galaxies` }, "free"),
        slider: make(
          "input",
          a.scale === "linear" ? { type: "range", id, min: a.low, max: a.high, step: a.step } : { type: "range", id, min: 0, max: 1, step: STEP },
        ),
        range: make("p", { className: "range", id: `${id}-range` }),
        found: make("p", { className: "found", id: `${id}-found` }),
        told: make("p", { className: "told", id: `${id}-told` }, a.measured ? "" : toldWords(a)),
        known: make("span", { className: "known" }),
        error: make("span", { className: "error" }),
        marker: make("span", { className: "marker" }),
      };
      parts.value.dataset.value = parts.slider.dataset.attribute = parts.free.dataset.free = a.name;
      parts.told.hidden = !parts.told.textContent;
      parts.told.classList.toggle("nothing", a.is_told === false);
      parts.slider.setAttribute("aria-describedby", `${id}-range ${id}-found${parts.told.hidden ? "" : ` ${id}-told`}`);
      const scale = make("span", { className: "scale", ariaHidden: "true" }, parts.known, parts.error, parts.marker);
      const unit = make("small", {}, a.unit);
      parts.row = make(
        "div",
        { className: "gauge" },
        make("div", { className: "head" }, make("label", { htmlFor: id, title: a.description }, a.label), parts.value, unit, parts.free),
        make("div", { className: "track" }, scale, parts.slider),
        make("div", { className: "foot" }, parts.range, parts.found),
        parts.told,
      );
      // What somebody is typing is left alone until it is entered, left or given up.
      parts.value.addEventListener("input", () => (parts.isTyped = true));
      parts.value.addEventListener("focus", () => parts.value.select());
      parts.value.addEventListener("keydown", ({ key }) => {
        if (key !== "Escape") return;
        parts.isTyped = false;
        parts.value.value = parts.words;
      });
      (isSeen(a) ? this.root : this.fold).append(parts.row);
      this.#rows.set(a.name, parts);
    }
    if (unseen.length) this.root.append(this.fold);
  }

  /**
   * Show a request and what was measured for it.
   *
   * @param measured attributes of the server's measurement, if there is one of this galaxy
   * @param {{isFresh: boolean, isFailed: boolean}} how  whether they belong to this very request and not to the same
   *   galaxy at other values, and whether there will be none
   */
  render(state, catalogue, measured, how) {
    const model = modelOf(catalogue, state.model);
    if (model !== this.#model) this.#build(model);
    this.#model = model;
    for (const a of model.attributes) this.#renderRow(a, state, catalogue, measured?.[a.name], how);
  }

  /** Let the next render write into a field what holds, whatever somebody has typed there. */
  forget(name) {
    this.#rows.get(name).isTyped = false;
  }

  #renderRow(a, state, catalogue, reading, { isFresh, isFailed }) {
    const parts = this.#rows.get(a.name);
    const set = state.values[a.name];
    const isFree = set === null;
    const value = set ?? reading?.requested ?? null;
    const label = catalogue.morphologies.find((m) => m.name === state.morphology).label;
    const origin = originOf(modelOf(catalogue, state.model));

    parts.row.classList.toggle("is-free", isFree);
    parts.row.classList.toggle("is-unknown", value === null);
    parts.row.classList.toggle("stale", !isFresh);
    parts.free.setAttribute("aria-pressed", String(isFree));
    const words = value !== null ? write(a, value) : isFresh ? "unknown" : "…";
    parts.words = words;
    if (!parts.isTyped && parts.value.value !== words) parts.value.value = words;
    const shown = held(a, value ?? valueAt(a, 0.5));
    if (Number(parts.slider.value) !== shown) parts.slider.value = shown;
    parts.slider.setAttribute(
      "aria-valuetext",
      value === null ? "free, unknown" : `${print(a, value)} ${a.unit}${isFree ? `, drawn from ${origin} galaxies` : ""}`,
    );

    const range = a.supported[state.morphology];
    parts.known.hidden = !range;
    if (range) {
      parts.known.style.setProperty("--from", place(a, range[0]));
      parts.known.style.setProperty("--to", place(a, range[1]));
    }
    const ends = rangeWords(a, state.morphology);
    const isBeyond = !isFree && !isSupported(a, state.morphology, set);
    parts.row.classList.toggle("beyond", isBeyond);
    setText(
      parts.range,
      !range
        ? `Known of no ${inSentence(label)} galaxy`
        : isBeyond
          ? `Beyond most ${origin} galaxies, ${ends}`
          : isFree
            ? `Drawn from ${origin} ones, ${ends}`
            : `${label} galaxies: ${ends}`,
    );

    const found = reading?.measured ?? null;
    const hasBoth = found !== null && value !== null;
    parts.marker.hidden = found === null;
    parts.error.hidden = !hasBoth || !isFresh;
    if (found !== null) parts.marker.style.setProperty("--at", place(a, found));
    if (hasBoth) {
      const ends = [place(a, value), place(a, found)].sort((x, y) => x - y);
      parts.error.style.setProperty("--from", ends[0]);
      parts.error.style.setProperty("--to", ends[1]);
    }
    parts.found.classList.toggle("none", found === null || !isFresh);
    setText(
      parts.found,
      !a.measured
        ? isSeen(a) || modelOf(catalogue, state.model).kind === "flux" ? "not measured by photometry" : "not visible in a picture"
        : isFailed
          ? "not measured"
          : !isFresh
            ? "measuring…"
          : found === null
            ? "no galaxy to measure"
            : `measured ${print(a, found)}${hasBoth ? ` (${signed(a, found - value)})` : ""}`,
    );
  }
}

/** Write a difference with its sign. */
export const signed = (attribute, value) => `${value < 0 ? "−" : "+"}${print(attribute, Math.abs(value))}`;
