// Pixels as they are: a FITS cube read, its planes stretched into a picture, its values and its light profile. Nothing
// here touches the page.
//
// cube = {side, planes: [Float32Array, ...], names: ["g", ...], unit: "nJy", noise: [10, ...], pixelScale: 0.2}
// The first row of a plane is the uppermost of the picture; noise and pixelScale (arcsec) are of flux, null of a display.

import { inPrint } from "./elements.js";

const BLOCK = 2880; // bytes, of FITS
const CARD = 80;
const ZERO_POINT = 31.4; // AB magnitude of 1 nJy
const REFERENCE_NM = 650; // as in composites.py: galaxies have more nJy the redder the light is

/** Read the first image of a FITS file (Pence et al. 2010): whole numbers of 8 bits or single precision, three axes. */
export function readCube(buffer) {
  const text = new TextDecoder("latin1").decode(buffer);
  const header = {};
  let place = 0;
  for (let card = ""; !card.startsWith("END "); place += CARD) {
    card = text.slice(place, place + CARD);
    if (card.length < CARD) throw new Error("the FITS header has no end");
    const found = /^([A-Z0-9_-]+) *= *('((?:[^']|'')*)'|[^/]*)/.exec(card);
    if (found) header[found[1]] = found[3] === undefined ? found[2].trim() : found[3].replaceAll("''", "'").trimEnd();
  }
  const [side, rows, count] = ["NAXIS1", "NAXIS2", "NAXIS3"].map((name) => Number(header[name]));
  const bytes = Math.abs(Number(header.BITPIX)) / 8;
  const data = new DataView(buffer, Math.ceil(place / BLOCK) * BLOCK);
  if (!["8", "-32"].includes(header.BITPIX) || side !== rows || data.byteLength < side * side * count * bytes) {
    throw new Error("the FITS file holds no cube of pictures");
  }
  const isFlux = header.BITPIX === "-32";
  const planes = Array.from({ length: count }, (_, k) =>
    Float32Array.from({ length: side * side }, (__, n) => {
      const [row, column] = [Math.floor(n / side), n % side];
      const at = (k * side + (side - 1 - row)) * side + column; // FITS counts rows from the bottom
      return isFlux ? data.getFloat32(4 * at) : data.getUint8(at);
    }),
  );
  const numbers = (name) => (isFlux ? planes.map((_, k) => Number(header[`${name}${k + 1}`])) : null);
  return {
    side, planes,
    names: (header.BANDS ?? header.PLANES).split(","),
    unit: isFlux ? "nJy" : "of 255",
    noise: numbers("NOISE"),
    pixelScale: isFlux ? Number(header.PIXSCALE) : null,
  };
}

/** The three planes of a colour composite, with what each is multiplied by so that a usual galaxy is white. */
export function compositeOf(cube, { composite, wavelengths }) {
  return composite.map((bands) => {
    const plane = new Float32Array(cube.side ** 2);
    for (const band of bands) {
      const weight = (wavelengths.length ? (wavelengths[band] / REFERENCE_NM) ** -1.5 : 1) / bands.length;
      cube.planes[band].forEach((value, n) => (plane[n] += weight * value));
    }
    return plane;
  });
}

const CURVES = {
  linear: (x) => x,
  "square root": Math.sqrt,
  asinh: (x) => Math.asinh(10 * x) / Math.asinh(10),
};
export const STRETCHES = Object.keys(CURVES);

/**
 * Make a picture of one plane, grey, or of three, whose colours do not depend on brightness (Lupton et al. 2004).
 *
 * @param planes one or three  @param {{stretch: string, black: number, white: number, isInverted: boolean}} view
 * @returns {Uint8ClampedArray} red, green, blue and opacity of each pixel
 */
