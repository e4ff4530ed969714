// Lessons as pure functions: the link that fixes one, the tasks that follow from it, and how answers are judged.

export const ACTIVITIES = ["type", "real", "sizes", "make"];
export const CONTROLS = ["size", "brightness", "round"];
export const LANGUAGES = ["en", "de", "es"];
export const WORDS = ["simple", "expert"];
export const MOST_TASKS = 10;
export const LAST_NUMBER = 9999; // of lessons; each has galaxies of its own
export const TOLERANCE = 0.05; // of a slider's range, within which photometry agrees

const VERSION = "1";
const SEEDS = 10_000; // between the seeds of one lesson and those of the next
const SIZE_STEP = 1.12; // least ratio of half-light radii that are to be told apart
const LARGEST = 0.92; // of the largest size of real galaxies, whose picture often cuts them off
const IN_A_ROW = 4; // galaxies that are put in order
const FAR = 0.25; // of a slider's range, from where a galaxy is to be made
const STEPS = 60; // of such a slider

// How the controls are called in models: of displays, and of flux in the order of preference.
const ATTRIBUTE = {
  size: [/^size$/, /^size_arcsec$/],
  brightness: [/^brightness$/, /^surface_brightness_/, /^magnitude_/],
  round: [/^ellipticity$/],
};

/** What holds where a link says nothing else. */
export const standardLesson = (number, language) => ({
  activities: [...ACTIVITIES],
  count: 5,
  controls: [...CONTROLS],
  language,
  words: "simple",
  number,
  model: null,
});

/**
 * Write a lesson as a link's value, such as "1.type-make.5.size-round.en.simple.42.gan": version, activities, tasks in
 * each, controls, language, words, number and model, all of letters that an address keeps as they are.
 */
export const writeLesson = (lesson) =>
  [
    VERSION,
    lesson.activities.join("-"),
    lesson.count,
    lesson.controls.join("-"),
    lesson.language,
    lesson.words,
    lesson.number,
    lesson.model ?? "any",
  ].join(".");

/** Read what `writeLesson` wrote, or null where there is no lesson; `faults` names the parts that could not be read. */
export function readLesson(text, number = 1) {
  if (!text) return { lesson: null, faults: [] };
  const lesson = standardLesson(number, "en");
  const [version, activities, count, controls, language, words, wanted, model] = text.split(".");
  if (version !== VERSION) return { lesson: null, faults: ["lesson"] };
  const faults = [];
  const take = (name, value, isRight) => {
    if (isRight) lesson[name] = value;
    else faults.push(name);
  };
  const some = (given, known) => known.filter((name) => (given ?? "").split("-").includes(name));
  const isSubset = (given, known) => (given ?? "").split("-").every((name) => known.includes(name));
  const whole = (given, most) => /^\d{1,5}$/.test(given ?? "") && Number(given) >= 1 && Number(given) <= most;
  take("activities", some(activities, ACTIVITIES), isSubset(activities, ACTIVITIES));
  take("count", Number(count), whole(count, MOST_TASKS));
  take("controls", some(controls, CONTROLS), isSubset(controls, CONTROLS));
  take("language", language, LANGUAGES.includes(language));
  take("words", words, WORDS.includes(words));
  take("number", Number(wanted), whole(wanted, LAST_NUMBER));
  take("model", model === "any" ? null : model, /^[a-z]+$/.test(model ?? ""));
  return { lesson, faults };
}

/** First seed of a lesson's galaxies. */
export const seedOf = (number) => number * SEEDS;

/** Random numbers in [0, 1) that repeat (Marsaglia 2003, xorshift). */
export function random(seed) {
  let x = (seed * 2654435761 + 12345) | 0 || 1;
  const next = () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
  for (let k = 0; k < 8; k += 1) next(); // the first ones of like seeds are alike
  return next;
}

export function shuffled(list, next) {
  const found = [...list];
  for (let k = found.length - 1; k > 0; k -= 1) {
    const other = Math.floor(next() * (k + 1));
    [found[k], found[other]] = [found[other], found[k]];
  }
  return found;
}

/**
 * Classes whose galaxies an activity shows, and how many examples of each it takes: no more, whatever else is there, so
 * that a lesson is the same in whatever order its activities are done.
 */
