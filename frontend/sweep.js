// Sweep of one attribute from low to high: a film strip, a player, and the measured curve against the requested one.

import { make, setText } from "./elements.js";
import { isSeen, signed } from "./gauges.js";
import { getJson, getPicture } from "./requests.js";
import { inSentence, modelOf, originOf, place, print, request } from "./state.js";

const STEPS = 13;
const PIXELS = 128; // of a frame
const FRAMES_PER_SECOND = 5;
const UNSEEN = "The film is drawn once this part of the page is in view.";
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** What a film belongs to: a request, whatever its value of the attribute that is swept. */
export const filmOf = (state, catalogue) =>
  `${request({ ...state, values: { ...state.values, [state.sweep]: null } }, catalogue)}&sweep=${state.sweep}`;

export class Sweep {
  #film = null; // {key, of, sheet, readings, attribute, morphology} of what is shown
  #failed = null; // what the film that could not be had would have been of
  #position = 0; // frame, with a fraction while it plays
  #direction = 1;
  #clock = 0; // of the last drawn frame, 0: not playing

  /** @param {HTMLElement} root section of the page  @param {Lane} lane */
  constructor(root, lane) {
    this.root = root;
    this.lane = lane;
    this.isVisible = false;
    const part = (name) => root.querySelector(name);
    this.parts = {
      choice: part("select"),
      canvas: part(".projector canvas"),
      frame: part("#sweep-frame"),
      film: part(".film"),
      strip: part(".film canvas"),
      marks: part(".film .marks"),
      plot: part(".plot svg"),
      low: part(".low"),
      high: part(".high"),
      ticks: part(".ticks"),
      across: part("p.axis"),
      up: part(".plot .axis"),
      reading: part("#sweep-reading"),
      words: part("#sweep-words"),
      play: part("[data-action=play]"),
      take: part("[data-action=take]"),
    };
    const { frame, film } = this.parts;
    frame.max = STEPS - 1;
    frame.addEventListener("input", () => this.go(Number(frame.value)));
    for (const one of [film, part(".plot")]) {
      one.addEventListener("click", (event) => {
        const box = one.getBoundingClientRect();
        this.go(Math.floor(((event.clientX - box.left) / box.width) * STEPS));
      });
    }
  }

  /** Show the attributes of the state's model in the choice. */
  render(state, catalogue) {
    const { choice } = this.parts;
    const { attributes } = modelOf(catalogue, state.model);
    const names = attributes.map((a) => a.name).join();
    if (choice.dataset.names !== names) {
      choice.replaceChildren(...attributes.map((a) => make("option", { value: a.name }, isSeen(a) ? a.label : `${a.label} (not visible)`)));
      choice.dataset.names = names;
    }
    choice.value = state.sweep;
    const isStale = this.#film?.of !== filmOf(state, catalogue);
    if (isStale && this.#clock) this.pause();
    this.root.classList.toggle("stale", isStale);
    if (!isStale) return;
    const isFailed = this.#failed === filmOf(state, catalogue);
    setText(this.parts.reading, "");
    setText(this.parts.words, isFailed ? "The film could not be drawn." : this.isVisible ? "Drawing the film…" : UNSEEN);
    this.parts.canvas.setAttribute("aria-label", "No frame yet");
  }

  /** Whether the film that is shown is that of the state that was rendered last. */
  get #isStale() {
    return this.root.classList.contains("stale");
  }

