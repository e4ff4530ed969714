// The class mode: activities, lessons as links, scores. What a lesson holds is decided in learn-lesson.js.

import { inPrint, make, setText } from "./elements.js";
import {
  ACTIVITIES,
  CONTROLS,
  LANGUAGES,
  LAST_NUMBER,
  MOST_TASKS,
  beyond,
  controlsOf,
  fill,
  makeTasks,
  needed,
  readLesson,
  realTasks,
  seedOf,
  sizeTasks,
  sizesOf,
  standardLesson,
  typeTasks,
  writeLesson,
} from "./learn-lesson.js";
import { showSheets } from "./learn-sheet.js";
import { TASKS } from "./learn-tasks.js";
import { get } from "./requests.js";

const $ = (id) => document.getElementById(id);
const NAMED = ["spiral", "elliptical", "merger", "edge-on"]; // classes that the languages have words for
const VIEWS = ["home", "task", "result", "sheet"];
const KEPT = "galaxies-class"; // in the storage of the browser's tab: what was answered, by lesson

let texts = {};
let plurals = new Intl.PluralRules("en");
let catalogue = null;
let lesson = null; // what holds: that of the link, or the usual one
let isLinked = false;
let faults = [];
let current = null; // { activity, tasks, index }
let view = "home";
let unprinted = null; // lesson that held before a sheet was made of another one
const pools = {}; // what was asked for -> examples found so far, and how many were asked for
const pictures = new Map(); // path -> promise of an address

// Words

const text = (name, values) => fill(texts[name] ?? name, values);
const plural = (name, count) => text(`${name}_${plurals.select(count) === "one" ? "one" : "other"}`, { count });
const expert = (name) => (lesson.words === "expert" ? `${name}_expert` : name);
const control = (id) => text(expert(`control_${id}`));
const isMock = () => Boolean(catalogue.real?.are_mock);
const credit = () => (catalogue.real ? text(isMock() ? "real_credit_mock" : "real_credit", { credit: catalogue.real.credit }) : "");
const about = (activity) => text(activity === "real" && isMock() ? "about_real_mock" : `about_${activity}`);
const question = (activity) => text(activity === "real" && isMock() ? "question_real_mock" : `question_${activity}`);
const isNamed = (name) => NAMED.includes(name);
const className = (name) => (isNamed(name) ? text(`class_${name}`) : (catalogue.morphologies.find((m) => m.name === name)?.label ?? name));

async function speak(language) {
  const answer = await steadily(() => get(`languages/${language}.json`));
  texts = await answer.json();
  plurals = new Intl.PluralRules(language);
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) setText(element, text(element.dataset.text));
  document.title = text("title");
  $("language").value = language;
}

const ownLanguage = () => navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => LANGUAGES.includes(tag)) ?? "en";

// The server

/** Do something that fails at times: it is tried again where that may help, and the page says why it waits. */
async function steadily(work) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const result = await work();
      if (attempt) complain("");
      return result;
    } catch (error) {
      const kind = error.kind ?? "refused";
      if (kind === "refused") {
        complain(fill(texts.trouble_refused ?? "{problem}", { problem: error.message }));
        throw error;
      }
      const problem = texts[`trouble_${kind}`] ?? error.message;
      complain(fill(texts.trouble_retry ?? "{problem}", { problem }));
      const wait = error.wait ?? Math.min(8, 2 ** attempt);
      await new Promise((resolve) => setTimeout(resolve, 1000 * wait * (1 + 0.2 * Math.random())));
    }
  }
}

function complain(sentence) {
  setText($("trouble"), sentence);
  $("trouble").hidden = !sentence;
}

const read = (path) => steadily(async () => (await get(path)).json());

/** Address of a picture that has been fetched whole. */
function load(path) {
  if (!pictures.has(path)) {
    if (pictures.size > 80) {
      const [oldest, address] = pictures.entries().next().value;
      pictures.delete(oldest);
      address.then(URL.revokeObjectURL, () => {});
    }
    const found = steadily(async () => (await get(path)).blob()).then((file) => URL.createObjectURL(file));
    found.catch(() => pictures.delete(path));
    pictures.set(path, found);
  }
  return pictures.get(path);
}

