// Pixels of the sky: galaxies cut out of their pictures and laid over each other, with one sky and one noise under all.

import { mixed } from "./field_layout.js";
import { uniform } from "./sky.js";

const WHOLE = 0.6; // of half a picture's width, within which a galaxy is laid down as it is; beyond it fades to the rim

/**
 * A galaxy without its sky, at the size at which it is laid down.
 *
 * @param {ImageData} picture  of n x n pixels
 * @returns {{side: number, light: Float32Array, window: Float32Array, noise: number[], sky: number[]}} light above the
 *   sky (n * n * 3) times the window (n * n), and median and deviation of the corners, for red, green and blue
 */
export function stampOf(picture) {
  const side = picture.width;
  const window = Float32Array.from({ length: side * side }, (_, place) => windowAt(place % side, Math.floor(place / side), side));
  const corners = [];
  window.forEach((part, place) => {
    if (part === 0) corners.push(picture.data.slice(4 * place, 4 * place + 3));
  });
  const sky = [0, 1, 2].map((band) => median(corners.map((pixel) => pixel[band])));
  // By the median of absolute deviations: a neighbour in a corner is no noise.
  const noise = sky.map((level, band) => 1.4826 * median(corners.map((pixel) => Math.abs(pixel[band] - level))));
  const light = new Float32Array(side * side * 3);
  window.forEach((part, place) => {
    for (let band = 0; band < 3; band += 1) light[3 * place + band] = part * (picture.data[4 * place + band] - sky[band]);
  });
  return { side, light, window, noise, sky };
}

/** What of a galaxy is laid down at a pixel: 1 about the middle, falling as a cosine to 0 at the rim. */
export function windowAt(x, y, side) {
  const radius = Math.hypot(x + 0.5 - side / 2, y + 0.5 - side / 2) / (side / 2);
  if (radius <= WHOLE) return 1;
  return radius >= 1 ? 0 : 0.5 + 0.5 * Math.cos((Math.PI * (radius - WHOLE)) / (1 - WHOLE));
}

/** Sky and noise of many stamps: the medians, for red, green and blue. */
export function backdropOf(stamps) {
  const over = (key) => [0, 1, 2].map((band) => median(stamps.map((stamp) => stamp[key][band])));
  return { sky: over("sky"), noise: over("noise") };
}

/**
 * Draw a square of the sky.
 *
 * A galaxy brings its own noise. Under it the sky's is made weaker, so that the variance is the same everywhere.
 *
 * @param {ImageData} target  @param {{x: number, y: number, stamp: object}[]} galaxies  middles in pixels of the target
 * @param {{sky: number[], noise: number[]}} backdrop  @param {number} seed  of the noise
 */
export function drawTile(target, galaxies, backdrop, seed) {
  const { width, height, data } = target;
  const light = new Float32Array(width * height * 3);
  const brought = new Float32Array(width * height); // noise of galaxies: variance, in parts of the sky's
  for (const { x, y, stamp } of galaxies) {
    const [left, top] = [Math.round(x - stamp.side / 2), Math.round(y - stamp.side / 2)];
    const part = (stamp.noise[1] / Math.max(backdrop.noise[1], 1e-6)) ** 2;
    for (let row = Math.max(0, -top); row < Math.min(stamp.side, height - top); row += 1) {
      for (let column = Math.max(0, -left); column < Math.min(stamp.side, width - left); column += 1) {
        const [from, to] = [row * stamp.side + column, (top + row) * width + left + column];
        for (let band = 0; band < 3; band += 1) light[3 * to + band] += stamp.light[3 * from + band];
        brought[to] += part * stamp.window[from] ** 2;
      }
    }
  }
  const random = normal(seed);
  for (let place = 0; place < width * height; place += 1) {
    const rest = Math.sqrt(Math.max(0, 1 - brought[place]));
    for (let band = 0; band < 3; band += 1) {
      const noise = rest * backdrop.noise[band] * random();
      data[4 * place + band] = Math.round(backdrop.sky[band] + light[3 * place + band] + noise); // clamped by the array
    }
    data[4 * place + 3] = 255;
  }
}

/** Standard normal numbers that repeat (Box & Muller 1958). */
export function normal(seed) {
  const random = uniform(mixed(seed));
  let kept = null;
  return () => {
    if (kept !== null) {
      const number = kept;
      kept = null;
      return number;
    }
    const [radius, angle] = [Math.sqrt(-2 * Math.log(1 - random())), 2 * Math.PI * random()];
    kept = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

function median(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
