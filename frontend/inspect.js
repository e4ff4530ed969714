// The astronomer's look: native pixels with their values, stretches, single planes, and the light profile.

import { STRETCHES, compositeOf, levels, pixelWords, profile, readCube, scaleBar, stretched, surfaceBrightness } from "./cube.js";
import { inPrint, make, setText } from "./elements.js";
import { Failure, get } from "./requests.js";
import { isSameKind } from "./frame.js";
import { modelOf, request } from "./state.js";

const SURE = 2; // errors of a ring's mean, below which there is no light to see
const COLOR = "color";
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Inspection {
  #shown = null; // {query, state, cube, composite}
  #failed = null; // query
  #isStale = true; // whether what is shown is of a former request
  #ellipse = null;
  #pixel = null; // [column, row] that is read, null: none

  /** @param {HTMLElement} root section of the page  @param {Lane} lane */
  constructor(root, lane) {
    this.root = root;
    this.lane = lane;
    const part = (name) => root.querySelector(name);
    this.parts = {
      canvas: part("canvas"), svg: part(".over"), readout: part("#pixel-reading"), bar: part(".scale-bar"),
      plane: part("#plane"), stretch: part("#stretch"), white: part("#white"), invert: part("#invert"),
      curve: part(".light .curve"), words: part("#profile-words"), high: part(".light .high"), low: part(".light .low"), far: part(".light .far"),
    };
    const { canvas, plane, stretch, white, invert } = this.parts;
    stretch.append(...STRETCHES.map((name) => make("option", { value: name }, name)));
    for (const one of [plane, stretch, white, invert]) one.addEventListener("input", () => this.#draw());
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const { side } = this.#shown?.cube ?? { side: 0 };
      this.#read(Math.floor((side * (event.clientX - box.left)) / box.width), Math.floor((side * (event.clientY - box.top)) / box.height));
    });
    canvas.addEventListener("keydown", (event) => {
      if (!STEPS[event.key] || !this.#shown) return;
      event.preventDefault();
      const middle = Math.floor(this.#shown.cube.side / 2);
      const [column, row] = this.#pixel ?? [middle, middle];
      const [right, down] = this.#pixel ? STEPS[event.key] : [0, 0];
      this.#read(column + right * (event.shiftKey ? 5 : 1), row + down * (event.shiftKey ? 5 : 1));
    });
  }

  /** Show the section or not; what is there of a former request is marked, and the ellipse is that of a fresh measurement. */
  render(state, catalogue, ellipse) {
    this.root.hidden = !state.inspect;
    if (!state.inspect) return;
    const query = request(state, catalogue);
    const isStale = this.#shown?.query !== query;
    this.root.classList.toggle("stale", isStale);
    this.root.classList.toggle("other", isStale && !isSameKind(this.#shown?.state, state));
    if (isStale) setText(this.parts.readout, this.#failed === query ? "The pixels could not be had." : "Reading the pixels…");
    const [isNew, isBack] = [ellipse !== this.#ellipse, !isStale && this.#isStale];
    this.#ellipse = ellipse;
    this.#isStale = isStale;
    if (isBack) this.#draw();
    else if (isNew && !isStale) this.#drawLight();
  }

  /** Ask for the pixels of a state; `redraw` is called when they are there, or cannot be had. */
  load(state, catalogue, redraw) {
    if (!state.inspect) return;
    const query = request(state, catalogue);
    const { composite, wavelengths } = modelOf(catalogue, state.model);
    this.#failed = null;
    this.lane.ask({
      key: query,
      work: async (signal) => {
        const file = await (await get(`api/fits?${query}`, signal)).arrayBuffer();
        try {
          return readCube(file);
        } catch (error) {
          throw new Failure("refused", `The pixels cannot be read: ${error.message}.`);
        }
      },
      show: (cube) => {
        this.#shown = { query, state: { ...state }, cube, composite: compositeOf(cube, { composite, wavelengths }) };
        this.#offer(cube);
        this.#isStale = true;
        redraw();
      },
      failed: () => {
        this.#failed = query;
        redraw();
      },
    });
  }

  /** Offer the planes of a cube, and the stretch that suits it when it is another kind than the one before. */
  #offer({ names, noise }) {
    const { plane, stretch, white } = this.parts;
    if (plane.dataset.names === names.join()) return;
    plane.dataset.names = names.join();
    plane.replaceChildren(make("option", { value: COLOR }, "colour"), ...names.map((name, k) => make("option", { value: String(k) }, name)));
    stretch.value = noise ? "asinh" : "linear";
    white.value = noise ? 0.8 : 1;
  }

  get #planes() {
    const { cube, composite } = this.#shown;
    const { value } = this.parts.plane;
    return value === COLOR ? composite : [cube.planes[Number(value)]];
  }

  #draw() {
    if (!this.#shown) return;
    const { canvas, stretch, white, invert, bar } = this.parts;
    const { cube } = this.#shown;
    canvas.width = canvas.height = cube.side;
    const view = { stretch: stretch.value, isInverted: invert.checked, ...levels(cube, this.#planes, Number(white.value)) };
    canvas.getContext("2d").putImageData(new ImageData(stretched(this.#planes, view), cube.side, cube.side), 0, 0);
    const { pixels, words } = scaleBar(cube);
    bar.style.setProperty("--part", pixels / cube.side);
    setText(bar, words);
    this.root.classList.toggle("is-light", invert.checked);
    const [column, row] = this.#pixel ?? [];
    if (this.#pixel) this.#read(column, row);
    else setText(this.parts.readout, `${cube.side} × ${cube.side} native pixels: point at one, or focus the picture and use the arrow keys.`);
    this.#drawLight();
  }

  #read(column, row) {
    if (!this.#shown) return;
    const { cube } = this.#shown;
    const inside = (place) => Math.min(cube.side - 1, Math.max(0, place));
    this.#pixel = [inside(column), inside(row)];
    const cursor = this.parts.svg.querySelector("rect");
    for (const [name, value] of Object.entries({ x: this.#pixel[0] / cube.side, y: this.#pixel[1] / cube.side, width: 1 / cube.side, height: 1 / cube.side })) {
      cursor.setAttribute(name, value);
    }
    setText(this.parts.readout, pixelWords(cube, ...this.#pixel));
  }

  /** Draw the measured ellipse, and the light in rings of its shape. */
  #drawLight() {
    const { svg, curve, words, high, low, far } = this.parts;
    const ring = svg.querySelector("ellipse");
    ring.toggleAttribute("hidden", !this.#ellipse);
    if (!this.#ellipse) {
      curve.setAttribute("d", "");
      for (const one of [high, low, far]) setText(one, "");
      setText(words, "No light profile: there is no measured ellipse of this galaxy.");
      return;
    }
    const { x, y, semi_major, semi_minor, angle } = this.#ellipse;
    for (const [name, value] of Object.entries({ cx: x, cy: y, rx: semi_major, ry: semi_minor, transform: `rotate(${angle} ${x} ${y})` })) {
      ring.setAttribute(name, value);
    }
    const { cube } = this.#shown;
    const planes = this.#planes;
    const mean = planes.length === 1 ? planes[0] : planes[0].map((_, n) => planes.reduce((sum, plane) => sum + plane[n], 0) / planes.length);
    const rings = profile(mean, cube.side, this.#ellipse);
    // Of flux in magnitudes a square arcsecond, as far as there is light; of a display in its grey levels.
    const isFlux = cube.noise !== null;
    const isLight = ({ value, error }) => value > SURE * error;
    const points = rings.map((ring) => [ring.radius, isFlux ? (isLight(ring) ? surfaceBrightness(ring.value, cube.pixelScale) : null) : ring.value]);
    const end = points.findIndex(([, value]) => value === null);
    const known = end < 0 ? points : points.slice(0, end);
    const values = known.map(([, value]) => value);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const up = (value) => (isFlux ? most - value : value - least) / (most - least || 1);
    const width = cube.side / 2;
    curve.setAttribute("d", known.map(([radius, value], k) => `${k ? "L" : "M"}${((1000 * radius) / width).toFixed(1)} ${(1000 * (1 - up(value))).toFixed(1)}`).join(""));
    const unit = isFlux ? "mag/arcsec²" : "grey levels";
    const digits = isFlux ? 1 : 0;
    setText(high, `${inPrint((isFlux ? least : most).toFixed(digits))} ${unit}`);
    setText(low, inPrint((isFlux ? most : least).toFixed(digits)));
    setText(far, isFlux ? `${(width * cube.pixelScale).toFixed(1)}″` : `${width} pixels`);
    const half = 2 * semi_major * width;
    const plane = this.parts.plane.selectedOptions[0]?.textContent;
    setText(
      words,
      `Light (${plane === "colour" ? "mean of the planes" : plane}) in rings of the measured ellipse, against their semi-major axis; ` +
        `half of the light lies within ${isFlux ? `${(half * cube.pixelScale).toFixed(2)}″` : `${half.toFixed(1)} pixels`}.`,
    );
  }
}
