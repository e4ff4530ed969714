// A lesson on paper: sheets for the class, and its answers on a page of their own.

import { make } from "./elements.js";
import { halfLightRadius, sizeOrder } from "./learn-lesson.js";
import { measuredWords, pathsOf, picture, queryOf } from "./learn-tasks.js";

const LETTERS = "ABCDEFGH";

/** Write the sheets of tasks, by their activity, into an element. */
export function showSheets(place, tasks, tools) {
  const { text, lesson } = tools;
  const pages = [];
  const answers = [];
  const line = (name) => make("span", { className: "line" }, `${text(name)}: `);
  if (tasks.type?.length) {
    pages.push(page(tools, text("sheet_type"), make("ol", { className: "sheet-galaxies" }, ...tasks.type.map(({ example }) => typeItem(tools, example)))));
    answers.push([text("activity_type"), make("ol", {}, ...tasks.type.map(({ example }) => make("li", {}, make("strong", {}, tools.className(example.morphology)), ` – ${tools.reason(example.morphology)} ${measuredWords(tools, example)}`)))]);
  }
  if (tasks.real?.length) {
    const pairs = tasks.real.map((task) => make("li", { className: "sheet-row" }, ...pathsOf(task).map((path, index) => lettered(picture(tools, path, text("galaxy", { letter: LETTERS[index] })), index))));
    pages.push(page(tools, text(tools.isMock ? "sheet_real_mock" : "sheet_real"), make("ol", { className: "sheet-rows" }, ...pairs)));
    answers.push([text("activity_real"), make("ol", {}, ...tasks.real.map(({ real }) => make("li", {}, text(tools.isMock ? "real_is_mock" : "real_is", { letter: LETTERS[real], other: LETTERS[1 - real] }))))]);
  }
  if (tasks.sizes?.length) {
    pages.push(page(tools, text("sheet_sizes"), make("ol", { className: "sheet-rows" }, ...tasks.sizes.map(({ examples }) => sizeItem(tools, examples)))));
    answers.push([text("activity_sizes"), make("ol", {}, ...tasks.sizes.map(({ examples }) => make("li", {}, sizeAnswer(tools, examples))))]);
  }
  const solution = make("section", { className: "page" }, make("h2", {}, text("sheet_answers", { number: lesson.number })));
  for (const [name, list] of answers) solution.append(make("h3", {}, name), list);
  solution.append(make("p", {}, text("sheet_note")));
  if (tasks.real?.length) solution.append(make("p", {}, tools.credit));
  if (lesson.activities.includes("make")) solution.append(make("p", {}, text("sheet_make")));
  pages[0]?.prepend(make("p", { className: "lines" }, line("sheet_name"), line("sheet_date")));
  place.replaceChildren(...pages, solution);
}

const page = (tools, task, list) =>
  make("section", { className: "page" }, make("h2", {}, tools.text("sheet_heading", { number: tools.lesson.number })), make("p", { className: "task" }, task), list);

const lettered = (frame, index) => make("div", {}, frame, make("span", { className: "letter" }, LETTERS[index]), make("span", { className: "box", ariaHidden: "true" }));

function typeItem(tools, example) {
  const boxes = tools.classes.map((name) => make("span", { className: "choice" }, make("span", { className: "box", ariaHidden: "true" }), tools.className(name)));
  return make("li", {}, picture(tools, `api/image.png?${queryOf(example, { pixels: 256 })}`, tools.text("picture")), make("p", { className: "choices" }, ...boxes));
}

function sizeItem(tools, examples) {
  const galaxies = examples.map((example, index) =>
    lettered(picture(tools, `api/image.png?${queryOf(example, { pixels: 256 })}`, tools.text("galaxy", { letter: LETTERS[index] })), index),
  );
  return make("li", { className: "sheet-row" }, ...galaxies);
}

function sizeAnswer(tools, examples) {
  const places = sizeOrder(examples);
  const order = examples.map((_, index) => index).sort((one, other) => places[one] - places[other]);
  return order.map((index) => `${LETTERS[index]} (${tools.number(100 * halfLightRadius(examples[index]), 1)})`).join(" < ");
}