export function needed(activity, count, classes) {
  // Of a disc from its side, or of two galaxies, a circle is a poor measure of size, and photometry of two is rough.
  const plain = classes.filter((name) => name !== "merger" && name !== "edge-on");
  const single = classes.filter((name) => name !== "merger");
  const known = { type: classes, real: classes, sizes: plain.length ? plain : classes, make: single.length ? single : classes }[activity];
  const most = { type: Math.ceil(count / known.length), real: Math.ceil(count / known.length), sizes: count, make: Math.ceil(count / known.length) };
  return { classes: known, most: most[activity] };
}

/** Radius of the circle that holds half of an example's light, in widths of its picture; null if not measured. */
export const halfLightRadius = (example) =>
  example.ellipse && (example.ellipse.semi_major + example.ellipse.semi_minor) / 2;

/** Examples by class without the first ones, of each class that has others. */
export const beyond = (pools, first) =>
  Object.fromEntries(Object.entries(pools).map(([name, pool]) => [name, pool.length > first ? pool.slice(first) : pool]));

/** Tasks of "Which type is it?": clear examples, as many of each class as there can be, in an order of the lesson's. */
export function typeTasks(pools, count, number) {
  const next = random(number);
  const rounds = [];
  const most = Math.max(0, ...Object.values(pools).map((pool) => pool.length));
  for (let round = 0; round < most && rounds.length < count; round += 1) {
    const there = Object.keys(pools).filter((name) => round < pools[name].length);
    for (const name of shuffled(there, next)) rounds.push(pools[name][round]);
  }
  return shuffled(rounds.slice(0, count), next).map((example) => ({ example }));
}

/**
 * Tasks of "Real or generated?": pairs of an example and of the real galaxy that is nearest to it, no real one twice.
 * `nearest` has a list of galaxies, nearest first, for each of the tasks' examples.
 */
export function realTasks(tasks, nearest, number) {
  const next = random(number + 0.75);
  const seen = new Set();
  const pairs = [];
  for (const [k, { example }] of tasks.entries()) {
    const real = nearest[k].find((galaxy) => !seen.has(galaxy.object_id));
    if (!real) continue;
    seen.add(real.object_id);
    pairs.push({ example, picture: real.picture, real: next() < 0.5 ? 0 : 1 });
  }
  return pairs;
}

/**
 * Sizes to ask for, so that galaxies can be put in order: the same factor lies between them, and real galaxies of all
 * the classes have them. Null where a model has no such attribute.
 */
export function sizesOf(model, classes) {
  const [control] = controlsOf(model, ["size"]);
  if (!control) return null;
  const ranges = classes.map((name) => control.attribute.supported[name] ?? [control.attribute.low, control.attribute.high]);
  const low = Math.max(...ranges.map(([end]) => end));
  const high = Math.min(...ranges.map(([, end]) => end));
  if (!(low > 0 && LARGEST * high > low)) return null;
  const factor = ((LARGEST * high) / low) ** (1 / (IN_A_ROW - 1));
  return { name: control.attribute.name, values: Array.from({ length: IN_A_ROW }, (_, k) => Number((low * factor ** k).toPrecision(3))) };
}

/** Tasks of "Put these by size": a galaxy of each step of size, if their half-light radii can be told apart. */
export function sizeTasks(steps, count, number) {
  const next = random(number + 0.5);
  const tasks = [];
  for (let round = 0; tasks.length < count && round < count; round += 1) {
    const fresh = shuffled(steps.map((step) => step[round]).filter(Boolean), next);
    const row = apart([...fresh, ...shuffled(steps.flat(), next)]); // some are shown again where there are too few
    if (row.length > 1) tasks.push({ examples: shuffled(row, next) });
  }
  return tasks;
}

/** Return the first galaxies of a list that differ in size from all before them. */
function apart(list) {
  const row = [];
  for (const example of list) {
    const size = halfLightRadius(example);
    const isApart = (other) => size > 0 && Math.max(size, other) / Math.min(size, other) >= SIZE_STEP;
    if (row.length < IN_A_ROW && !row.includes(example) && row.every((one) => isApart(halfLightRadius(one)))) row.push(example);
  }
  return row;
}

