// The page: one state, one handler for everything that changes it, one render, and the requests that follow.

import { renderAbout } from "./about.js";
import { Comparison } from "./compare.js";
import { make, setText } from "./elements.js";
import { Frame, isSameKind } from "./frame.js";
import { Gauges, buildChoice, renderChoice } from "./gauges.js";
import { listen } from "./keyboard.js";
import { Nearest } from "./nearest.js";
import { Failure, Lane, getCatalogue, getFile, getGalaxy, getJson } from "./requests.js";
import { Seeds } from "./seeds.js";
import { drawSky } from "./sky.js";
import {
  MOST_SECOND, address, besidesWords, classesOf, halfLight, initialState, modelOf, onSlider, originOf, otherState, pinned, print, readAddress,
  released, request, typical, valueAt, withModel, withMorphology,
} from "./state.js";
import { Sweep, filmOf } from "./sweep.js";
import { guardSliders } from "./touch.js";

const SETTLED = 250; // ms without a change after which everything but the picture follows
const MEASURE_EVERY = 120; // ms between measurements in a drag
const LOOK_AGAIN = 5000; // ms between looks for a checkpoint

const $ = (selector) => document.querySelector(selector);

let catalogue = null; // the server's table of classes, models and attributes
let state = null;
let measured = null; // newest measurement of A, {query, state, attributes, besides, ellipse, note}
let unmeasured = null; // query of A whose measurement failed
let settling = 0; // timer
let instruments = null; // {inspection, telescopes} once somebody has asked for them
let pulled = { name: null, isOver: true }; // what is being pulled or typed: one entry of the history
let lastMeasured = 0; // ms

const troubles = new Map(); // by lane: a failure in words
const lane = (name) => new Lane((text) => trouble(name, text));
const lanes = Object.fromEntries(
  ["picture", "measure", "seeds", "sweep", "draw", "otherPicture", "otherMeasure", "pixels", "telescopes", "nearest"].map((name) => [name, lane(name)]),
);

const frame = new Frame($("#figure-a"));
const gauges = new Gauges($("#attributes .gauges"));
const seeds = new Seeds($("#seeds > .tiles"), lanes.seeds);
const nearest = new Nearest($("#nearest"), lanes.nearest);
const sweep = new Sweep($("#sweep"), lanes.sweep);
const comparison = new Comparison(new Frame($("#figure-b")), $("#comparison"), {
  picture: lanes.otherPicture,
  measure: lanes.otherMeasure,
});

/** What buttons and keys do. */
const ACTIONS = {
  random: { key: "r", label: "Random galaxy", run: drawGalaxy },
  reset: { key: "z", label: "Reset to a typical galaxy", run: () => update({ ...initialState(catalogue), rings: state.rings, inspect: state.inspect }) },
  pin: { key: "b", label: "Pin the present settings as B", run: () => update({ other: pinned(state, catalogue) }) },
  versus: { key: "v", label: "Compare with the other model", run: compareModels },
  swap: { key: "x", label: "Swap A and B", run: swap },
  unpin: { key: "q", label: "Stop comparing", run: stopComparing },
  rings: { key: "o", label: "Half-light ellipses on or off", run: () => update({ rings: !state.rings }) },
  inspect: { key: "i", label: "Pixels, their values and the light profile", run: () => update({ inspect: !state.inspect }) },
  copy: { key: "l", label: "Copy the link", run: copyLink },
  more: { key: "m", label: "Eight more seeds", run: () => moveSeeds(1) },
  fewer: { key: "n", label: "The eight seeds before", run: () => moveSeeds(-1) },
  play: { key: "p", label: "Play or stop the sweep", run: () => sweep.toggle() },
  take: { key: "t", label: "Take the sweep's value over", run: takeFromSweep },
  help: { key: "?", label: "Help", run: () => $("#help").showModal() },
  card: { label: "Model card", run: () => $("#card").showModal() },
  credits: { label: "Credits", run: showCredits },
  load: { label: "Look for a checkpoint", run: load },
};

/** Change the state; `how` is "step" for single acts, "drag" for one of many in a row, "back" for the browser's. */
function update(changes, how = "step") {
  if (how === "step" && settling) correct();
  Object.assign(state, changes);
  if (how !== "drag") pulled = { name: null, isOver: true };
  if (how === "step") remember();
  render();
  if (how !== "drag") showSeed();
  askPicture(how === "drag");
  clearTimeout(settling);
  settling = setTimeout(settle, how === "drag" ? SETTLED : 0);
}