const model = () => catalogue.models.find((m) => m.id === lesson.model) ?? catalogue.models[0];
const classes = () => model().classes.filter(isNamed);
const ownClasses = () => (classes().length > 1 ? classes() : model().classes);

/** Clear examples of classes, by class, so many of each if the model draws them. */
async function examplesOf(names, count) {
  const found = names.map(async (name) => [name, await examples(name, count)]);
  return Object.fromEntries(await Promise.all(found));
}

async function examples(name, count, wanted = {}) {
  const query = new URLSearchParams({ morphology: name, seed: seedOf(lesson.number), model: model().id, ...wanted });
  const key = query.toString();
  query.set("count", count);
  if ((pools[key]?.count ?? 0) < count) pools[key] = { count, ...(await read(`api/examples?${query}`)) };
  return pools[key].examples.slice(0, count);
}

/** Examples of each step of size, from classes in turn; of the next class where one has none. */
async function stepsOfSize(names, count) {
  const sizes = sizesOf(model(), names);
  if (!sizes) return Object.values(await examplesOf(names, count));
  const steps = sizes.values.map(async (value, k) => {
    for (let other = 0; other < names.length; other += 1) {
      const found = await examples(names[(k + 1 + other) % names.length], count, { [sizes.name]: value });
      if (found.length) return found;
    }
    return [];
  });
  return Promise.all(steps);
}

// Activities

/** Why an activity is not offered, or null. */
function absence(activity) {
  if (activity === "type" && classes().length < 2) return text("absent_type");
  if (activity === "make" && !controlsOf(model(), lesson.controls).length) return text("absent_make");
  if (activity === "real" && !catalogue.real) return text("absent_real");
  return null;
}

async function tasksOf(activity) {
  const { classes: names, most } = needed(activity, lesson.count, ownClasses());
  if (activity === "sizes") return sizeTasks(await stepsOfSize(names, most), lesson.count, lesson.number);
  // A picture that "Which type is it?" has shown is known to be invented.
  const shownBefore = activity === "real" && offered().includes("type") ? needed("type", lesson.count, ownClasses()).most : 0;
  const found = beyond(await examplesOf(names, most + shownBefore), shownBefore);
  if (activity === "make") return makeTasks(found, lesson.count, lesson.number, controlsOf(model(), lesson.controls));
  const shown = typeTasks(found, lesson.count, lesson.number);
  return activity === "real" ? realTasks(shown, await Promise.all(shown.map(nearestTo)), lesson.number) : shown;
}

/** Real galaxies that are nearest to an example in what a picture shows. */
async function nearestTo({ example }) {
  const query = new URLSearchParams({ morphology: example.morphology, seed: example.seed, model: example.model });
  for (const { attribute } of controlsOf(model())) {
    const { measured } = example.attributes[attribute.name];
    if (measured !== null) query.set(attribute.name, measured);
  }
  return (await read(`api/nearest?${query}`)).galaxies;
}

const offered = () => lesson.activities.filter((activity) => !absence(activity));

// What was answered, for as long as the tab is open

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(`${KEPT}:${writeLesson({ ...lesson, language: "en", words: "simple" })}`)) ?? {};
  } catch {
    return {}; // a browser that keeps nothing
  }
}

function keep(answers) {
  try {
    sessionStorage.setItem(`${KEPT}:${writeLesson({ ...lesson, language: "en", words: "simple" })}`, JSON.stringify(answers));
  } catch {
    // then a reload begins anew
  }
}

const answersOf = (activity) => kept()[activity] ?? [];
const rightOf = (answers) => answers.filter(Boolean).length;

// Views

function show(name, heading) {
  view = name;
  if (name !== "task") setText($("credit"), "");
  for (const one of VIEWS) $(one).hidden = one !== name;
  if (heading) {
    window.scrollTo(0, 0);
    heading.focus({ preventScroll: true });
  }
}

function showHome(isFocused = true) {
  current = null;
  setText($("home-title"), isLinked ? text("lesson_title", { number: lesson.number }) : text("home_title"));
  setText($("intro"), text(isLinked ? "lesson_intro" : "home_intro"));
  const { trained_on: count, are_mock } = model().training_data;
  const name = `about_invented${are_mock ? "_mock" : ""}`;
  setText($("about"), count ? text(name, { count: count.toLocaleString(lesson.language) }) : text(`${name}_uncounted`));
  $("cards").replaceChildren(...lesson.activities.map(card));
  $("words-choice").hidden = isLinked;
  show("home", isFocused ? $("home-title") : null);
}

