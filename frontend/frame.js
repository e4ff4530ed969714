// A picture in its frame: crossfade, glow, half-light rings, caption.

import { isSupported, modelOf } from "./state.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Milliseconds of a crossfade: short within a drag, whose pictures differ little. */
const FADE = { drag: 50, step: 260 };

export class Frame {
  /** @param {HTMLElement} figure */
  constructor(figure) {
    this.figure = figure;
    this.layers = figure.querySelector(".layers");
    this.glow = figure.querySelector(".glow").getContext("2d");
    const part = (name) => figure.querySelector(name);
    this.parts = { class: part(".class"), support: part(".support"), time: part(".time"), seed: part("span.seed") };
    this.rings = { asked: part(".rings .asked"), found: part(".rings .found") };
  }

  /** Pixels a side to ask for: more on a large screen once nothing moves. */
  pixels(settled) {
    return settled && this.layers.clientWidth * devicePixelRatio > 900 ? 512 : 256;
  }

  /** Fade from the picture that is shown to a decoded one. */
  show(image, query, isDrag) {
    image.dataset.query = query;
    const old = [...this.layers.children];
    this.layers.append(image);
    const glow = this.glow;
    glow.globalAlpha = isDrag ? 0.4 : 1;
    const { naturalWidth: side } = image;
    glow.drawImage(image, side / 4, side / 4, side / 2, side / 2, 0, 0, 8, 8);
    for (const layer of old.slice(0, -1)) layer.remove();
    const last = old.at(-1);
    if (!last || still.matches) {
      last?.remove();
      return;
    }
    const fade = image.animate([{ opacity: 0 }, { opacity: 1 }], { duration: isDrag ? FADE.drag : FADE.step, easing: "ease-out" });
    fade.onfinish = () => last.remove();
  }

  waiting(isWaiting) {
    this.figure.classList.toggle("waiting", isWaiting);
  }

  /** Write the caption of a request, with the model's family where another picture stands beside it. */
  caption(state, catalogue) {
    const { label } = catalogue.morphologies.find((m) => m.name === state.morphology);
    const model = modelOf(catalogue, state.model);
    const beyond = model.attributes.filter(
      (a) => state.values[a.name] !== null && !isSupported(a, state.morphology, state.values[a.name]),
    );
    const { parts } = this;
    parts.class.textContent = state.other !== null && catalogue.models.length > 1 ? `${label}, ${model.family}` : label;
    if (parts.seed) parts.seed.textContent = `seed ${state.seed}`;
    parts.support.textContent = beyond.length ? "beyond the training data" : "within the training data";
    parts.support.classList.toggle("beyond", beyond.length > 0);
    this.layers.setAttribute("aria-label", `${label} galaxy, seed ${state.seed}, ${parts.support.textContent}`);
  }

  /** Draw the circles that should hold, and do hold, half of the light. */
  circle(size) {
    for (const [name, radius] of [["asked", size?.requested], ["found", size?.measured]]) {
      this.rings[name].setAttribute("r", radius ?? 0);
    }
  }
}
