// A picture in its frame: crossfade, glow, half-light rings, caption, and whether there are real galaxies like it.

import { setText } from "./elements.js";
import { modelOf } from "./state.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");

const FADE = 260; // ms of a crossfade; within a drag pictures follow each other as they come, like those of a film

const PATIENCE = 400; // ms
const GLOW = 16; // pixels of the glow's canvas

/** The server's verdicts on a request: in a word or two, and in a sentence about galaxies and their values. */
const VERDICTS = {
  like: ["like real galaxies", (galaxies, values) => `Real ${galaxies} have ${values}.`],
  unusual: ["unusual", (galaxies, values) => `Few real ${galaxies} have ${values}.`],
  invented: ["invented", (galaxies, values) => `No real ${galaxies} have ${values}: the network makes this one up.`],
};

export class Frame {
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
    this.parts = { class: part(".class"), support: part(".support"), verdict: part(".verdict"), time: part(".time"), seed: part("span.seed") };
    this.rings = { asked: part(".rings .asked"), found: part(".rings .found") };
  }

  /** Pixels a side to ask for: more on a large screen once nothing moves. */
  pixels(settled) {
    return settled && this.canvas.clientWidth * devicePixelRatio > 900 ? 512 : 256;
  }

  /** Show a decoded picture; after a single act it fades in over the former one. */
  show(bitmap, query, isDrag) {
    const { canvas, picture } = this;
    const old = this.shown;
    this.shown = bitmap;
    canvas.dataset.query = query;
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

  /** Show that a picture is under way, if it takes long enough to be noticed. */
  waiting(isWaiting) {
    if (isWaiting) {
      this.patience ??= setTimeout(() => this.figure.classList.add("waiting"), PATIENCE);
      return;
    }
    clearTimeout(this.patience);
    this.patience = null;
    this.figure.classList.remove("waiting");
  }

  /** Write the caption of a request, with the model's family where another picture stands beside it. */
  caption(state, catalogue) {
    const { label } = catalogue.morphologies.find((m) => m.name === state.morphology);
    const model = modelOf(catalogue, state.model);
    const { parts } = this;
    setText(parts.class, state.other !== null && catalogue.models.length > 1 ? `${label}, ${model.family}` : label);
    if (parts.seed) setText(parts.seed, `seed ${state.seed}`);
    this.named = { label, seed: state.seed };
    this.#describe();
  }

  /** Say whether the galaxy that is shown is like real ones, once the server has told that of its class and values. */
  judge(support, state, catalogue) {
    if (!(support in VERDICTS)) return;
    const { label } = catalogue.morphologies.find((m) => m.name === state.morphology);
    const [words, sentence] = VERDICTS[support];
    const { parts } = this;
    parts.support.dataset.verdict = support;
    setText(parts.support, words);
    const isOne = Object.values(state.values).filter((value) => value !== null).length === 1;
    setText(parts.verdict, sentence(`${label.toLowerCase()} galaxies`, isOne ? "a value like this" : "values like these together"));
    this.#describe();
  }

  #describe() {
    const { label, seed } = this.named;
    const verdict = this.parts.verdict.textContent.trim();
    this.canvas.setAttribute("aria-label", [`${label} galaxy, seed ${seed}`, verdict].filter(Boolean).join(". "));
  }

  /** Draw the circles that should hold, and do hold, half of the light. */
  circle(size) {
    for (const [name, radius] of [["asked", size?.requested], ["found", size?.measured]]) {
      this.rings[name].setAttribute("r", radius ?? 0);
    }
  }
}
