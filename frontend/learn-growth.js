// How a galaxy's light grows with the distance from its middle, in numbers: what the eye sees of its size.

export const DISTANCES = [0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3]; // widths of the picture
const RIM = 0.04; // of the picture's width along its border, whose median is the sky

/**
 * Percent of a galaxy's light within each distance of its middle.
 *
 * The light is summed on the picture. It is taken to be half of the whole at the measured half-light radius, as it is by
 * photometry, which looks at fainter light than a picture shows.
 *
 * @param {{width: number, data: ArrayLike<number>}} image  n x n pixels of red, green, blue and opacity
 * @param {{x: number, y: number}} middle  in widths of the picture  @param {number} radius  of half of the light, the same
 * @returns {number[]} never falling, at most 100
 */
export function growthOf({ width, data }, middle, radius, distances = DISTANCES) {
  const grey = Float64Array.from({ length: width * width }, (_, place) => data[4 * place] + data[4 * place + 1] + data[4 * place + 2]);
  const rim = Math.ceil(RIM * width);
  const isRim = (place) => Math.min(place % width, Math.floor(place / width)) < rim || Math.max(place % width, Math.floor(place / width)) >= width - rim;
  const border = grey.filter((_, place) => isRim(place)).sort();
  const sky = border[border.length >> 1];
  const within = (limit) => {
    let sum = 0;
    for (let place = 0; place < grey.length; place += 1) {
      const away = Math.hypot((place % width) + 0.5 - middle.x * width, Math.floor(place / width) + 0.5 - middle.y * width);
      sum += (grey[place] - sky) * Math.min(1, Math.max(0, limit * width - away + 0.5)); // a pixel on the circle in part
    }
    return sum;
  };
  const half = within(radius);
  if (!(half > 0)) return distances.map((distance) => (distance < radius ? 0 : 100));
  let most = 0;
  return distances.map((distance) => {
    // On either side of the half-light radius it stays on that side of a half.
    const [low, high] = distance < radius ? [0, 50] : [50, 100];
    most = Math.max(most, Math.min(high, Math.max(low, (50 * within(distance)) / half)));
    return most;
  });
}

/** The pixels of a picture at an address. */
export async function pixelsOf(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const context = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.naturalWidth, image.naturalWidth);
}
