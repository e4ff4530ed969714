// The page of a sky that can be moved about: what is in sight is asked for square by square, laid down and clicked.

import { make, setText } from "./elements.js";
import { TILE, galaxiesOf, mixed, tilesIn } from "./field_layout.js";
import { backdropOf, drawTile, stampOf } from "./field_pixels.js";
import { Failure, getJson, getPicture } from "./requests.js";

const PICTURE = 64; // pixels a side at which galaxies are asked for
const KEPT = 60; // squares
const ZOOMS = [1, 2, 4];
const STEP = 80; // CSS pixels that an arrow key moves the sky by
const DRAG = 4; // CSS pixels from which a press is a drag
const LEAST_TARGET = 26; // CSS pixels of the smallest galaxy's button

const $ = (selector) => document.querySelector(selector);
const view = $("#view");
const canvas = view.querySelector("canvas");
const buttons = $("#galaxies");
const message = $("#message");
const zoomButtons = document.querySelectorAll("[data-zoom]");

const squares = new Map(); // by place: {column, row, galaxies, image}
let catalogue = null;
let model = null;
let place = { sky: 1, x: 0, y: 0, zoom: 1 }; // x, y: the middle of the window, pixels of the sky
let backdrop = null;
let loading = false;
let awaited = 0; // timer of the next try
let chosen = null;
let painting = 0;
let laidAt = 1; // magnification at which the buttons lie

const keyOf = (column, row) => `${column},${row}`;
const labelOf = (name) => catalogue.morphologies.find((m) => m.name === name).label;

// Place and address

function readAddress() {
  const query = new URLSearchParams(location.search);
  const whole = (name, otherwise) => {
    const number = Number(query.get(name) ?? NaN);
    return Number.isSafeInteger(number) && Math.abs(number) < 2 ** 31 ? number : otherwise;
  };
  place = { sky: whole("sky", 1), x: whole("x", 0), y: whole("y", 0), zoom: whole("zoom", 1) };
  if (!ZOOMS.includes(place.zoom)) place.zoom = 1;
  model = catalogue.models.find(({ id }) => id === query.get("model")) ?? catalogue.models.find(({ id }) => id === catalogue.default);
}

let written = 0;
function writeAddress() {
  clearTimeout(written);
  written = setTimeout(() => {
    const { sky, x, y, zoom } = place;
    history.replaceState(null, "", `?${new URLSearchParams({ sky, x: Math.round(x), y: Math.round(y), zoom, model: model.id })}`);
  }, 250);
}

function moveTo(change) {
  Object.assign(place, change);
  for (const button of zoomButtons) button.ariaPressed = String(Number(button.dataset.zoom) === place.zoom);
  writeAddress();
  paintSoon();
  load();
}

function inSight(margin = 0) {
  const [width, height] = [view.clientWidth / place.zoom / 2 + margin, view.clientHeight / place.zoom / 2 + margin];
  return { left: place.x - width, right: place.x + width, top: place.y - height, bottom: place.y + height };
}

// Squares

async function load() {
  if (loading || awaited) return;
  loading = true;
  try {
    backdrop ??= backdropOf(await stampsOf(model.classes[0], 0, Array(16).fill(1)));
    for (;;) {
      // Galaxies of the squares beside reach into sight by half a picture at most.
      const wanted = tilesIn(inSight(PICTURE)).filter(([column, row]) => !squares.has(keyOf(column, row)));
      if (!wanted.length) break;
      const all = tilesIn(inSight(PICTURE)).length;
      setText(message, `Drawing square ${all - wanted.length + 1} of ${all} …`);
      await loadSquare(...wanted[0], place.sky, model);
    }
    setText(message, "");
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const wait = error.wait ?? 4;
    const again = error.kind === "refused" ? "" : ` Trying again in ${wait} s.`;
    setText(message, error.message + again);
    if (again) {
      awaited = setTimeout(() => {
        awaited = 0;
        load();
      }, 1000 * wait);
    }
  } finally {
    loading = false;
  }
}

async function loadSquare(column, row, sky, of) {
  const galaxies = galaxiesOf(sky, column, row, model.classes);
  const groups = Map.groupBy(galaxies, ({ morphology }) => morphology);
  await Promise.all([...groups].map(async ([morphology, group]) => {
    const stamps = await stampsOf(morphology, group[0].seed, group.map(({ scale }) => scale));
    group.forEach((galaxy, k) => { galaxy.stamp = stamps[k]; });
  }));
  if (sky !== place.sky || of !== model) return; // meanwhile another sky
  const square = { column, row, galaxies, image: null, buttons: galaxies.map(buttonOf) };
  squares.set(keyOf(column, row), square);
  buttons.append(...square.buttons);
  for (const other of squares.values()) {
    if (Math.abs(other.column - column) <= 1 && Math.abs(other.row - row) <= 1) other.image = null;
  }
  forgetFar();
  paintSoon();
}