function card(activity) {
  const name = text(`activity_${activity}`);
  const reason = absence(activity);
  const answers = answersOf(activity);
  const parts = [make("h2", {}, name), make("p", {}, about(activity))];
  if (reason) {
    parts.push(make("p", { className: "absent" }, text("card_absent", { reason })));
  } else {
    const isDone = answers.length >= lesson.count;
    const state = answers.length ? text("card_done", { right: rightOf(answers), count: answers.length }) : plural("card_tasks", lesson.count);
    const word = isDone ? "once_more" : answers.length ? "go_on" : "start";
    const button = make("button", { type: "button", className: "primary", ariaLabel: text(`${word}_named`, { activity: name }) }, text(word));
    button.addEventListener("click", () => begin(activity, isDone));
    parts.push(make("p", { className: "state" }, state), button);
  }
  return make("li", { className: `panel card${reason ? " absent" : ""}` }, ...parts);
}

async function begin(activity, isAnew) {
  if (isAnew) keep({ ...kept(), [activity]: [] });
  const own = { activity, tasks: [], index: 0 };
  current = own;
  setText($("place"), text(`activity_${activity}`));
  setText($("score"), "");
  setText($("question"), text("loading"));
  $("stage").replaceChildren();
  $("feedback").replaceChildren();
  for (const id of ["next", "hint"]) $(id).hidden = true;
  show("task", $("question"));
  try {
    own.tasks = await tasksOf(activity);
  } catch {
    return; // which the page has said; the way back is there
  }
  if (current !== own) return;
  if (!own.tasks.length) {
    setText($("question"), text("card_absent", { reason: text("absent_examples") }));
    return;
  }
  own.index = Math.min(answersOf(activity).length, own.tasks.length);
  if (own.index === own.tasks.length) showResult();
  else showTask();
}

function showTask() {
  const own = current;
  const { activity, tasks, index } = own;
  const answers = answersOf(activity);
  setText($("place"), text("place", { activity: text(`activity_${activity}`), number: index + 1, count: tasks.length }));
  Object.assign($("progress"), { max: tasks.length, value: index });
  setText($("score"), text("score", { right: rightOf(answers) }));
  setText($("question"), question(activity));
  setText($("credit"), activity === "real" ? credit() : "");
  $("stage").replaceChildren();
  $("feedback").replaceChildren();
  $("feedback").className = "";
  $("next").hidden = true;
  $("hint").hidden = false;
  own.isAnswered = false;
  own.shown = TASKS[activity]($("stage"), tasks[index], { ...tools(), done });
  show("task", $("question"));
  const ahead = tasks[index + 1]?.example;
  if (ahead && activity === "type") load(`api/image.png?${new URLSearchParams({ morphology: ahead.morphology, seed: ahead.seed, model: ahead.model, pixels: 512 })}`).catch(() => {});
}

/** A number with so many decimals, as the language writes it. */
const number = (value, digits) =>
  inPrint(value.toLocaleString(lesson.language, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false }));

const tools = () => ({
  text,
  number,
  question,
  credit: credit(),
  isMock: isMock(),
  plural,
  control,
  className,
  words: lesson.words,
  classes: classes(),
  controls: controlsOf(model(), lesson.controls),
  load,
  read,
  reason: (name) => (isNamed(name) ? text(`is_${name}`) : text("is_other", { type: className(name) })),
  not: (name) => (isNamed(name) ? text(`not_${name}`) : ""),
});

/** Take an answer: say what there is to say, and lead on. */
function done(isRight, words) {
  const own = current;
  if (own.isAnswered) return;
  own.isAnswered = true;
  const answers = [...answersOf(own.activity).slice(0, own.index), isRight];
  keep({ ...kept(), [own.activity]: answers });
  setText($("score"), text("score", { right: rightOf(answers) }));
  $("progress").value = own.index + 1;
  $("feedback").className = isRight ? "panel right" : "panel wrong";
  $("feedback").replaceChildren(...words);
  $("hint").hidden = true;
  setText($("next"), text(own.index + 1 < own.tasks.length ? "next" : "finish"));
  $("next").hidden = false;
  $("next").focus({ preventScroll: true });
  $("next").scrollIntoView({ block: "nearest" });
}

