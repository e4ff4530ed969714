// Picture B beside A, and the table of what was asked and what was measured of both.

import { make } from "./elements.js";
import { getGalaxy, getJson } from "./requests.js";
import { halfLight, modelOf, otherState, print, request } from "./state.js";

export class Comparison {
  #measured = null; // {query, attributes, ellipse} of B

  /** @param {Frame} frame of B  @param {HTMLElement} section with the table  @param lanes {picture, measure} */
  constructor(frame, section, lanes) {
    this.frame = frame;
    this.section = section;
    this.rows = section.querySelector("tbody");
    this.lanes = lanes;
  }

  /** Show B and the table, or neither; `ofA` holds the attributes measured of A. */
  render(state, catalogue, ofA) {
    const other = otherState(state, catalogue);
    this.frame.figure.hidden = this.section.hidden = !other;
    if (!other) return;
    this.frame.expect(other, catalogue);
    const query = request(other, catalogue);
    const reading = this.#measured?.query === query ? this.#measured : undefined;
    const ofB = reading?.attributes;
    this.frame.outline(halfLight(modelOf(catalogue, other.model), other.values, reading, reading));
    const sides = [[state, ofA], [other, ofB]];
    const attributes = new Map(sides.flatMap(([side]) => modelOf(catalogue, side.model).attributes.map((a) => [a.name, a])));
    this.rows.replaceChildren(
      ...[...attributes.values()].map((a) =>
        make("tr", {}, make("th", { scope: "row" }, a.label), ...sides.flatMap(([side, readings]) => cells(a, side, readings))),
      ),
    );
  }

  /** Ask for B's picture and measurement; `redraw` is called when it is measured. */
  load(state, catalogue, redraw) {
    const other = otherState(state, catalogue);
    if (!other) {
      for (const lane of Object.values(this.lanes)) lane.clear();
      return;
    }
    const query = request(other, catalogue);
    const key = `${query}&pixels=${this.frame.pixels(true)}`;
    this.lanes.picture.ask({
      key,
      work: (signal) => getGalaxy(`api/image.png?${key}`, signal),
      show: ({ picture, support }, ms) => {
        this.frame.show({ picture, support, ms }, other, false);
      },
      failed: () => this.frame.fail(),
    });
    this.lanes.measure.ask({
      key: query,
      work: (signal) => getJson(`api/measure?${query}`, signal),
      show: ({ attributes, ellipse }) => {
        this.#measured = { query, attributes, ellipse };
        redraw();
      },
    });
  }
}

function cells(attribute, side, readings) {
  const knows = attribute.name in side.values;
  const set = side.values[attribute.name] ?? null;
  const reading = readings?.[attribute.name];
  const asked = set ?? reading?.requested ?? null;
  const found = reading?.measured ?? null;
  const text = (value) => (value === null ? "–" : print(attribute, value));
  return [
    make("td", { className: "asked" }, knows && set === null ? ["free", asked === null ? "" : text(asked)].join(" ").trim() : text(asked)),
    make("td", { className: "found" }, text(found)),
  ];
}
