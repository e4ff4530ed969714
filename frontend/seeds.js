// Strip of eight other seeds: the same request, another galaxy.

import { make } from "./elements.js";
import { getPicture } from "./requests.js";
import { request } from "./state.js";

const COUNT = 9; // consecutive seeds in a sheet; the one in use is left out of the strip
const PIXELS = 64;

export class Seeds {
  #first = null;
  #shown = { seeds: [] };

  /** @param {HTMLElement} root  @param {Lane} lane */
  constructor(root, lane) {
    this.root = root;
    this.before = root.parentElement.querySelector("[data-action=fewer]");
    this.lane = lane;
    this.buttons = Array.from({ length: COUNT - 1 }, () => {
      const tile = make("canvas", { width: 2 * PIXELS, height: 2 * PIXELS, ariaHidden: "true" });
      const button = make("button", { type: "button", disabled: true }, tile, make("span", {}, "\u00a0"));
      root.append(button);
      return button;
    });
  }

  /** Move on by so many sheets of seeds, or back. */
  move(sheets, state, catalogue) {
    const last = catalogue.max_seed - COUNT + 1;
    this.#first = Math.min(last, Math.max(0, (this.#first ?? state.seed) + sheets * COUNT));
  }

  /** Mark tiles of a former request as such. */
  render(state, catalogue) {
    this.root.parentElement.classList.toggle("stale", this.#shown.query !== this.#query(state, catalogue));
    this.before.setAttribute("aria-disabled", String(!this.#first));
  }

  /** Query of the sheet for a state: seeds from the first one in use on, until somebody asks for more. */
  #query(state, catalogue) {
    const first = this.#first ?? Math.min(state.seed, catalogue.max_seed - COUNT + 1);
    return request({ ...state, seed: first }, catalogue, { seeds: COUNT, pixels: PIXELS });
  }

  /** Ask for the strip's seeds; `redraw` is called when they are there. */
  load(state, catalogue, redraw) {
    this.#first ??= Math.min(state.seed, catalogue.max_seed - COUNT + 1);
    const first = this.#first;
    const query = this.#query(state, catalogue);
    this.render(state, catalogue);
    this.lane.ask({
      key: `${query}#${state.seed}`,
      work: (signal) => (this.#shown.query === query ? this.#shown.sheet : getPicture(`api/sheet.png?${query}`, signal)),
      show: (sheet) => {
        this.#shown = { query, sheet };
        this.#draw(sheet, first, state.seed);
        redraw();
      },
    });
  }

  #draw(sheet, first, current) {
    const seeds = Array.from({ length: COUNT }, (_, k) => first + k).filter((seed) => seed !== current);
    this.buttons.forEach((button, k) => {
      const context = button.firstChild.getContext("2d");
      context.imageSmoothingQuality = "high";
      const [side, edge] = [PIXELS, 2 * PIXELS];
      context.drawImage(sheet, (seeds[k] - first) * side, 0, side, side, 0, 0, edge, edge);
      button.lastChild.textContent = seeds[k];
      button.setAttribute("aria-label", `Seed ${seeds[k]}`);
      button.dataset.seed = seeds[k];
      button.disabled = false;
    });
  }
}