function goOn() {
  current.index += 1;
  if (current.index < current.tasks.length) showTask();
  else showResult();
}

function showResult() {
  const { activity, tasks } = current;
  const answers = answersOf(activity).slice(0, tasks.length);
  const right = rightOf(answers);
  const following = offered().find((one) => answersOf(one).length < lesson.count && one !== activity);
  setText($("result-title"), text("result_title", { activity: text(`activity_${activity}`) }));
  const cheer = right === tasks.length ? "result_all" : right >= tasks.length / 2 ? "result_most" : activity === "make" ? "result_few_make" : "result_few";
  const sentences = [text("result_words", { right, count: tasks.length }), text(cheer)];
  if (!following && offered().length > 1) {
    const all = offered().flatMap(answersOf);
    sentences.push(text("result_lesson_done", { right: rightOf(all), count: all.length }));
  }
  setText($("result-words"), sentences.join(" "));
  $("result-list").replaceChildren(
    ...answers.map((isRight, index) =>
      make("li", { className: isRight ? "right" : "wrong" }, text("result_task", { number: index + 1, verdict: text(isRight ? "result_right" : "result_wrong") })),
    ),
  );
  $("result-next").hidden = !following;
  if (following) setText($("result-next"), text("result_next", { activity: text(`activity_${following}`) }));
  $("result-next").onclick = () => begin(following, false);
  setText($("result-again"), text(isLinked ? "same_again" : "again"));
  $("result-again").onclick = () => {
    if (!isLinked) renew();
    begin(activity, true);
  };
  show("result", $("result-title"));
}

/** Take other galaxies, where no lesson fixes them. */
function renew() {
  lesson.number = (lesson.number % LAST_NUMBER) + 1;
}

// The teacher's form

function buildPlan() {
  const tick = (group, id, label) => {
    const input = make("input", { type: "checkbox", name: group, value: id, checked: lesson[group].includes(id) });
    return make("label", { className: "tick" }, input, make("span", {}, label));
  };
  const before = document.querySelector("#plan-activities input") ? plan() : null;
  $("plan-activities").replaceChildren(
    $("plan-activities").firstElementChild,
    ...ACTIVITIES.map((id) => tick("activities", id, text(`activity_${id}`))),
  );
  $("plan-controls").replaceChildren($("plan-controls").firstElementChild, ...CONTROLS.map((id) => tick("controls", id, control(id))));
  for (const input of $("plan-activities").querySelectorAll("input")) {
    if (absence(input.value)) {
      Object.assign(input, { checked: false, disabled: true });
      input.parentElement.append(make("small", {}, ` ${absence(input.value)}`));
    }
  }
  if (!before) {
    $("plan-count").value = lesson.count;
    $("plan-number").value = lesson.number;
    $("plan-language").value = lesson.language;
    $("plan-words").value = lesson.words;
  } else {
    for (const input of $("plan").querySelectorAll("input[type=checkbox]")) input.checked = !input.disabled && before[input.name].includes(input.value);
  }
  showPlan();
}

/** What the form says. */
const plan = () => ({
  activities: [...document.querySelectorAll("#plan-activities input:checked")].map((input) => input.value),
  controls: [...document.querySelectorAll("#plan-controls input:checked")].map((input) => input.value),
  count: $("plan-count").valueAsNumber,
  language: $("plan-language").value,
  words: $("plan-words").value,
  number: $("plan-number").valueAsNumber,
  model: model().id,
});

function planFault(planned) {
  if (!planned.activities.length) return text("plan_nothing");
  if (planned.activities.includes("make") && !planned.controls.length) return text("plan_no_control");
  if (!$("plan-count").checkValidity() || !$("plan-number").checkValidity()) return text("plan_bad_number", { tasks: MOST_TASKS, numbers: LAST_NUMBER });
  return "";
}

