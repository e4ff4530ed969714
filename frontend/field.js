// The page of a sky that can be moved about: the server draws it tile by tile, here they are laid down and clicked.

import { inPrint, make, surveyPixels, setText } from "./elements.js";
import { Failure, getCatalogue, getJson, getPicture } from "./requests.js";

const KEPT = 60; // tiles out of sight
const AT_ONCE = 2; // tiles that are asked for
const ZOOMS = [1, 2, 4];
const STEP = 80; // CSS pixels that an arrow key moves the sky by
const DRAG = 4; // CSS pixels from which a press is a drag
const LEAST_TARGET = 24; // CSS pixels of the smallest galaxy's button
const RADII = 4; // half-light radii that a galaxy's button is wide

const $ = (selector) => document.querySelector(selector);
const view = $("#view");
const canvas = view.querySelector("canvas");
const buttons = $("#galaxies");
const message = $("#message");
const zoomButtons = document.querySelectorAll("[data-zoom]");

const tiles = new Map(); // by place: {column, row, picture, galaxies, buttons}
let catalogue = null;
let model = null;
let survey = null; // through which the sky of a model of light is seen: {name, label, pixel_scale, binning}
let place = { sky: 1, x: 0, y: 0, zoom: 1 }; // x, y: the middle of the window, pixels of the sky
let loading = 0; // requests under way
let awaited = 0; // timer of the next try
let chosen = null;
let painting = 0;
let laidAt = 1; // magnification at which the buttons lie

const keyOf = (column, row) => `${column},${row}`;
const labelOf = (name) => catalogue.morphologies.find((m) => m.name === name).label;
const surveysOf = ({ telescopes }) => telescopes.filter(({ refused }) => refused === null);
const usualSurvey = (of) => surveysOf(of).find(({ name }) => name === "LSST") ?? surveysOf(of)[0] ?? null;

// Place and address

function readAddress() {
  const query = new URLSearchParams(location.search);
  const whole = (name, otherwise) => {
    const number = Number(query.get(name) ?? NaN);
    return Number.isSafeInteger(number) ? number : otherwise;
  };
  place = { sky: whole("sky", 1), ...inside(whole("x", 0), whole("y", 0)), zoom: whole("zoom", 1) };
  if (!(place.sky >= 0 && place.sky <= catalogue.sky.most)) place.sky = 1;
  if (!ZOOMS.includes(place.zoom)) place.zoom = 1;
  model = catalogue.models.find(({ id }) => id === query.get("model")) ?? catalogue.models.find(({ id }) => id === catalogue.default);
  survey = surveysOf(model).find(({ name }) => name === query.get("survey")) ?? usualSurvey(model);
}

/** The nearest place that the sky has. */
function inside(x, y) {
  const { first, last, pixels } = catalogue.sky;
  const clamped = (value) => Math.min((last + 1) * pixels - 1, Math.max(first * pixels, value));
  return { x: clamped(x), y: clamped(y) };
}

let written = 0;
function writeAddress() {
  clearTimeout(written);
  written = setTimeout(() => {
    const { sky, x, y, zoom } = place;
    const seen = survey ? { survey: survey.name } : {};
    history.replaceState(null, "", `?${new URLSearchParams({ sky, x: Math.round(x), y: Math.round(y), zoom, ...seen, model: model.id })}`);
  }, 250);
}

function moveTo(change) {
  Object.assign(place, change);
  Object.assign(place, inside(place.x, place.y));
  for (const button of zoomButtons) button.ariaPressed = String(Number(button.dataset.zoom) === place.zoom);
  writeAddress();
  paintSoon();
  load();
}

function inSight(margin = 0) {
  const [width, height] = [view.clientWidth / place.zoom / 2 + margin, view.clientHeight / place.zoom / 2 + margin];
  return { left: place.x - width, right: place.x + width, top: place.y - height, bottom: place.y + height };
}

