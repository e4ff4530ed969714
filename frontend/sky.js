// Stars behind the page. Their numbers follow Euclid: in a space filled evenly, N(brighter than S) goes as S^-1.5.

const TINTS = ["160, 190, 255", "205, 220, 255", "255, 244, 232", "255, 214, 170", "255, 184, 140"];
const DENSITY = 1 / 2600; // stars a square CSS pixel

/** Draw a sky that is the same at every visit. */
export function drawSky(canvas) {
  const [width, height] = [innerWidth, innerHeight];
  const scale = Math.min(2, devicePixelRatio);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const random = uniform(20);
  for (let star = Math.round(width * height * DENSITY); star > 0; star -= 1) {
    const brightness = Math.min(30, (1 - random()) ** (-1 / 1.5));
    const [x, y] = [random() * width, random() * height];
    const tint = TINTS[Math.floor(random() * TINTS.length)];
    const radius = 0.45 + 0.16 * Math.sqrt(brightness);
    context.fillStyle = `rgba(${tint}, ${Math.min(0.9, 0.16 + 0.07 * brightness)})`;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }
}

/** Random numbers in [0, 1) that repeat (Marsaglia 2003, xorshift). */
export function uniform(seed) {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}