/** Galaxies of one class and consecutive seeds, cut out, at their magnifications. */
async function stampsOf(morphology, seed, scales) {
  const count = Math.max(2, scales.length); // fewer are no sheet
  const query = new URLSearchParams({ morphology, seed, seeds: count, columns: count, pixels: PICTURE, model: model.id });
  const sheet = await getPicture(`api/sheet.png?${query}`);
  return scales.map((scale, k) => {
    const side = Math.round(PICTURE * scale);
    const small = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
    small.imageSmoothingQuality = "high";
    small.drawImage(sheet, k * PICTURE, 0, PICTURE, PICTURE, 0, 0, side, side);
    return stampOf(small.getImageData(0, 0, side, side));
  });
}

function forgetFar() {
  const far = ({ column, row }) => Math.hypot((column + 0.5) * TILE - place.x, (row + 0.5) * TILE - place.y);
  const sorted = [...squares.values()].sort((a, b) => far(a) - far(b));
  for (const square of sorted.slice(KEPT)) {
    square.buttons.forEach((button) => button.remove());
    squares.delete(keyOf(square.column, square.row));
  }
}

function forgetAll() {
  squares.clear();
  buttons.replaceChildren();
  choose(null);
}

/** Draw a square anew of its galaxies and those beside it. */
function drawn(square) {
  if (square.image) return square.image;
  const near = [];
  for (const { column, row, galaxies } of squares.values()) {
    if (Math.abs(column - square.column) > 1 || Math.abs(row - square.row) > 1) continue;
    for (const { x, y, stamp } of galaxies) near.push({ x: x - square.column * TILE, y: y - square.row * TILE, stamp });
  }
  const pixels = new ImageData(TILE, TILE);
  drawTile(pixels, near, backdrop, mixed(place.sky, square.column, square.row, 7));
  square.image = new OffscreenCanvas(TILE, TILE);
  square.image.getContext("2d").putImageData(pixels, 0, 0);
  return square.image;
}

// Painting

function paintSoon() {
  painting ||= requestAnimationFrame(paint);
}

function paint() {
  painting = 0;
  const scale = Math.min(2, devicePixelRatio);
  const [width, height] = [view.clientWidth, view.clientHeight];
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  const sight = inSight();
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = backdrop ? `rgb(${backdrop.sky.join(" ")})` : "#04060d";
  context.fillRect(0, 0, canvas.width, canvas.height);
  // Whole device pixels, for squares to meet without a seam.
  const factor = scale * place.zoom;
  const at = (pixel, from) => Math.round((pixel - from) * factor);
  for (const [column, row] of tilesIn(sight)) {
    const square = squares.get(keyOf(column, row));
    if (!square) continue;
    const [left, top] = [at(column * TILE, sight.left), at(row * TILE, sight.top)];
    const [right, bottom] = [at((column + 1) * TILE, sight.left), at((row + 1) * TILE, sight.top)];
    context.drawImage(drawn(square), left, top, right - left, bottom - top);
  }
  buttons.style.transform = `translate(${-sight.left * place.zoom}px, ${-sight.top * place.zoom}px)`;
  if (laidAt !== place.zoom) {
    laidAt = place.zoom;
    for (const { galaxies, buttons: own } of squares.values()) own.forEach((button, k) => lay(button, galaxies[k]));
  }
}

// Galaxies

function buttonOf(galaxy) {
  const button = make("button", { type: "button", ariaLabel: `${labelOf(galaxy.morphology)} galaxy, seed ${galaxy.seed}`, ariaPressed: "false" });
  lay(button, galaxy);
  button.addEventListener("click", () => dragged || choose(button, galaxy));
  button.addEventListener("focus", () => {
    const { left, right, top, bottom } = inSight(-0.3 * PICTURE);
    if (galaxy.x < left || galaxy.x > right || galaxy.y < top || galaxy.y > bottom) moveTo({ x: galaxy.x, y: galaxy.y });
  });
  return button;
}

function lay(button, { x, y, scale }) {
  const side = Math.max(LEAST_TARGET, 0.6 * PICTURE * scale * place.zoom);
  Object.assign(button.style, { left: `${x * place.zoom - side / 2}px`, top: `${y * place.zoom - side / 2}px`, width: `${side}px`, height: `${side}px` });
}