/** Columns and rows of the tiles that are in sight, the nearest to the middle first. */
function tilesInSight() {
  const { first, last, pixels } = catalogue.sky;
  const { left, right, top, bottom } = inSight();
  const found = [];
  for (let row = Math.max(first, Math.floor(top / pixels)); row <= last && row * pixels < bottom; row += 1) {
    for (let column = Math.max(first, Math.floor(left / pixels)); column <= last && column * pixels < right; column += 1) found.push([column, row]);
  }
  const away = ([column, row]) => Math.hypot((column + 0.5) * pixels - place.x, (row + 0.5) * pixels - place.y);
  return found.sort((a, b) => away(a) - away(b));
}

// Tiles

const asked = new Set(); // keys of the tiles that are under way

async function load() {
  while (loading < AT_ONCE && !awaited) {
    const all = tilesInSight();
    const lacking = all.filter(([column, row]) => !tiles.has(keyOf(column, row)));
    const wanted = lacking.find(([column, row]) => !asked.has(keyOf(column, row)));
    setText(message, lacking.length ? `Drawing the sky: ${all.length - lacking.length} of ${all.length} tiles are there …` : "");
    if (!wanted) return;
    loading += 1;
    loadTile(...wanted).finally(() => {
      loading -= 1;
      load();
    });
  }
}

async function loadTile(column, row) {
  const key = keyOf(column, row);
  const [sky, of, through] = [place.sky, model, survey];
  const query = new URLSearchParams({ sky, x: column, y: row, model: of.id, ...(through ? { survey: through.name } : {}) });
  const sameSky = () => sky === place.sky && of === model && through === survey;
  asked.add(key);
  try {
    const [picture, { galaxies }] = await Promise.all([getPicture(`api/sky.png?${query}`), getJson(`api/sky.json?${query}`)]);
    if (!sameSky()) return;
    const { pixels } = catalogue.sky;
    for (const galaxy of galaxies) Object.assign(galaxy, { x: galaxy.x + column * pixels, y: galaxy.y + row * pixels });
    const tile = { column, row, picture, galaxies, buttons: galaxies.map(buttonOf) };
    tiles.set(key, tile);
    buttons.append(...tile.buttons);
    forgetFar();
    paintSoon();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (!sameSky()) return;
    const wait = error.kind === "refused" ? 60 : error.wait ?? 4;
    setText(message, error.kind === "refused" ? error.message : `${error.message} Trying again in ${wait} s.`);
    awaited ||= setTimeout(() => {
      awaited = 0;
      load();
    }, 1000 * wait);
  } finally {
    asked.delete(key);
  }
}

function forgetFar() {
  const { pixels } = catalogue.sky;
  const far = ({ column, row }) => Math.hypot((column + 0.5) * pixels - place.x, (row + 0.5) * pixels - place.y);
  const sorted = [...tiles.values()].sort((a, b) => far(a) - far(b));
  for (const tile of sorted.slice(tilesInSight().length + KEPT)) {
    tile.buttons.forEach((button) => button.remove());
    tile.picture.close();
    tiles.delete(keyOf(tile.column, tile.row));
  }
}

/** Forget the sky that is shown, and ask for another one at once. */
function forgetAll() {
  tiles.clear();
  asked.clear();
  clearTimeout(awaited);
  awaited = 0;
  buttons.replaceChildren();
  choose(null);
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
  const { pixels } = catalogue.sky;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  // Whole device pixels, for tiles to meet without a seam.
  const factor = scale * place.zoom;
  const at = (pixel, from) => Math.round((pixel - from) * factor);
  for (const [column, row] of tilesInSight()) {
    const tile = tiles.get(keyOf(column, row));
    if (!tile) continue;
    const [left, top] = [at(column * pixels, sight.left), at(row * pixels, sight.top)];
    const [right, bottom] = [at((column + 1) * pixels, sight.left), at((row + 1) * pixels, sight.top)];
    context.drawImage(tile.picture, left, top, right - left, bottom - top);
  }
  buttons.style.transform = `translate(${-sight.left * place.zoom}px, ${-sight.top * place.zoom}px)`;
  if (laidAt !== place.zoom) {
    laidAt = place.zoom;
    for (const { galaxies, buttons: own } of tiles.values()) own.forEach((button, k) => lay(button, galaxies[k]));
  }
}