/** Places of a row's galaxies, 0 for the smallest. */
export function sizeOrder(examples) {
  const sizes = examples.map(halfLightRadius);
  return sizes.map((size) => sizes.filter((other) => other < size).length);
}

/** Controls of a model: its attributes that photometry measures, by what they are called here. */
export function controlsOf(model, wanted = CONTROLS) {
  const found = [];
  for (const id of CONTROLS.filter((one) => wanted.includes(one))) {
    const attribute = ATTRIBUTE[id]
      .map((pattern) => model.attributes.find((a) => a.measured && pattern.test(a.name)))
      .find(Boolean);
    if (attribute) found.push({ id, attribute });
  }
  return found;
}

/** Tasks of "Make this galaxy": a target, and where each control begins, well away from it. */
export function makeTasks(pools, count, number, controls) {
  const next = random(number + 0.25);
  const names = Object.keys(pools);
  const tasks = [];
  for (let round = 0; tasks.length < count; round += 1) {
    const there = shuffled(names.filter((name) => round < pools[name].length), next);
    if (!there.length) break;
    for (const name of there.slice(0, count - tasks.length)) {
      const example = pools[name][round];
      const begin = controls.map(({ id, attribute }) => [id, startValue(attribute, example, next)]);
      tasks.push({ example, begin: Object.fromEntries(begin) });
    }
  }
  return tasks;
}

function startValue(attribute, example, next) {
  const { low, high } = attribute.supported[example.morphology] ? limits(attribute, example.morphology) : attribute;
  const target = example.attributes[attribute.name].requested ?? (low + high) / 2;
  const far = FAR * (attribute.high - attribute.low);
  const below = Math.max(0, target - far - low);
  const above = Math.max(0, high - target - far);
  if (below + above === 0) return target - low > high - target ? low : high; // as far as real galaxies go
  const part = next() * (below + above);
  return part < below ? low + part : high - (part - below);
}

function limits(attribute, morphology) {
  const [low, high] = attribute.supported[morphology];
  return { low: Math.max(low, attribute.low), high: Math.min(high, attribute.high) };
}

/** Tell of each control, by its id, whether what was measured agrees with the target: 0, or -1 below and 1 above it. */
export function compare(controls, measured, target) {
  const found = controls.map(({ id, attribute }) => {
    const [got, wanted] = [measured[attribute.name], target[attribute.name]];
    if (got === null || wanted === null || got === undefined || wanted === undefined) return [id, null];
    const off = (got - wanted) / (attribute.high - attribute.low);
    return [id, Math.abs(off) <= TOLERANCE + 1e-9 ? 0 : Math.sign(off)];
  });
  return Object.fromEntries(found);
}

export const agrees = (compared) => Object.values(compared).every((one) => one === 0);

/** Values as people read them: hundredths where words are simple, and the model's own otherwise. */
export function scaleOf({ id, attribute }, words) {
  const step = (attribute.high - attribute.low) / STEPS;
  if (words === "expert") {
    return { low: attribute.low, high: attribute.high, step, shown: (v) => v, value: (v) => v, digits: 3, isReversed: false };
  }
  const isReversed = id === "round" || /^(surface_brightness|magnitude)_/.test(attribute.name);
  const isPart = /^(size|brightness|ellipticity)$/.test(attribute.name); // of a width, of white, of a circle
  const [zero, one] = isPart ? [0, 1] : [attribute.low, attribute.high];
  const part = (v) => (100 * (v - zero)) / (one - zero);
  const shown = isReversed ? (v) => 100 - part(v) : part;
  const value = (s) => zero + ((isReversed ? 100 - s : s) / 100) * (one - zero);
  const ends = [shown(attribute.low), shown(attribute.high)];
  return { low: Math.min(...ends), high: Math.max(...ends), step: (100 * step) / (one - zero), shown, value, digits: 0, isReversed };
}

/** Which way the shown value is off, of what `compare` says of the measured one. */
export const shownSide = (side, scale) => (side === null ? null : scale.isReversed ? -side || 0 : side);

/** Fill a text's {placeholders}. */
export const fill = (text, values = {}) => text.replaceAll(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