/** Enter the state into the browser's history. */
function remember() {
  const link = address(state, catalogue);
  if (link !== location.search) history.pushState(null, "", link);
}

/** Make the newest entry of the history that of the state. */
function correct() {
  const link = address(state, catalogue);
  if (link !== location.search) history.replaceState(null, "", link);
}

/** Change the state by one of many steps of a pull, or of typing: the browser's Back undoes all of them together. */
function pull(name, changes) {
  const isFirst = pulled.name !== name;
  if (isFirst && settling) correct();
  pulled = { name, isOver: false };
  update(changes, "drag");
  if (isFirst) remember();
}

/** Show the state; nothing else writes to the page but what draws pictures. */
function render() {
  const query = request(state, catalogue);
  // Of the same galaxy at other values the measurement stands dimmed; nothing stands of another one.
  const near = isSameKind(measured?.state, state) && unmeasured !== query ? measured : null;
  const fresh = near?.query === query ? near : null;
  renderChoice($("#models"), state.model);
  showClasses();
  gauges.render(state, catalogue, near?.attributes, { isFresh: Boolean(fresh), isFailed: unmeasured === query });
  const besides = besidesWords(fresh?.besides);
  const remarks = [besides && `Also measured: ${besides}.`, fresh?.note && `About the measurement: ${fresh.note}.`];
  setText($("#remark"), remarks.filter(Boolean).join(" "));
  frame.expect(state, catalogue);
  frame.outline(halfLight(modelOf(catalogue, state.model), state.values, near, fresh));
  comparison.render(state, catalogue, fresh?.attributes);
  if (state.inspect && !instruments) loadInstruments();
  instruments?.inspection?.render(state, catalogue, fresh?.ellipse ?? null);
  instruments?.telescopes?.render(state, catalogue);
  sweep.render(state, catalogue);
  seeds.render(state, catalogue);
  nearest.render(state, catalogue);

  const model = modelOf(catalogue, state.model);
  renderAbout(model, $("#about .words"), $("#card"));
  const rival = catalogue.models.find((m) => m.id !== state.model);
  const versus = $("[data-action=versus]");
  versus.hidden = !rival;
  setText($("[data-origin]"), `${originOf(model)} galaxies`);
  if (rival) setText(versus, `Against ${rival.family}`);
  versus.setAttribute("aria-pressed", String(state.other === `model=${rival?.id}`));
  $("[data-action=rings]").setAttribute("aria-pressed", String(state.rings));
  $("[data-action=inspect]").setAttribute("aria-pressed", String(state.inspect));
  $("#bench").classList.toggle("with-rings", state.rings);
  $("#bench").classList.toggle("comparing", state.other !== null);

  // The server says under which name to store them, see getFile.
  $("#png").href = `api/file.png?${query}&pixels=512`;
  $("#native").href = `api/file.png?${query}`;
  $("#fits").href = `api/fits?${query}`;
  $("#csv").href = `api/catalogue.csv?${query}`;
}

const LEAN = 0.3; // share of a second class once one is chosen
const MANY_CLASSES = 20; // more scroll in a field of their own, so that the attributes stay in sight

/** Show the classes of the model; a single one is no choice. */
function showClasses() {
  const [fieldset, classes] = [$("#classes"), classesOf(catalogue, state.model)];
  const names = classes.map((m) => m.name).join();
  if (fieldset.dataset.names !== names) {
    buildChoice(fieldset, classes.map((m) => ({ name: m.name, label: m.label, title: m.description, glyph: `glyph-${m.name}` })));
    fieldset.dataset.names = names;
    fieldset.classList.toggle("many", classes.length > MANY_CLASSES);
  }
  fieldset.hidden = classes.length < 2;
  renderChoice(fieldset, state.morphology);
  showSecond(classes);
}

/** Show toward which other class the galaxy leans, of models that were trained on shares of classes. */
function showSecond(classes) {
  const [row, choice, slider] = [$("#second"), $("#second-class"), $("#second-share")];
  row.hidden = classes.length < 2 || !modelOf(catalogue, state.model).mixes;
  if (row.hidden) return;
  const others = classes.filter((m) => m.name !== state.morphology);
  const names = others.map((m) => m.name).join();
  if (choice.dataset.names !== names) {
    choice.replaceChildren(make("option", { value: "" }, "no other class"), ...others.map((m) => make("option", { value: m.name }, m.label)));
    choice.dataset.names = names;
  }
  choice.value = state.second?.name ?? "";
  slider.max = MOST_SECOND;
  slider.disabled = !state.second;
  const share = state.second?.share ?? 0;
  if (Number(slider.value) !== share) slider.value = share;
  const words = state.second ? `${Math.round(100 * share)} %` : "";
  slider.setAttribute("aria-valuetext", words || "no other class");
  setText($("#second-reading"), words);
}

