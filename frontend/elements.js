// Elements of the page: made, and changed only where there is a change.

/** Make an element with attributes, and children that may be texts. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A number as it is printed for people, with a minus sign and not a hyphen. */
export const inPrint = (number) => String(number).replaceAll("-", "−");

/** Write a text; writing the same one again would have the browser paint it again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** How large the pixels are through which a survey shows a model's light, and why they are not its own. */
export function surveyPixels({ pixel_scale, binning }, { light_pixel_scale }) {
  if (binning === 1) return `pixels of ${pixel_scale}″`;
  return `pixels binned ${binning} × ${binning} to ${pixel_scale}″: the galaxies’ light has ${light_pixel_scale}″ pixels`;
}
