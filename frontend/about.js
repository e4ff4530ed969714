// What this page is, in one sentence, and the card of the model with whom its data are owed to.

import { make, setText } from "./elements.js";

const LONGEST_NAMES = 90; // characters of what the sentence says of the data

const inWords = (number) => (number === null ? "unknown" : number.toLocaleString("en"));

/** Of which galaxies a model was made, in a few words: what their credit names, without its references. */
export function namesOfData({ credit, source }) {
  const names = (credit ?? "").replace(/\s*\([^()]*\)/g, "").split(";").map((part) => part.trim()).filter(Boolean).join(", ");
  return names && names.length <= LONGEST_NAMES ? names : (source ?? "");
}

/** What a model's galaxies are. */
export function sentence({ family, image_size, training_data }) {
  const names = namesOfData(training_data);
  return (
    `None of these galaxies exists: a neural network (${family === "GAN" ? "a GAN" : `a ${family} model`}), trained on ` +
    `${inWords(training_data.trained_on)} galaxies${names && ` (${names})`}, invents them, ${image_size} × ${image_size} pixels.`
  );
}

/** Show a model in the header's sentence and in the dialog of its card. */
export function renderAbout(model, words, dialog) {
  setText(words, sentence(model));
  if (dialog.dataset.model === model.id) return;
  dialog.dataset.model = model.id;
  const { training_data: data } = model;
  const facts = {
    "Kind": model.family,
    "Drawn by": model.description,
    "Pictures": model.kind === "flux"
      ? `${model.image_size} × ${model.image_size} pixels of ${model.pixel_scale}″, light in nJy, bands ${model.bands.join(", ")}`
      : `${model.image_size} × ${model.image_size} pixels, ${model.bands.join(", ")} as displayed`,
    "Trained on": `${inWords(data.trained_on)} galaxies${data.count === null ? "" : ` of the ${inWords(data.count)} of the dataset`}`,
    "Dataset": data.source ?? "unknown",
    "Training": model.step === null ? "unknown" : `${inWords(model.step)} steps`,
    "File": model.checkpoint || "unknown",
  };
  dialog.querySelector("dl").replaceChildren(
    ...Object.entries(facts).map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))),
  );
  setText(dialog.querySelector("#credits"), data.credit ? `${data.credit}.` : "The dataset names nobody.");
  const link = dialog.querySelector("a");
  link.parentElement.hidden = model.card === null;
  if (model.card !== null) link.href = model.card;
}