// Galaxies

function buttonOf(galaxy) {
  const button = make("button", { type: "button", ariaLabel: `${labelOf(galaxy.morphology)} galaxy, seed ${galaxy.seed}`, ariaPressed: "false" });
  lay(button, galaxy);
  button.addEventListener("click", () => dragged || choose(button, galaxy));
  button.addEventListener("focus", () => {
    const { left, right, top, bottom } = inSight(-20);
    const covered = $("header").getBoundingClientRect().bottom / place.zoom; // by what lies on the sky
    if (galaxy.x < left || galaxy.x > right || galaxy.y < top + covered || galaxy.y > bottom) moveTo({ x: galaxy.x, y: galaxy.y });
  });
  return button;
}

function lay(button, { x, y, radius }) {
  const side = Math.max(LEAST_TARGET, RADII * radius * place.zoom);
  Object.assign(button.style, { left: `${x * place.zoom - side / 2}px`, top: `${y * place.zoom - side / 2}px`, width: `${side}px`, height: `${side}px` });
}

async function choose(button, galaxy) {
  if (chosen) chosen.ariaPressed = "false";
  chosen = button;
  const card = $("#card");
  card.hidden = !button;
  if (!button) return;
  button.ariaPressed = "true";
  const query = new URLSearchParams({ morphology: galaxy.morphology, ...galaxy.values, seed: galaxy.seed, model: model.id });
  const name = labelOf(galaxy.morphology);
  setText(card.querySelector("h2"), `${name}, seed ${galaxy.seed}`);
  Object.assign(card.querySelector("img"), { src: `api/image.png?${query}&pixels=256`, alt: `${name} galaxy, invented` });
  card.querySelector("a").href = `./?${query}`;
  const list = card.querySelector("dl");
  const say = (words) => list.replaceChildren(make("dt", {}, "Measured"), make("dd", {}, words));
  say("…");
  try {
    const { attributes } = await getJson(`api/measure?${query}`);
    if (chosen !== button) return;
    const rows = model.attributes.filter((a) => (attributes[a.name]?.measured ?? null) !== null);
    const words = (a) => `${inPrint(Number(attributes[a.name].measured.toPrecision(3)))}${a.unit ? ` ${a.unit}` : ""}`;
    list.replaceChildren(...rows.flatMap((a) => [make("dt", {}, a.label), make("dd", {}, words(a))]));
    if (!rows.length) say("nothing");
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (chosen === button) say(error.message);
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
      survey = usualSurvey(model);
      showSurveys();
      forgetAll();
      moveTo({});
    });
    return button;
  }));
}

function showSurveys() {
  const group = $("#surveys");
  const able = surveysOf(model);
  group.hidden = able.length < 2;
  setText($("#binning"), survey?.binning > 1 ? `${survey.label}: ${surveyPixels(survey, model)}.` : "");
  for (const button of group.querySelectorAll("button")) button.remove();
  group.append(...able.map((one) => {
    const button = make("button", { type: "button", ariaPressed: String(one === survey) }, one.label);
    button.addEventListener("click", () => {
      const ratio = survey.pixel_scale / one.pixel_scale; // the same part of the sky stays in the middle
      survey = one;
      showSurveys();
      forgetAll();
      moveTo({ x: place.x * ratio, y: place.y * ratio });
      [...group.querySelectorAll("button")].find((other) => other.ariaPressed === "true").focus();
    });
    return button;
  }));
}

async function start() {
  try {
    catalogue = await getCatalogue();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    setText(message, `${error.message}${error.hint ? ` ${error.hint}` : ""}`);
    return;
  }
  readAddress();
  showModels();
  showSurveys();
  for (const button of zoomButtons) {
    button.addEventListener("click", () => moveTo({ zoom: Number(button.dataset.zoom) }));
  }
  $("#elsewhere").addEventListener("click", () => startSky(1 + Math.floor(Math.random() * 999_999)));
  $("#close").addEventListener("click", close);
  new ResizeObserver(() => moveTo({})).observe(view);
}

start();
