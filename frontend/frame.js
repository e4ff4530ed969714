// A picture in its frame with all that is said of it: class, verdict, time, rings. They change together; a picture of a
// former request that still stands there is marked as such.

import { setText } from "./elements.js";
import { classLabel, inSentence, modelOf, originOf, request } from "./state.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");

const FADE = 260; // ms of a crossfade; within a drag pictures follow each other as they come, like those of a film

const PATIENCE = 250; // ms after which a picture that is not there yet is said to be under way
const VEIL = 1200; // ms after which the former picture of the same galaxy, at other values, is veiled
const LONG = 1000; // ms from which on it is said how long a picture took
const GLOW = 16; // pixels of the glow's canvas

/** The server's verdicts on a request: in a word or two, and in a sentence about galaxies and their values. */
const VERDICTS = {
  like: [(origin) => `like ${origin} galaxies`, (galaxies, values) => `${galaxies[0].toUpperCase()}${galaxies.slice(1)} have ${values}.`],
  unusual: [() => "unusual", (galaxies, values) => `Few ${galaxies} have ${values}.`],
  invented: [() => "invented", (galaxies, values) => `No ${galaxies} have ${values}: the network makes this one up.`],
};
const MARKS = { drawing: "drawing…", failed: "not drawn" };

export class Frame {
  #shown = null; // {bitmap, query, state, support, isPreview}
  #wanted = null; // {query, state}
  #judged = null; // {query, support} as told from elsewhere
  #marked = ""; // "drawing" or "failed": what is wanted, and not there
  #timers = [];

  /** @param {HTMLElement} figure */
  constructor(figure) {
    this.figure = figure;
    const part = (name) => figure.querySelector(name);
    this.canvas = part(".picture");
    this.picture = this.canvas.getContext("2d", { alpha: false });
    this.glow = part(".glow").getContext("2d");
    this.fadeOut = this.glow.createRadialGradient(GLOW / 2, GLOW / 2, 0.3 * GLOW, GLOW / 2, GLOW / 2, GLOW / 2);
    this.fadeOut.addColorStop(0, "rgba(0, 0, 0, 0.42)");
    this.fadeOut.addColorStop(1, "transparent");
    this.parts = {
      class: part(".class"), support: part(".support"), verdict: part(".verdict"), time: part(".time"), seed: part("span.seed"),
      mark: part(".mark"),
    };
    this.rings = { asked: part(".rings .asked"), found: part(".rings .found") };
  }

  /** Request whose picture is shown, null before the first. */
  get query() {
    return this.#shown?.query ?? null;
  }

  /** Pixels a side to ask for: more on a large screen once nothing moves. */
  pixels(settled) {
    return settled && this.canvas.clientWidth * devicePixelRatio > 900 ? 512 : 256;
  }