/** Put the seed into its field, which an answer of the server must not do: somebody may be typing there. */
function showSeed() {
  const field = $("#seed");
  if (field.value !== String(state.seed)) field.value = state.seed;
  judgeSeed(true);
}

function judgeSeed(isValid) {
  $("#seed").setAttribute("aria-invalid", String(!isValid));
  trouble("seed", isValid ? "" : `A seed is a whole number from 0 to ${catalogue.max_seed}.`);
}

function askPicture(isDrag) {
  const asked = { ...state };
  const query = request(state, catalogue);
  // Where a picture takes long, a drag sees previews in a few steps, and the picture itself once nothing moves.
  const steps = isDrag ? modelOf(catalogue, state.model).preview_steps : null;
  const key = `${query}&pixels=${frame.pixels(!isDrag)}${steps ? `&solver_steps=${steps}` : ""}`;
  lanes.picture.ask({
    key,
    work: (signal) => getGalaxy(`api/image.png?${key}`, signal),
    show: ({ picture, support }, ms) => {
      frame.show({ picture, support, ms, isPreview: Boolean(steps) }, asked, isDrag);
      if (!settling) tell();
      if (!steps && lanes.measure.idle && performance.now() - lastMeasured > MEASURE_EVERY) askMeasurement(false);
    },
    failed: () => frame.fail(),
  });
}

function askMeasurement(isSettled) {
  const asked = { ...state };
  const query = request(state, catalogue);
  lastMeasured = performance.now();
  lanes.measure.ask({
    key: query,
    work: (signal) => getJson(`api/measure?${query}`, signal),
    show: ({ attributes, besides, ellipse, support, flag, flag_meaning }) => {
      measured = { query, state: asked, attributes, besides, ellipse, note: flag ? flag_meaning : "" };
      unmeasured = null;
      frame.judge(support, query);
      render();
      if (!settling) follow();
    },
    failed: () => {
      unmeasured = query;
      render();
    },
  });
  if (isSettled && measured?.query === query) follow();
}

/** Do what has to wait until nothing moves. */
function settle() {
  settling = 0;
  if (pulled.isOver) pulled.name = null;
  correct();
  askPicture(false);
  comparison.load(state, catalogue, render);
  seeds.load(state, catalogue, render);
  nearest.load(state, catalogue, render);
  loadPixels();
  askMeasurement(true);
}

function loadPixels() {
  instruments?.inspection?.load(state, catalogue, render);
  instruments?.telescopes?.load(state, catalogue, render);
}

/** Load what few people look at. */
async function loadInstruments() {
  instruments = {};
  try {
    const [{ Inspection }, { Telescopes }] = await Promise.all([import("./inspect.js"), import("./telescopes.js")]);
    instruments = {
      inspection: new Inspection($("#inspect"), lanes.pixels),
      telescopes: new Telescopes($("#telescopes"), lanes.telescopes, () => update({}, "back")),
    };
    trouble("instruments", "");
  } catch {
    instruments = null;
    trouble("instruments", "The part of the page that shows pixels could not be loaded.");
    Object.assign(state, { inspect: false });
  }
  render();
  loadPixels();
}

/** Do what needs the measurement of the settled state: the sweep holds what is free at the values drawn. */
function follow() {
  if (measured?.query !== request(state, catalogue)) return;
  tell();
  const values = drawnValues(measured.attributes, state.values);
  sweep.load({ ...state, values }, catalogue, filmOf(state, catalogue), render);
}

function drawnValues(readings, values) {
  const { attributes } = modelOf(catalogue, state.model);
  const filled = attributes.map((a) => {
    const drawn = readings[a.name]?.requested ?? null;
    return [a.name, values[a.name] ?? (drawn === null ? null : onSlider(a, drawn))];
  });
  return Object.fromEntries(filled);
}

/** Announce the settled galaxy once it is drawn and measured, whichever comes last. */
function tell() {
  const query = request(state, catalogue);
  if (frame.query === query && measured?.query === query) announce(sentence());
}