export function stretched(planes, { stretch, black, white, isInverted }) {
  const pixels = new Uint8ClampedArray(4 * planes[0].length);
  const curve = CURVES[stretch];
  for (let n = 0; n < planes[0].length; n += 1) {
    const light = planes.map((plane) => (plane[n] - black) / (white - black));
    const mean = light.reduce((sum, value) => sum + value, 0) / light.length;
    const factor = mean > 0 ? curve(mean) / mean : 0;
    let colors = light.map((value) => Math.max(0, value * factor));
    // A straight line shows the values themselves; elsewhere what is brighter than white keeps its hue.
    const brightest = Math.max(...colors);
    if (stretch !== "linear" && brightest > 1) colors = colors.map((value) => value / brightest);
    for (let channel = 0; channel < 3; channel += 1) {
      const value = 255 * Math.min(1, colors[channel % colors.length]);
      pixels[4 * n + channel] = isInverted ? 255 - value : value;
    }
    pixels[4 * n + 3] = 255;
  }
  return pixels;
}

/** Black and white of a view: black a little below the sky, white at a part of the way to the brightest pixel. */
export function levels(cube, planes, part) {
  const top = planes.reduce((most, plane) => plane.reduce((one, value) => Math.max(one, value), most), -Infinity);
  if (!cube.noise) return { black: 0, white: Math.max(1, 255 * part) };
  const noise = cube.noise.reduce((sum, value) => sum + value, 0) / cube.noise.length;
  const low = 3 * noise;
  return { black: -noise, white: low * (Math.max(top, 2 * low) / low) ** part }; // in equal ratios: light spans decades
}

/** What the pixel in a column and a row holds, in words; rows and columns from 1 at the lower left, as in FITS viewers. */
export function pixelWords(cube, column, row) {
  const n = row * cube.side + column;
  const digits = cube.noise ? 1 : 0;
  const values = cube.names.map((name, k) => `${name} ${inPrint(cube.planes[k][n].toFixed(digits))}`);
  return `x ${column + 1}, y ${cube.side - row}: ${values.join(", ")} ${cube.unit}`;
}

/** The largest round length that is at most a third of the frame: {pixels, words}. */
export function scaleBar(cube) {
  const most = (cube.side * (cube.pixelScale ?? 1)) / 3;
  const step = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((digit) => digit * step).find((one) => one <= most);
  return { pixels: length / (cube.pixelScale ?? 1), words: cube.pixelScale ? `${length}″` : `${length} pixels` };
}

/**
 * Mean light in elliptical rings about a centre.
 *
 * @param plane  @param ellipse {x, y, semi_major, semi_minor, angle} in widths of the picture, degrees, see the server's
 * @returns list of {radius, value, error}: semi-major axis in pixels, mean of the pixels whose middles lie in the ring, its error
 */
export function profile(plane, side, { x, y, semi_major, semi_minor, angle }) {
  const [cosine, sine] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
  const ratio = semi_minor / semi_major;
  const most = side * Math.min(x, y, 1 - x, 1 - y);
  const rings = Array.from({ length: Math.max(0, Math.floor(most)) }, () => ({ radii: 0, sum: 0, squares: 0, count: 0 }));
  plane.forEach((value, n) => {
    const [dx, dy] = [(n % side) + 0.5 - side * x, Math.floor(n / side) + 0.5 - side * y];
    const radius = Math.hypot(dx * cosine + dy * sine, (dy * cosine - dx * sine) / ratio);
    const ring = rings[Math.floor(radius)];
    if (!ring) return;
    ring.radii += radius;
    ring.sum += value;
    ring.squares += value * value;
    ring.count += 1;
  });
  return rings.filter(({ count }) => count).map(({ radii, sum, squares, count }) => {
    const value = sum / count;
    return { radius: radii / count, value, error: Math.sqrt(Math.max(0, squares / count - value ** 2) / count) };
  });
}

/** Surface brightness, AB magnitudes a square arcsecond, of flux in nJy a pixel; null where there is no light. */
export const surfaceBrightness = (flux, pixelScale) =>
  flux > 0 ? ZERO_POINT - 2.5 * Math.log10(flux / pixelScale ** 2) : null;
