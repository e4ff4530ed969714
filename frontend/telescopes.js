// The same galaxy through several telescopes, side by side: what each survey sees in its own pixels.

import { make, surveyPixels, setText } from "./elements.js";
import { getPicture } from "./requests.js";
import { modelOf, request } from "./state.js";

const OWN = "";

export class Telescopes {
  #shown = null; // {query} of the pictures
  #figures = new Map(); // by survey: {canvas, words}
  #model = null;

  /** @param {HTMLElement} root section of the page  @param {Lane} lane  @param changed called when another exposure is chosen */
  constructor(root, lane, changed) {
    this.root = root;
    this.lane = lane;
    this.row = root.querySelector(".surveys");
    this.exposure = root.querySelector("select");
    this.exposure.addEventListener("input", changed);
  }

  /** Surveys that can see the light of the state's model. */
  static #able(state, catalogue) {
    return modelOf(catalogue, state.model).telescopes.filter((one) => one.refused === null);
  }

  /** What is asked for: the galaxy, and for how long each survey looks. */
  #query(state, catalogue) {
    return request(state, catalogue, this.exposure.value === OWN ? {} : { exposure: this.exposure.value });
  }

  render(state, catalogue) {
    this.root.hidden = !state.inspect || Telescopes.#able(state, catalogue).length === 0;
    if (this.root.hidden) return;
    const model = modelOf(catalogue, state.model);
    if (model !== this.#model) this.#build(model);
    this.#model = model;
    this.root.classList.toggle("stale", this.#shown !== this.#query(state, catalogue));
    for (const { name, bands } of Telescopes.#able(state, catalogue)) setText(this.#figures.get(name).words, this.#words(bands));
  }

  #words(bands) {
    const width = (values) => [...new Set([Math.min(...values), Math.max(...values)].map((value) => value.toFixed(2)))].join(" to ");
    const own = [...new Set(bands.map((band) => Math.round(band.exposure_s)))];
    const time = this.exposure.value === OWN ? (own.length > 1 ? `${Math.min(...own)} to ${Math.max(...own)}` : own[0]) : this.exposure.value;
    return `${bands.map((band) => band.name).join(", ")}; ${time} s a band, PSF ${width(bands.map((band) => band.psf_fwhm))}″`;
  }

  #build(model) {
    this.#figures.clear();
    this.#shown = null;
    this.row.replaceChildren(
      ...model.telescopes.map((survey) => {
        const { name, label, refused } = survey;
        if (refused !== null) return make("figure", {}, make("p", { className: "refused" }, `${refused}.`), make("figcaption", {}, make("b", {}, label)));
        const canvas = make("canvas", { width: 64, height: 64, role: "img", ariaLabel: `${label}: no picture yet` });
        const words = make("span", {});
        this.#figures.set(name, { canvas, words });
        return make("figure", {}, canvas, make("figcaption", {}, make("b", {}, label), make("span", {}, surveyPixels(survey, model)), words));
      }),
    );
  }

  /** Ask for the pictures of a state; `redraw` is called when they are there. */
  load(state, catalogue, redraw) {
    if (this.root.hidden) return;
    const able = Telescopes.#able(state, catalogue);
    const query = this.#query(state, catalogue);
    this.lane.ask({
      key: query,
      work: (signal) => Promise.all(able.map(({ name }) => getPicture(`api/telescope.png?${query}&survey=${name}`, signal))),
      show: (pictures) => {
        this.#shown = query;
        able.forEach(({ name, label }, k) => {
          const { canvas } = this.#figures.get(name);
          canvas.width = canvas.height = pictures[k].width;
          canvas.getContext("2d").drawImage(pictures[k], 0, 0);
          canvas.setAttribute("aria-label", `As ${label} sees it, ${pictures[k].width} × ${pictures[k].width} pixels`);
        });
        redraw();
      },
    });
  }
}
