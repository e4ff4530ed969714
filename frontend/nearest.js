// The real galaxies nearest to the one that was asked for: what "like real galaxies" looks like.

import { make, setText } from "./elements.js";
import { getJson } from "./requests.js";
import { modelOf, print, request } from "./state.js";

export class Nearest {
  #shown = null; // query

  /** @param {HTMLElement} root part of the page  @param {Lane} lane */
  constructor(root, lane) {
    this.root = root;
    this.lane = lane;
    this.tiles = root.querySelector(".tiles");
    this.words = root.querySelector("p");
  }

  /** Show whether what is there is of the state; without a set of real galaxies there is nothing. */
  render(state, catalogue) {
    this.root.hidden = catalogue.real === null;
    if (this.root.hidden) return;
    setText(this.root.querySelector("h2"), `Nearest ${catalogue.real.origin} galaxies`);
    this.root.classList.toggle("stale", this.#shown !== request(state, catalogue));
  }

  load(state, catalogue, redraw) {
    if (catalogue.real === null) return;
    const query = request(state, catalogue);
    this.lane.ask({
      key: query,
      work: (signal) => getJson(`api/nearest?${query}`, signal),
      show: ({ galaxies }) => {
        this.#shown = query;
        const isAsked = modelOf(catalogue, state.model).attributes.some(({ name }) => state.values[name] !== null);
        this.#draw(galaxies, modelOf(catalogue, state.model), catalogue.real, isAsked);
        redraw();
      },
    });
  }

  #draw(galaxies, model, { credit, origin }, isAsked) {
    this.tiles.replaceChildren(
      ...galaxies.map(({ object_id, distance, values, picture }) => {
        const known = model.attributes.filter((a) => (values[a.name] ?? null) !== null);
        const words = known.map((a) => `${a.label} ${print(a, values[a.name])}`).join(", ");
        const alt = `${origin[0].toUpperCase()}${origin.slice(1)} galaxy ${object_id}: ${words}`;
        return make("figure", { title: alt }, make("img", { src: picture, alt }), make("figcaption", {}, `${distance.toFixed(2)} off`));
      }),
    );
    const whose = { mock: "Drawn by the mock survey, none of the sky", simulated: `Of a simulation, none of the sky: ${credit}`, real: credit }[origin];
    setText(
      this.words,
      galaxies.length
        ? `How far they are off in what was asked, in spreads of the class. ${whose}.`
        : isAsked
          ? "None of the class is known by what was asked."
          : "All values are free: set one, and the galaxies nearest to it stand here.",
    );
  }
}