/** What a screen reader hears of a galaxy that is drawn and measured. */
function sentence() {
  const readings = modelOf(catalogue, state.model).attributes.map((a) => {
    const { requested, measured: found } = measured.attributes[a.name];
    const parts = [requested === null ? "" : `asked ${print(a, requested)}`, found === null ? "" : `measured ${print(a, found)}`];
    return `${a.label} ${parts.filter(Boolean).join(", ") || "unknown"}`;
  });
  const whole = [frame.canvas.getAttribute("aria-label"), ...readings, measured.note];
  return whole.filter(Boolean).map((part) => part.replace(/\.$/, "")).join(". ");
}

function announce(text) {
  setText($("#announcement"), text);
}

function trouble(name, text) {
  troubles.set(name, text);
  setText($("#message"), [...new Set(troubles.values())].filter(Boolean).join(" "));
}

/** Take the attributes of a real galaxy of the class, and a new seed. */
function drawGalaxy() {
  const { attributes } = modelOf(catalogue, state.model);
  const { morphology } = state;
  const seed = Math.floor(Math.random() * 1e6);
  const free = Object.fromEntries(attributes.map((a) => [a.name, null]));
  const query = request({ ...state, morphology, seed, values: free }, catalogue);
  lanes.draw.ask({
    key: query,
    work: (signal) => getJson(`api/measure?${query}`, signal),
    show: (answer) => update({ morphology, seed, values: drawnValues(answer.attributes, free) }),
  });
}

function compareModels() {
  const rival = catalogue.models.find((m) => m.id !== state.model);
  if (!rival) return;
  const other = `model=${rival.id}`;
  update({ other: state.other === other ? null : other });
}

function swap() {
  const other = otherState(state, catalogue);
  if (other) update({ ...other, other: pinned(state, catalogue) });
}

function stopComparing() {
  if (state.other === null) return;
  // The button that was pressed is about to go.
  if ($("#comparison").contains(document.activeElement)) $("[data-action=pin]").focus();
  update({ other: null });
}

function moveSeeds(sheets) {
  seeds.move(sheets, state, catalogue);
  seeds.load(state, catalogue, render);
}

function takeFromSweep() {
  const attribute = modelOf(catalogue, state.model).attributes.find((a) => a.name === state.sweep);
  const value = sweep.value;
  if (value !== null) update({ values: { ...state.values, [state.sweep]: onSlider(attribute, value) } });
}

async function copyLink() {
  const link = new URL(address(state, catalogue), location.href).href;
  const text = $("[data-action=copy]").firstChild;
  try {
    await navigator.clipboard.writeText(link);
    text.textContent = "Copied";
    announce("Link copied");
    setTimeout(() => (text.textContent = "Copy link"), 1600);
  } catch {
    trouble("copy", `This browser does not let the page copy: the link is in its address bar, ${link}`);
    setTimeout(() => trouble("copy", ""), 8000);
  }
}

function showCredits() {
  $("#card").showModal();
  $("#card h3").focus();
}