async function choose(button, galaxy) {
  if (chosen) chosen.ariaPressed = "false";
  chosen = button;
  const card = $("#card");
  card.hidden = !button;
  if (!button) return;
  button.ariaPressed = "true";
  const query = new URLSearchParams({ morphology: galaxy.morphology, seed: galaxy.seed, model: model.id });
  const name = labelOf(galaxy.morphology);
  setText(card.querySelector("h2"), `${name}, seed ${galaxy.seed}`);
  Object.assign(card.querySelector("img"), { src: `api/image.png?${query}&pixels=256`, alt: `${name} galaxy, invented` });
  card.querySelector("a").href = `./?${query}`;
  const list = card.querySelector("dl");
  list.replaceChildren(make("dt", {}, "measuring …"));
  try {
    const { attributes } = await getJson(`api/measure?${query}`);
    if (chosen !== button) return;
    const rows = model.attributes.filter((a) => (attributes[a.name]?.measured ?? null) !== null);
    const words = (a) => `${Number(attributes[a.name].measured.toPrecision(3))}${a.unit ? ` ${a.unit}` : ""}`;
    list.replaceChildren(...rows.flatMap((a) => [make("dt", {}, a.label), make("dd", {}, words(a))]));
    if (!rows.length) list.replaceChildren(make("dt", {}, "nothing that could be measured"));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (chosen === button) list.replaceChildren(make("dt", {}, error.message));
  }
}

// Moving

let press = null;
let dragged = false; // in which case the click that follows is none
view.addEventListener("pointerdown", (event) => {
  if (event.button === 0) press = { x: event.clientX, y: event.clientY, from: { ...place }, moved: false };
  dragged = false;
});
addEventListener("pointermove", (event) => {
  if (!press) return;
  const [dx, dy] = [event.clientX - press.x, event.clientY - press.y];
  if (!press.moved && Math.hypot(dx, dy) < DRAG) return;
  press.moved = dragged = true;
  view.classList.add("moving");
  moveTo({ x: press.from.x - dx / place.zoom, y: press.from.y - dy / place.zoom });
});
for (const name of ["pointerup", "pointercancel"]) {
  addEventListener(name, () => {
    view.classList.remove("moving");
    press = null;
  });
}
view.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.ctrlKey) zoomBy(event.deltaY < 0 ? 1 : -1);
  else moveTo({ x: place.x + event.deltaX / place.zoom, y: place.y + event.deltaY / place.zoom });
}, { passive: false });
// A focused galaxy out of sight makes the browser scroll what cannot scroll; the sky moves there instead.
view.addEventListener("scroll", () => view.scrollTo(0, 0));

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
addEventListener("keydown", (event) => {
  dragged = false; // Enter on a galaxy is a click too
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in ARROWS) {
    event.preventDefault();
    const [dx, dy] = ARROWS[event.key];
    moveTo({ x: place.x + (dx * STEP) / place.zoom, y: place.y + (dy * STEP) / place.zoom });
  } else if (event.key === "+" || event.key === "-") zoomBy(event.key === "+" ? 1 : -1);
  else if (event.key === "Escape") close();
});

function zoomBy(step) {
  const wanted = ZOOMS[ZOOMS.indexOf(place.zoom) + step];
  if (wanted) moveTo({ zoom: wanted });
}

function close() {
  const button = chosen;
  choose(null);
  button?.focus();
}

function startSky(sky) {
  forgetAll();
  moveTo({ sky, x: 0, y: 0 });
}

function showModels() {
  const group = $("#models");
  group.hidden = catalogue.models.length < 2;
  group.append(...catalogue.models.map(({ id, family }) => {
    const button = make("button", { type: "button", ariaPressed: String(id === model.id) }, family);
    button.addEventListener("click", () => {
      model = catalogue.models.find((one) => one.id === id);
      for (const other of group.querySelectorAll("button")) other.ariaPressed = String(other === button);
      backdrop = null;
      forgetAll();
      moveTo({});
    });
    return button;
  }));
}

async function start() {
  try {
    catalogue = await getJson("api/model");
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    setText(message, `${error.message}${error.hint ? ` ${error.hint}` : ""}`);
    return;
  }
  readAddress();
  showModels();
  for (const button of zoomButtons) {
    button.addEventListener("click", () => moveTo({ zoom: Number(button.dataset.zoom) }));
  }
  $("#elsewhere").addEventListener("click", () => startSky(1 + Math.floor(Math.random() * 999_999)));
  $("#close").addEventListener("click", close);
  new ResizeObserver(() => moveTo({})).observe(view);
}

start();
