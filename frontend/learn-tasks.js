// The activities on the page: each shows a task, takes the answer, and says at once what there was to see.

import { make, setText } from "./elements.js";
import { DISTANCES, growthOf, pixelsOf } from "./learn-growth.js";
import { agrees, compare, halfLightRadius, scaleOf, shownSide, sizeOrder } from "./learn-lesson.js";

const LETTERS = "ABCDEFGH";
const VISIBLE_ARMS = 0.093; // strength from which arms are seen; the server says of each galaxy whether they are
const SVG = "http://www.w3.org/2000/svg";

/** Parameters of an example's picture. */
export function queryOf(example, extra = {}) {
  const query = new URLSearchParams({ morphology: example.morphology, seed: example.seed, model: example.model, ...extra });
  for (const [name, { requested, set }] of Object.entries(example.attributes)) if (set) query.set(name, requested);
  return query.toString();
}

/** A picture in its frame; it appears when it is there, and says so to nobody: the tasks do not wait for it. */
export function picture(tools, path, alt) {
  const image = make("img", { alt, width: 256, height: 256, decoding: "async" });
  const frame = make("div", { className: "frame" }, image);
  (path.startsWith("data:") ? Promise.resolve(path) : tools.load(path)).then((address) => {
    image.src = address;
  }, () => {});
  return frame;
}

/** Draw the circle that holds half of the light onto a framed picture. */
function drawCircle(frame, example) {
  const radius = halfLightRadius(example);
  if (!radius) return;
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 1 1");
  drawing.setAttribute("aria-hidden", "true");
  const circle = document.createElementNS(SVG, "circle");
  for (const [name, value] of [["cx", example.ellipse.x], ["cy", example.ellipse.y], ["r", radius]]) circle.setAttribute(name, value);
  drawing.append(circle);
  frame.append(drawing);
}

const shownSize = (tools, radius) => (tools.words === "expert" ? tools.number(radius, 3) : String(Math.round(100 * radius)));
const verdict = (tools, isRight) => make("strong", { className: isRight ? "right" : "wrong" }, tools.text(isRight ? "right" : "wrong"));

/** What a picture's measurements say of its type, in words. */
export function measuredWords(tools, example) {
  const { arm_strength: strength, arm_count: count, second_nucleus: ratio } = example.signs;
  const ellipticity = example.signs.ellipticity;
  const expert = tools.words === "expert";
  if (example.morphology === "spiral" && strength !== null) {
    return expert ? tools.text("measured_arms_expert", { strength: tools.number(strength, 2), count }) : tools.plural("measured_arms", count);
  }
  if (example.morphology === "merger" && ratio !== null) {
    return expert
      ? tools.text("measured_nucleus_expert", { ratio: tools.number(ratio, 2) })
      : tools.text("measured_nucleus", { percent: Math.round(100 * ratio) });
  }
  if (ellipticity === null || ellipticity === undefined) return "";
  return expert
    ? tools.text("measured_round_expert", { ellipticity: tools.number(ellipticity, 2) })
    : tools.text("measured_round", { round: Math.round(100 * (1 - ellipticity)) });
}

/** Which type is it? */
export function typeTask(stage, task, tools) {
  const { example } = task;
  const frame = picture(tools, `api/image.png?${queryOf(example, { pixels: 512 })}`, tools.text("picture"));
  const buttons = tools.classes.map((name) => make("button", { type: "button", className: "answer" }, tools.className(name)));
  buttons.forEach((button, index) => {
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled")) return;
      const chosen = tools.classes[index];
      const isRight = chosen === example.morphology;
      buttons.forEach((other, k) => {
        other.setAttribute("aria-disabled", "true");
        if (tools.classes[k] === example.morphology) other.classList.add("right");
        else if (other === button) other.classList.add("wrong");
      });
      button.setAttribute("aria-pressed", "true");
      const reasons = [tools.reason(example.morphology), ...(isRight ? [] : [tools.not(chosen)]), measuredWords(tools, example)];
      tools.done(isRight, [verdict(tools, isRight), ` ${reasons.filter(Boolean).join(" ")}`]);
    });
  });
  stage.append(make("div", { className: "pair" }, frame, make("div", { className: "answers", role: "group", ariaLabel: tools.text("question_type") }, ...buttons)));
  const signs = example.signs;
  const known = (value) => (value === null || value === undefined ? "–" : tools.number(value, 2));
  return {
    hint: () =>
      tools.words === "expert"
        ? tools.text("hint_type_expert", {
            arms: known(signs.arm_strength),
            limit: tools.number(VISIBLE_ARMS, 3),
            nucleus: known(signs.second_nucleus),
            round: known(signs.ellipticity),
          })
        : tools.text("hint_type", {
            arms: tools.text(example.visible.includes("arms") ? "seen_yes" : "seen_no"),
            nucleus: tools.text(example.visible.includes("second nucleus") ? "seen_yes" : "seen_no"),
            round: Math.round(100 * (1 - (signs.ellipticity ?? 0))),
          }),
  };
}

