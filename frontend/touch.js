// Sliders under a finger: a browser moves the thumb as soon as a finger is laid on, even if that is to scroll the page.

const SLOP = 8; // pixels along a slider from which on a finger pulls it

/** Let a slider take its value from a finger only once that has moved along it, or has only tapped it. */
export function guardSliders(root) {
  let held = null; // {slider, before, taken, x}

  const release = () => {
    const { slider, taken } = held;
    held = null;
    if (taken === null) return;
    slider.value = taken;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
  root.addEventListener("pointerdown", ({ target, pointerType, clientX }) => {
    const isSlider = pointerType === "touch" && target.matches("input[type=range]");
    held = isSlider ? { slider: target, before: target.value, taken: null, x: clientX } : null;
  }, true);
  root.addEventListener("input", (event) => {
    if (!held || event.target !== held.slider) return;
    held.taken = held.slider.value;
    held.slider.value = held.before;
    event.stopPropagation();
  }, true);
  root.addEventListener("pointermove", ({ clientX }) => held && Math.abs(clientX - held.x) > SLOP && release(), true);
  root.addEventListener("pointerup", () => held && release(), true);
  root.addEventListener("pointercancel", () => (held = null), true); // the browser scrolls
}