  /**
   * Show a galaxy, and what is known of it.
   *
   * @param {{picture: ImageBitmap, support: string?, ms: number}} answer  @param state that it was asked for
   * @param {boolean} isDrag whether others follow: it does not fade in
   */
  show({ picture, support, ms, isPreview = false }, state, isDrag) {
    const old = this.#isVeiled ? null : this.#shown?.bitmap; // what is veiled is no picture to fade from
    const query = `${request(state, this.catalogue)}${isPreview ? "&preview=1" : ""}`; // which is not what is wanted
    const known = this.#judged?.query === query ? this.#judged.support : null;
    this.#shown = { bitmap: picture, query, state, support: support ?? known, isPreview };
    this.canvas.dataset.query = query;
    setText(this.parts.time, ms < LONG ? "" : `drawn in ${(ms / 1000).toFixed(1)} s`);
    this.#draw(picture, old, isDrag);
    this.#mark("");
    if (query !== this.#wanted.query) this.#wait();
  }

  /** Say which galaxy is wanted: while another one is shown, that is marked once it takes long enough to be noticed. */
  expect(state, catalogue) {
    const query = request(state, catalogue);
    const isNew = query !== this.#wanted?.query;
    this.#wanted = { query, state: { ...state } };
    this.catalogue = catalogue;
    if (isNew) {
      if (this.#shown?.query === query) this.#mark("");
      // A mark stays until a picture comes.
      else if (this.#marked) this.#mark("drawing", this.#isVeiled || this.#isOther);
      else if (this.#timers.length === 0) this.#wait();
    }
    this.#describe();
  }

  /** Say that what is wanted could not be had. */
  fail() {
    if (this.#shown?.query !== this.#wanted.query) this.#mark("failed", true);
  }

  /** Take the server's verdict from elsewhere, if it is on the galaxy that is shown. */
  judge(support, query) {
    this.#judged = { query, support }; // which may come before the picture
    if (this.#shown?.query !== query) return;
    this.#shown.support = support;
    this.#describe();
  }

  /** Draw the ellipses that should hold, and do hold, half of the light; null is none. */
  outline(ellipses) {
    for (const [name, one] of Object.entries(ellipses)) {
      const ring = this.rings[name];
      ring.toggleAttribute("hidden", !one);
      if (!one) continue;
      const { x, y, semi_major, semi_minor, angle } = one;
      const set = { cx: x, cy: y, rx: semi_major, ry: semi_minor, transform: `rotate(${angle} ${x} ${y})` };
      for (const [attribute, value] of Object.entries(set)) ring.setAttribute(attribute, value);
    }
  }

  #draw(bitmap, old, isDrag) {
    const { canvas, picture } = this;
    if (canvas.width !== bitmap.width) canvas.width = canvas.height = bitmap.width;
    cancelAnimationFrame(this.fading);
    const draw = (one, opacity) => {
      picture.globalAlpha = opacity;
      picture.drawImage(one, 0, 0, canvas.width, canvas.height);
    };
    if (!isDrag) this.#shine(bitmap);
    if (isDrag || !old || still.matches) {
      draw(bitmap, 1);
      return;
    }
    const began = performance.now();
    const step = (now) => {
      const part = Math.min(1, Math.max(0, now - began) / FADE);
      draw(old, 1);
      draw(bitmap, part * (2 - part));
      if (part < 1) this.fading = requestAnimationFrame(step);
    };
    draw(old, 1);
    this.fading = requestAnimationFrame(step);
  }

  /** Let the middle of the picture light the glass around it: a few pixels, faded out here and enlarged by the browser. */
  #shine(bitmap) {
    const [glow, { width: side }] = [this.glow, bitmap];
    glow.globalCompositeOperation = "copy";
    glow.filter = "saturate(2) brightness(1.4)";
    glow.drawImage(bitmap, side / 4, side / 4, side / 2, side / 2, 0, 0, GLOW, GLOW);
    glow.filter = "none";
    glow.globalCompositeOperation = "destination-in";
    glow.fillStyle = this.fadeOut;
    glow.fillRect(0, 0, GLOW, GLOW);
  }

  get #isVeiled() {
    return this.figure.classList.contains("veiled");
  }

  /** Whether the galaxy that is shown differs from the wanted one by more than its values. */
  get #isOther() {
    return !isSameKind(this.#shown?.state, this.#wanted.state);
  }

  #wait() {
    this.#timers = [
      setTimeout(() => this.#mark("drawing", this.#isOther), PATIENCE),
      setTimeout(() => this.#mark("drawing", this.#isOther || !this.#shown.isPreview), VEIL),
    ];
  }

  /** Mark what is wanted as "drawing" or "failed", or take the mark away; what still stands there may be veiled. */
  #mark(mark, isVeiled = false) {
    if (mark !== "drawing") this.#timers = this.#timers.forEach(clearTimeout) ?? [];
    this.#marked = mark;
    this.figure.classList.toggle("waiting", mark === "drawing");
    this.figure.classList.toggle("veiled", isVeiled);
    setText(this.parts.mark, isVeiled ? MARKS[mark] : "");
    this.#describe();
  }

  /** Write the caption: of what is shown, or of what is wanted where that is marked as not there. */
  #describe() {
    const { parts, catalogue } = this;
    const { state, support, isPreview } = this.#marked || !this.#shown ? this.#wanted : this.#shown;
    const label = classLabel(catalogue, state);
    const { family } = modelOf(catalogue, state.model);
    const isOneOfTwo = this.#wanted.state.other !== null && catalogue.models.length > 1;
    setText(parts.class, isOneOfTwo ? `${label}, ${family}` : label);
    if (parts.seed) setText(parts.seed, `seed ${state.seed}`);
    const origin = originOf(modelOf(catalogue, state.model));
    const [say, sentence] = VERDICTS[support] ?? [() => ""];
    const words = this.#marked ? MARKS[this.#marked] : say(origin);
    parts.support.dataset.verdict = this.#marked || support || "";
    setText(parts.support, isPreview ? `preview, ${words}` : words);
    const isOne = Object.values(state.values).filter((value) => value !== null).length === 1;
    const values = isOne ? "a value like this" : "values like these together";
    const only = inSentence(classLabel(catalogue, { ...state, second: null })); // whose galaxies the verdict is about
    const verdict = (!this.#marked && sentence?.(`${origin} ${only} galaxies`, values)) || "";
    setText(parts.verdict, verdict || "\u00a0");
    parts.time.classList.toggle("past", Boolean(this.#marked));
    const name = `${label} galaxy, seed ${state.seed}`;
    this.canvas.setAttribute("aria-label", this.#marked ? `${name}: ${words}` : [isPreview ? `Preview: ${name}` : name, verdict].filter(Boolean).join(". "));
  }
}

/** Tell whether two requests differ by nothing but values: then the picture of one is a step on the way to the other's. */
export const isSameKind = (one, other) =>
  Boolean(one && other) && ["model", "morphology", "seed"].every((name) => one[name] === other[name]);