/** A table of how the light of galaxies grows outwards: the task of sizes for who does not see the pictures. */
function growthTable(tools, examples, buttons) {
  const percent = (value) => `${value} %`;
  const cells = examples.map(() => DISTANCES.map(() => make("td", {}, "…")));
  const head = [make("th", { scope: "col" }, tools.text("sizes_table_galaxy")), ...DISTANCES.map((d) => make("th", { scope: "col" }, percent(Math.round(100 * d))))];
  const table = make(
    "table",
    {},
    make("caption", {}, tools.text("sizes_table_caption")),
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...examples.map((_, k) => make("tr", {}, make("th", { scope: "row" }, LETTERS[k]), ...cells[k]))),
  );
  examples.forEach(async (example, k) => {
    const radius = halfLightRadius(example);
    if (!radius) return;
    try {
      const pixels = await pixelsOf(await tools.load(`api/image.png?${queryOf(example, { pixels: 256 })}`));
      const growth = growthOf(pixels, example.ellipse, radius).map(Math.round);
      cells[k].forEach((cell, place) => setText(cell, percent(growth[place])));
      const steps = growth.map((part, place) => tools.text("sizes_table_step", { part, distance: Math.round(100 * DISTANCES[place]) }));
      buttons[k].setAttribute("aria-description", tools.text("sizes_table_words", { steps: steps.join("; ") }));
    } catch {
      // which the page has said
    }
  });
  return make("details", { className: "numbers" }, make("summary", {}, tools.text("sizes_table_show")), make("div", { className: "scrolling", tabIndex: 0, role: "region", ariaLabel: tools.text("sizes_table_show") }, table));
}

/** Put these by size. */
export function sizesTask(stage, task, tools) {
  const { examples } = task;
  const right = sizeOrder(examples);
  const chosen = []; // indices, the smallest first
  let isDone = false;
  const frames = [];
  const buttons = examples.map((example, index) => {
    const frame = picture(tools, `api/image.png?${queryOf(example, { pixels: 256 })}`, "");
    frames.push(frame);
    const badge = make("span", { className: "badge", ariaHidden: "true" });
    const name = make("span", { className: "letter" }, LETTERS[index]);
    const button = make("button", { type: "button", className: "galaxy" }, frame, badge, name);
    button.addEventListener("click", () => choose(index));
    return button;
  });
  const clear = make("button", { type: "button", className: "quiet" }, tools.text("sizes_clear"));
  clear.addEventListener("click", () => {
    chosen.length = 0;
    render();
    buttons[0].focus();
  });
  const render = () => {
    buttons.forEach((button, index) => {
      const place = chosen.indexOf(index);
      button.setAttribute("aria-pressed", String(place >= 0));
      const where = place < 0 ? tools.text("sizes_no_place") : tools.text("sizes_place", { place: place + 1 });
      button.setAttribute("aria-label", `${tools.text("sizes_label", { letter: LETTERS[index] })}, ${where}`);
      setText(button.querySelector(".badge"), place < 0 ? "" : String(place + 1));
    });
    clear.disabled = isDone || !chosen.length;
  };
  const choose = (index) => {
    if (isDone) return;
    const place = chosen.indexOf(index);
    if (place >= 0) chosen.splice(place);
    else chosen.push(index);
    if (chosen.length === examples.length - 1) chosen.push(examples.findIndex((_, k) => !chosen.includes(k))); // the last is the largest
    if (chosen.length === examples.length) finish();
    render();
  };
  const finish = () => {
    isDone = true;
    const isRight = chosen.every((index, place) => right[index] === place);
    const order = examples.map((_, index) => index).sort((a, b) => right[a] - right[b]);
    const sizes = order.map((index) => {
      const size = shownSize(tools, halfLightRadius(examples[index]));
      return make("li", {}, tools.text(tools.words === "expert" ? "sizes_measured_expert" : "sizes_measured", { letter: LETTERS[index], size }));
    });
    frames.forEach((frame, index) => drawCircle(frame, examples[index]));
    buttons.forEach((button, index) => {
      button.setAttribute("aria-disabled", "true");
      button.classList.add(right[index] === chosen.indexOf(index) ? "right" : "wrong");
    });
    const words = tools.text(isRight ? "sizes_right" : "sizes_wrong", { order: order.map((index) => LETTERS[index]).join(", ") });
    tools.done(isRight, [verdict(tools, isRight), ` ${words}`, make("ul", { className: "measured" }, ...sizes)]);
  };
  stage.append(
    make("p", { className: "how" }, tools.text("sizes_how")),
    make("div", { className: "galaxies", role: "group", ariaLabel: tools.text("question_sizes") }, ...buttons),
    clear,
    growthTable(tools, examples, buttons),
  );
  render();
  return { hint: () => tools.text("hint_sizes") };
}