const linkOf = (planned) => {
  const controls = planned.controls.length ? planned.controls : CONTROLS;
  return new URL(`?lesson=${writeLesson({ ...planned, controls })}`, location.href).href;
};

function showPlan() {
  const planned = plan();
  const fault = planFault(planned);
  $("plan-link").value = fault ? "" : linkOf(planned);
  $("plan-open").href = fault ? "learn" : linkOf(planned);
  for (const id of ["plan-copy", "plan-sheet"]) $(id).disabled = Boolean(fault);
  $("plan-open").toggleAttribute("aria-disabled", Boolean(fault));
  const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  setText($("plan-remark"), fault || (isLocal ? text("plan_local") : ""));
}

async function copyPlan() {
  try {
    await navigator.clipboard.writeText($("plan-link").value);
    setText($("plan-remark"), text("plan_copied"));
  } catch {
    $("plan-link").select();
    setText($("plan-remark"), text("plan_not_copied"));
  }
}

async function showSheet() {
  const planned = plan();
  unprinted ??= lesson;
  lesson = { ...planned };
  if (lesson.language !== document.documentElement.lang) await speak(lesson.language);
  show("sheet", $("sheet-title"));
  $("sheets").replaceChildren(make("p", {}, text("loading")));
  try {
    const tasks = {};
    for (const activity of planned.activities) if (!absence(activity) && activity !== "make") tasks[activity] = await tasksOf(activity);
    showSheets($("sheets"), tasks, { ...tools(), lesson });
  } catch {
    // which the page has said
  }
}

/** Go back from a sheet to the lesson that held before it. */
async function leaveSheet() {
  lesson = unprinted ?? lesson;
  unprinted = null;
  if (lesson.language !== document.documentElement.lang) await speak(lesson.language);
  showHome();
}

// Beginning

function sayFaults() {
  if (!faults.length) return;
  if (!isLinked) complain(text("trouble_link_whole"));
  else if (faults[0] === "model-absent") complain(text("trouble_model", { model: lesson.model }));
  else complain(text("trouble_link", { parts: faults.map((part) => text(`part_${part}`)).join(", ") }));
}

async function changeLanguage() {
  lesson.language = $("language").value;
  await speak(lesson.language);
  again();
}

/** Say all again that is shown, in other words. */
function again() {
  buildPlan();
  sayFaults();
  if (view === "home") showHome(false);
  else if (view === "task" && current?.tasks.length) {
    if (current.isAnswered) current.index += 1;
    if (current.index < current.tasks.length) showTask();
    else showResult();
  } else if (view === "result" && current) showResult();
  else showHome(false);
}

function connect() {
  $("language").addEventListener("change", changeLanguage);
  $("words").addEventListener("change", () => {
    lesson.words = $("words").value;
    again();
  });
  $("next").addEventListener("click", goOn);
  $("hint").addEventListener("click", () => {
    $("feedback").className = "panel";
    $("feedback").replaceChildren(current.shown.hint());
  });
  $("leave").addEventListener("click", () => showHome());
  $("result-home").addEventListener("click", () => showHome());
  $("plan").addEventListener("input", showPlan);
  $("plan").addEventListener("submit", (event) => event.preventDefault());
  $("plan-copy").addEventListener("click", copyPlan);
  $("plan-sheet").addEventListener("click", showSheet);
  $("sheet-print").addEventListener("click", () => print());
  $("sheet-home").addEventListener("click", leaveSheet);
  $("sheet-negative").addEventListener("change", () => $("sheets").classList.toggle("negative", $("sheet-negative").checked));
}

async function start() {
  const fresh = 1 + Math.floor(Math.random() * LAST_NUMBER);
  const found = readLesson(new URLSearchParams(location.search).get("lesson"), fresh);
  isLinked = Boolean(found.lesson);
  lesson = found.lesson ?? standardLesson(fresh, ownLanguage());
  faults = found.faults;
  await speak(lesson.language);
  $("words").value = lesson.words;
  catalogue = await read("api/model");
  if (lesson.model && !catalogue.models.some((one) => one.id === lesson.model)) faults = ["model-absent"];
  if (!isLinked) lesson.activities = ACTIVITIES;
  connect();
  buildPlan();
  sayFaults();
  showHome(false);
}

start();