/** Store the file of a link, so that the page can say why there is none. */
async function download(link) {
  try {
    const { file, name } = await getFile(link.getAttribute("href"));
    const place = URL.createObjectURL(file);
    make("a", { href: place, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(place), 60000);
    trouble("download", "");
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    trouble("download", `${link.textContent} could not be downloaded. ${failure.message}`);
    setTimeout(() => trouble("download", ""), 12000);
  }
}

function toggleFree(name) {
  const attribute = modelOf(catalogue, state.model).attributes.find((a) => a.name === name);
  const middle = valueAt(attribute, 0.5);
  const drawn = (isSameKind(measured?.state, state) ? measured : null)?.attributes[name]?.requested ?? typical(attribute, state.morphology) ?? middle;
  update({ values: { ...state.values, [name]: state.values[name] === null ? onSlider(attribute, drawn) : null } });
}

/** The one handler of everything that is moved, typed or chosen. */
function onInput({ target }) {
  if (target.dataset.attribute) {
    const attribute = modelOf(catalogue, state.model).attributes.find((a) => a.name === target.dataset.attribute);
    pull(target.id, { values: { ...state.values, [attribute.name]: released(attribute, Number(target.value)) } });
  } else if (target.id === "seed") {
    const isValid = target.value !== "" && target.checkValidity();
    judgeSeed(isValid);
    if (isValid) pull("seed", { seed: Number(target.value) });
  } else if (target.id === "second-class") {
    update({ second: target.value ? { name: target.value, share: state.second?.share ?? LEAN } : null });
  } else if (target.id === "second-share") {
    pull(target.id, { second: { ...state.second, share: Number(target.value) } });
  } else if (target.id === "sweep-attribute") {
    update({ sweep: target.value });
  }
}

/** What is left, entered or let go. */
function onChange({ target }) {
  if (target.dataset.value) typeValue(target.dataset.value, target.value);
  else if (target.id === "seed") showSeed(); // what cannot be taken goes
  pulled.isOver = true;
  if (!settling) pulled.name = null;
}

/** Take a value that was typed; a comma is a point. */
function typeValue(name, text) {
  const attribute = modelOf(catalogue, state.model).attributes.find((a) => a.name === name);
  const words = text.trim().toLowerCase().replace("−", "-").replace(",", ".");
  const value = words === "" ? NaN : Number(words);
  const isFree = words === "free";
  const isBeyond = value < attribute.low || value > attribute.high;
  const ends = `${print(attribute, attribute.low)} to ${print(attribute, attribute.high)}`;
  const complaint = isFree || words === "" ? "" : Number.isNaN(value)
    ? `${attribute.label} is a number from ${ends}, or free.`
    : isBeyond ? `${attribute.label} goes from ${ends}: its end is taken.` : "";
  trouble("value", complaint);
  if (complaint) setTimeout(() => trouble("value", ""), 8000);
  gauges.forget(name);
  if (isFree || Number.isFinite(value)) update({ values: { ...state.values, [name]: isFree ? null : onSlider(attribute, value) } });
  else render();
}

function onClick(event) {
  const { target } = event;
  const menu = $("#downloads");
  if (!menu.contains(target) || target.closest("a")) menu.open = false;
  const link = target.closest("a[download]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    download(link);
  }
  const { action, choice, free, seed } = target.closest("button")?.dataset ?? {};
  if (action) ACTIONS[action].run();
  else if (free) toggleFree(free);
  else if (seed) update({ seed: Number(seed) });
  else if (choice && target.closest("#models")) update(withModel(state, catalogue, choice));
  else if (choice) update(withMorphology(state, catalogue, choice));
}

/** Say why there is nothing to see, and look again by itself. */
function sayAbsent(failure) {
  const isMissing = Boolean(failure.hint);
  $("#absent-title").textContent = isMissing ? "No checkpoint yet" : "No answer from the server";
  $("#absent-text").textContent = failure.message;
  $("#absent-hint").textContent = failure.hint ?? "python app.py";
  $("#absent-next").textContent = isMissing
    ? "Train one with this command, then start app.py again. The page looks again every five seconds."
    : "The page looks again every five seconds.";
  $("#absent").hidden = false;
  announce(`${$("#absent-title").textContent}. ${failure.message}`);
}

let looking = 0;

async function load() {
  clearTimeout(looking);
  try {
    catalogue = await getCatalogue();
    catalogue.max_seed = Math.min(catalogue.max_seed, Number.MAX_SAFE_INTEGER); // a browser rounds larger ones
  } catch (failure) {
    sayAbsent(failure);
    looking = setTimeout(load, LOOK_AGAIN);
    return;
  }
  start();
}

function start() {
  const { state: read, notes } = readAddress(location.search, catalogue);
  state = read;
  if (notes.length) {
    trouble("link", notes.join(" "));
    setTimeout(() => trouble("link", ""), 12000);
  }
  buildChoice($("#models"), catalogue.models.map((m) => ({ name: m.id, label: m.family, title: m.description })));
  catalogue.morphologies.slice(0, 9).forEach((m, k) => {
    const run = () => classesOf(catalogue, state.model).includes(m) && update(withMorphology(state, catalogue, m.name));
    ACTIONS[`class-${k}`] = { key: String(k + 1), label: m.label, run };
  });
  $("#seed").max = catalogue.max_seed;
  $("#models").hidden = catalogue.models.length < 2;
  $("#absent").hidden = true;
  $("#bench").hidden = $("#sweep").hidden = false;
  listen(ACTIONS, $("#help"));

  guardSliders(document);
  document.addEventListener("input", onInput);
  document.addEventListener("change", onChange);
  addEventListener("popstate", () => update(readAddress(location.search, catalogue).state, "back"));
  addEventListener("online", () => Object.values(lanes).forEach((one) => one.hurry()));
  new IntersectionObserver((entries) => {
    sweep.isVisible = entries.at(-1).isIntersecting; // the newest
    render();
    if (sweep.isVisible && !settling) follow();
  }).observe($("#sweep"));
  update({}, "back");
}

document.addEventListener("click", onClick);
$("#downloads").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  $("#downloads").open = false;
  $("#downloads summary").focus();
});
drawSky($("#sky"));
addEventListener("resize", () => drawSky($("#sky")));
load();