  /**
   * Ask for the film of a state in which nothing is free but what is swept, if it can be seen.
   *
   * @param {string} of  `filmOf` the state as it is, with what is free  @param redraw called when something changed
   */
  load(state, catalogue, of, redraw) {
    if (!this.isVisible) return;
    const attribute = modelOf(catalogue, state.model).attributes.find((a) => a.name === state.sweep);
    const rest = { ...state, values: { ...state.values, [state.sweep]: null } };
    const query = request(rest, catalogue, { sweep: state.sweep, steps: STEPS });
    this.root.classList.add("waiting");
    this.#failed = null;
    if (this.#film?.key === query) {
      this.#film.of = of;
      redraw();
    }
    this.lane.ask({
      key: query,
      work: (signal) =>
        Promise.all([
          getPicture(`api/sheet.png?${query}&pixels=${PIXELS}`, signal),
          getJson(`api/sheet.json?${query}`, signal),
        ]),
      show: ([sheet, { tiles }]) => {
        const readings = tiles.map((tile) => ({ ...tile.attributes[state.sweep], support: tile.support }));
        const isOther = this.#film?.attribute.name !== attribute.name;
        this.#film = { key: query, of, sheet, readings, attribute, morphology: state.morphology, model: state.model };
        if (isOther && !this.#clock) this.#position = this.#nearest(state.values[state.sweep]);
        this.root.classList.remove("stale");
        this.#show(catalogue);
        redraw();
      },
      failed: () => {
        this.#failed = of;
        redraw();
      },
      done: () => this.root.classList.remove("waiting"),
    });
  }

  /** Value of the present frame. */
  get value() {
    return this.#isStale ? null : this.#film?.readings[Math.round(this.#position)].requested ?? null;
  }

  /** Show one frame and stop there. */
  go(frame) {
    this.pause();
    this.#position = Math.min(STEPS - 1, Math.max(0, frame));
    this.#draw();
  }

  toggle() {
    if (this.#clock) this.pause();
    else if (this.#film && !this.#isStale) {
      this.#clock = performance.now();
      this.#label("Pause");
      requestAnimationFrame((now) => this.#tick(now));
    }
  }

  pause() {
    this.#clock = 0;
    this.#position = Math.round(this.#position);
    this.#label("Play");
    this.#draw();
  }

  #label(text) {
    this.parts.play.firstChild.textContent = text;
  }

  #tick(now) {
    if (!this.#clock) return;
    const pace = still.matches ? 1 : FRAMES_PER_SECOND;
    this.#position += (this.#direction * pace * Math.min(200, now - this.#clock)) / 1000;
    this.#clock = now;
    // There and back again: an end that jumps to the start would look like a fault.
    if (this.#position >= STEPS - 1 || this.#position <= 0) this.#direction = this.#position <= 0 ? 1 : -1;
    this.#position = Math.min(STEPS - 1, Math.max(0, this.#position));
    this.#draw();
    requestAnimationFrame((then) => this.#tick(then));
  }

  #nearest(value) {
    if (value === null) return 0;
    const off = this.#film.readings.map((reading) => Math.abs(reading.requested - value));
    return off.indexOf(Math.min(...off));
  }

  #show(catalogue) {
    const { sheet, readings, attribute } = this.#film;
    const { parts } = this;
    const marks = readings.map(({ support }) => make("i", { className: support }));
    Object.assign(parts.strip, { width: sheet.width, height: sheet.height }).getContext("2d").drawImage(sheet, 0, 0);
    parts.marks.replaceChildren(...marks);
    parts.ticks.replaceChildren(...readings.map(({ requested }) => make("span", {}, print(attribute, requested))));
    this.#plot(catalogue);
    this.#draw();
  }

  /** Draw the curve; its points stand under the frames that they belong to. */
  #plot(catalogue) {
    const { readings, attribute, morphology } = this.#film;
    const { parts } = this;
    const found = readings.map((reading) => reading.measured).filter((value) => value !== null);
    const low = Math.min(attribute.low, ...found);
    const high = Math.max(attribute.high, ...found);
    const [bottom, top] = [place(attribute, low), place(attribute, high)];
    const x = (value) => 1000 * ((place(attribute, value) * (STEPS - 1) + 0.5) / STEPS);
    const y = (value) => 1000 - (1000 * (place(attribute, value) - bottom)) / (top - bottom);
    const line = (points) => points.map(([px, py], k) => `${k ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
    const draw = (name, path) => parts.plot.querySelector(name).setAttribute("d", path);

    const known = parts.plot.querySelector(".known");
    const range = attribute.supported[morphology];
    const [from, to] = range ? range.map((end) => x(Math.min(attribute.high, Math.max(attribute.low, end)))) : [0, 0];
    known.setAttribute("x", from);
    known.setAttribute("width", to - from);
    draw(".grid", [0, 0.25, 0.5, 0.75, 1].map((part) => `M0 ${1000 * part}H1000`).join(""));
    draw(".asked", line(readings.map(({ requested }) => [x(requested), y(requested)])));
    const points = readings.filter((r) => r.measured !== null).map((r) => [x(r.requested), y(r.measured)]);
    draw(".found", line(points));
    draw(".dots", points.map(([px, py]) => `M${px.toFixed(1)} ${py.toFixed(1)}h.01`).join(""));
    parts.low.textContent = print(attribute, low);
    parts.high.textContent = print(attribute, high);
    const unit = attribute.unit && `, ${attribute.unit}`;
    setText(parts.across, `${attribute.label} asked${unit}`);
    setText(parts.up, attribute.measured ? `measured${unit}` : "not measured");
    parts.words.textContent = this.#summary(catalogue);
  }

  #summary(catalogue) {
    const { readings, attribute, morphology } = this.#film;
    const label = inSentence(catalogue.morphologies.find((m) => m.name === morphology).label);
    if (!attribute.measured) return isSeen(attribute) ? `Photometry does not measure ${attribute.label}: there is no curve.` : `${attribute.label} cannot be measured on a picture: there is no curve.`;
    const inside = readings.filter((r) => r.measured !== null && r.support === "like");
    const which = `${originOf(modelOf(catalogue, this.#film.model))} ${label} galaxies`;
    if (inside.length === 0) return `No frame is like ${which} and shows a galaxy to measure.`;
    const off = inside.map((r) => r.measured - r.requested);
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    return (
      `In the ${inside.length} of ${STEPS} frames that are like ${which} the pictures miss what was asked by ` +
      `${print(attribute, mean(off.map(Math.abs)))} ${attribute.unit} on average, with a bias of ${signed(attribute, mean(off))}.`
    ).replace(/ +/g, " ");
  }

  #draw() {
    if (!this.#film || this.#isStale) return;
    const { sheet, readings, attribute } = this.#film;
    const { parts } = this;
    const context = parts.canvas.getContext("2d");
    const edge = parts.canvas.width;
    const first = Math.floor(this.#position);
    context.imageSmoothingQuality = "high";
    const frame = (k, alpha) => {
      context.globalAlpha = alpha;
      context.drawImage(sheet, k * PIXELS, 0, PIXELS, PIXELS, 0, 0, edge, edge);
    };
    frame(first, 1);
    if (first < STEPS - 1 && !still.matches) frame(first + 1, this.#position - first);

    const nearest = Math.round(this.#position);
    const { requested, measured } = readings[nearest];
    const found = measured === null ? "" : `, measured ${print(attribute, measured)}`;
    parts.reading.textContent = `asked ${print(attribute, requested)}${found}`;
    parts.canvas.setAttribute("aria-label", `Frame ${nearest + 1} of ${STEPS}: ${parts.reading.textContent}`);
    parts.frame.value = nearest;
    parts.frame.setAttribute("aria-valuetext", parts.reading.textContent);
    const at = (1000 * (this.#position + 0.5)) / STEPS;
    parts.plot.querySelector(".here").setAttribute("d", `M${at.toFixed(1)} 0V1000`);
    parts.film.style.setProperty("--frame", nearest);
  }
}