/** Make this galaxy. */
export function makeTask(stage, task, tools) {
  const { example, begin } = task;
  const controls = tools.controls;
  const scales = Object.fromEntries(controls.map((control) => [control.id, scaleOf(control, tools.words)]));
  const values = { ...begin };
  let [target, reading, isDone, isTouched] = [null, null, false, false];

  const request = (changed = {}) => {
    const query = new URLSearchParams({ morphology: example.morphology, seed: example.seed, model: example.model });
    for (const [name, { requested }] of Object.entries(example.attributes)) if (requested !== null) query.set(name, requested);
    for (const { id, attribute } of controls) if (id in changed) query.set(attribute.name, Number(changed[id].toPrecision(5)));
    return query;
  };
  const own = make("img", { alt: tools.text("yours"), width: 256, height: 256 });
  const figure = (label, frame) => make("figure", {}, frame, make("figcaption", {}, label));
  const targetFrame = picture(tools, `api/image.png?${request()}&pixels=512`, tools.text("target"));
  const pictures = make("div", { className: "two" }, figure(tools.text("target"), targetFrame), figure(tools.text("yours"), make("div", { className: "frame" }, own)));

  const rows = controls.map((control) => {
    const { id } = control;
    const scale = scales[id];
    const input = make("input", { type: "range", id: `make-${id}`, min: scale.low, max: scale.high, step: scale.step });
    input.value = scale.shown(values[id]);
    const state = make("output", { htmlFor: `make-${id}` });
    input.setAttribute("aria-describedby", `make-${id}-state`);
    state.id = `make-${id}-state`;
    input.addEventListener("input", () => {
      isTouched = true;
      values[id] = scale.value(Number(input.value));
      input.setAttribute("aria-valuetext", shown(id, values[id]));
      draw();
    });
    input.setAttribute("aria-valuetext", shown(id, values[id]));
    const ends = scale.isReversed === (id === "round") ? ["low", "high"] : ["high", "low"];
    const row = make(
      "div",
      { className: "control" },
      make("label", { htmlFor: `make-${id}` }, tools.control(id)),
      make("span", { className: "track" }, make("span", { ariaHidden: "true" }, tools.text(`${ends[0]}_${id}`)), input, make("span", { ariaHidden: "true" }, tools.text(`${ends[1]}_${id}`))),
      state,
    );
    return { control, input, state, row };
  });
  function shown(id, value) {
    return value === null || value === undefined ? "–" : tools.number(scales[id].shown(value), scales[id].digits);
  }
  const giveUp = make("button", { type: "button", className: "quiet" }, tools.text("make_show"));
  giveUp.addEventListener("click", () => {
    for (const { control, input } of rows) {
      values[control.id] = example.attributes[control.attribute.name].requested ?? values[control.id];
      input.value = scales[control.id].shown(values[control.id]);
      input.setAttribute("aria-valuetext", shown(control.id, values[control.id]));
    }
    finish(false, [tools.text("make_shown")]);
    draw();
  });
  stage.append(pictures, make("div", { className: "controls" }, ...rows.map(({ row }) => row)), giveUp);

  const side = (id, compared) => shownSide(compared[id], scales[id]);
  const sideWords = (id, where) => {
    if (where === null) return tools.text("make_unmeasured");
    if (where === 0) return tools.text("make_agrees");
    if (tools.words === "expert") return tools.text(where < 0 ? "make_below" : "make_above");
    return tools.text(`${where < 0 ? "make_below" : "make_above"}_${id}`);
  };
  const render = () => {
    if (!target || !reading) return;
    const compared = compare(controls, reading, target);
    for (const { control, state, row } of rows) {
      const where = side(control.id, compared);
      const numbers = { target: shown(control.id, target[control.attribute.name]), yours: shown(control.id, reading[control.attribute.name]) };
      setText(state, `${tools.text("make_reading", numbers)}: ${sideWords(control.id, where)}`);
      row.classList.toggle("agrees", where === 0);
    }
    if (isTouched && !isDone && agrees(compared)) finish(true, [verdict(tools, true), ` ${tools.text("make_right")}`]);
  };
  const finish = (isRight, words) => {
    isDone = true;
    giveUp.hidden = true;
    for (const { input } of rows) input.disabled = true;
    tools.done(isRight, words);
  };
  const measured = (answer) => Object.fromEntries(Object.entries(answer.attributes).map(([name, one]) => [name, one.measured]));

  // One galaxy is under way, and of those wanted meanwhile the newest waits.
  let [isBusy, isWanted] = [false, false];
  const draw = async () => {
    isWanted = true;
    if (isBusy) return;
    isBusy = true;
    while (isWanted && stage.isConnected) {
      isWanted = false;
      const query = request(values).toString();
      try {
        const [address, answer] = await Promise.all([tools.load(`api/image.png?${query}&pixels=512`), tools.read(`api/measure?${query}`)]);
        own.src = address;
        reading = measured(answer);
        render();
      } catch {
        break; // which the page has said
      }
    }
    isBusy = false;
  };
  tools.read(`api/measure?${request()}`).then((answer) => {
    target = measured(answer);
    render();
  }, () => {});
  draw();
  return {
    hint: () => {
      if (!target || !reading) return tools.text("hint_make", { control: tools.control(controls[0].id) });
      const off = ({ attribute }) => Math.abs((reading[attribute.name] ?? 0) - (target[attribute.name] ?? 0)) / (attribute.high - attribute.low);
      const furthest = controls.reduce((one, other) => (off(other) > off(one) ? other : one));
      return tools.text("hint_make", { control: tools.control(furthest.id) });
    },
  };
}

