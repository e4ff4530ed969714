// Which galaxies lie where on a sky without end. It is cut into square tiles, and what is in one depends on the sky's
// number and the tile's place alone: whoever has the same link sees the same sky, wherever they began.

import { uniform } from "./sky.js";

export const TILE = 512; // pixels of the sky a side
const DENSITY = 22; // galaxies a tile
const SMALLEST = 0.36; // of the size at which a galaxy was drawn
const LARGEST = 1.8;
// How often each class is met, by taste: in turn, so that each is met soon. Other classes as often as mergers.
const SHARES = { spiral: 5, elliptical: 4, "edge-on": 2 };
const SEEDS = 1_000_000_000; // of which each tile and class takes a run

/** Galaxies of a tile: place in pixels of the sky, magnification, class and seed. */
export function galaxiesOf(sky, column, row, classes) {
  const random = uniform(mixed(sky, column, row));
  for (let skipped = 0; skipped < 8; skipped += 1) random(); // the first ones hardly differ from tile to tile
  const first = Math.floor(random() * SEEDS);
  const counts = new Map(classes.map((name) => [name, 0]));
  const shares = classes.map((name) => SHARES[name] ?? 1);
  const whole = shares.reduce((sum, share) => sum + share, 0);
  return Array.from({ length: poisson(random, DENSITY) }, () => {
    const [x, y] = [(column + random()) * TILE, (row + random()) * TILE];
    // In a space filled evenly the number that look larger than s goes as s^-3 (Euclid).
    const scale = Math.min(LARGEST, SMALLEST * (1 - random()) ** (-1 / 3));
    let rest = random() * whole;
    const place = shares.findIndex((share) => (rest -= share) < 0);
    const morphology = classes[place < 0 ? 0 : place];
    const seed = first + counts.get(morphology);
    counts.set(morphology, counts.get(morphology) + 1);
    return { x, y, scale, morphology, seed };
  });
}

/** Columns and rows of the tiles that a rectangle of the sky touches, the nearest to its middle first. */
export function tilesIn({ left, top, right, bottom }) {
  const found = [];
  for (let row = Math.floor(top / TILE); row * TILE < bottom; row += 1) {
    for (let column = Math.floor(left / TILE); column * TILE < right; column += 1) found.push([column, row]);
  }
  const away = ([column, row]) => Math.hypot((column + 0.5) * TILE - (left + right) / 2, (row + 0.5) * TILE - (top + bottom) / 2);
  return found.sort((a, b) => away(a) - away(b));
}

/** A number for uniform(), never 0, in which every bit of three whole numbers matters (the mixing of MurmurHash3). */
export function mixed(...numbers) {
  let state = 0x9e3779b9;
  for (const number of numbers) {
    state ^= number;
    state = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    state = Math.imul(state ^ (state >>> 13), 0xc2b2ae35);
    state ^= state >>> 16;
  }
  return state | 0 || 1;
}

/** A number of the Poisson distribution (Knuth's product of uniform ones). */
function poisson(random, mean) {
  const limit = Math.exp(-mean);
  let count = 0;
  for (let product = random(); product > limit; product *= random()) count += 1;
  return count;
}