/** Addresses of a pair's pictures in their order, both of as many pixels as were taken or drawn. */
export function pathsOf({ example, picture: taken, real }) {
  const drawn = `api/image.png?${queryOf(example, { pixels: 64 })}`;
  return real === 0 ? [taken, drawn] : [drawn, taken];
}

/** Real or generated? */
export function realTask(stage, task, tools) {
  const { real } = task;
  const buttons = pathsOf(task).map((path, index) => {
    const name = make("span", { className: "letter" }, LETTERS[index]);
    const button = make("button", { type: "button", className: "galaxy", ariaLabel: tools.text("galaxy", { letter: LETTERS[index] }) }, picture(tools, path, ""), name);
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled")) return;
      const isRight = index === real;
      buttons.forEach((other, k) => {
        other.setAttribute("aria-disabled", "true");
        if (k === real) other.classList.add("right");
        else if (other === button) other.classList.add("wrong");
      });
      const words = tools.text(tools.isMock ? "real_is_mock" : "real_is", { letter: LETTERS[real], other: LETTERS[1 - real] });
      tools.done(isRight, [verdict(tools, isRight), ` ${words} ${tools.text(tools.isMock ? "real_reason_mock" : "real_reason")}`]);
    });
    return button;
  });
  stage.append(make("div", { className: "galaxies couple", role: "group", ariaLabel: tools.question("real") }, ...buttons));
  return { hint: () => tools.text("hint_real") };
}

export const TASKS = { type: typeTask, real: realTask, sizes: sizesTask, make: makeTask };
