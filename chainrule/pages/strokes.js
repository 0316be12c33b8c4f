// From what a hand drew to the image that the network learnt on: as MNIST was made (LeCun, Cortes and Burges),
// the ink fits in 20 x 20 pixels and its centre of mass lies in the middle of 28 x 28.
//
// A stroke is a list of points [x, y]; the scale is free. The ink is drawn from the strokes at the final size, so
// that a small drawing gets lines as thick as a large one.
'use strict';

const PEN = 1.2; // half the width of a line, in pixels of an image 28 wide

// Return the image, height * width numbers from 0 (paper) to 1 (ink) in steps of 1/255, or null without ink.
function imageOf(strokes, height = 28, width = 28) {
  const points = strokes.flat();
  if (!points.length) return null;
  const pixel = Math.min(height, width) / 28;
  const [left, top] = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
  const [right, bottom] = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
  const size = Math.max(right - left, bottom - top);
  const scale = size ? ((20 - 2 * PEN) * pixel) / size : 0;
  const placed = (shiftX, shiftY) =>
    strokes.map((stroke) =>
      stroke.map(([x, y]) => [
        (x - (left + right) / 2) * scale + width / 2 + shiftX,
        (y - (top + bottom) / 2) * scale + height / 2 + shiftY,
      ]),
    );
  const first = ink(placed(0, 0), height, width, PEN * pixel);
  const [x, y] = centreOfMass(first, height, width);
  return ink(placed(width / 2 - x, height / 2 - y), height, width, PEN * pixel);
}

// A pixel is as dark as its middle is near to a line: 1 within the line, 0 from one pixel beyond its edge.
function ink(strokes, height, width, radius) {
  const image = new Float64Array(height * width);
  for (const stroke of strokes) {
    for (let k = 0; k < Math.max(stroke.length - 1, 1); k++) {
      const from = stroke[k], to = stroke[k + 1] ?? from;
      const reach = radius + 1;
      const [firstRow, lastRow] = [Math.min(from[1], to[1]) - reach, Math.max(from[1], to[1]) + reach];
      const [firstColumn, lastColumn] = [Math.min(from[0], to[0]) - reach, Math.max(from[0], to[0]) + reach];
      for (let row = Math.max(0, Math.floor(firstRow)); row < Math.min(height, lastRow); row++) {
        for (let column = Math.max(0, Math.floor(firstColumn)); column < Math.min(width, lastColumn); column++) {
          const near = distance(column + 0.5, row + 0.5, from, to);
          const dark = Math.min(Math.max(radius + 0.5 - near, 0), 1);
          const at = row * width + column;
          image[at] = Math.max(image[at], Math.round(dark * 255) / 255);
        }
      }
    }
  }
  return image;
}

// How far (x, y) is from the line between two points.
function distance(x, y, [x1, y1], [x2, y2]) {
  const length = (x2 - x1) ** 2 + (y2 - y1) ** 2;
  const along = length && Math.min(Math.max(((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length, 0), 1);
  return Math.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1));
}

function centreOfMass(image, height, width) {
  let mass = 0, x = 0, y = 0;
  image.forEach((dark, at) => {
    mass += dark;
    x += dark * ((at % width) + 0.5);
    y += dark * (Math.floor(at / width) + 0.5);
  });
  return mass ? [x / mass, y / mass] : [width / 2, height / 2];
}

// Digits that the page can draw itself, as strokes in a field of 100 x 100.
const arc = (x, y, radiusX, radiusY, from, to) =>
  Array.from({ length: 25 }, (_, k) => {
    const angle = ((from + ((to - from) * k) / 24) * Math.PI) / 180;
    return [x + radiusX * Math.cos(angle), y + radiusY * Math.sin(angle)];
  });

const EXAMPLES = [
  [arc(50, 50, 26, 38, -90, 270)],
  [[[54, 10], [48, 90]]],
  [[...arc(50, 33, 23, 22, -160, 40), [28, 86], [78, 86]]],
  [[...arc(46, 30, 22, 20, -150, 90), ...arc(46, 70, 26, 21, -90, 140)]],
  [[[40, 12], [24, 56], [76, 56]], [[64, 20], [60, 92]]],
  [[[72, 12], [36, 12], [32, 46], ...arc(46, 66, 26, 23, -110, 130)]],
  [[...arc(78, 62, 50, 52, -105, -180), ...arc(50, 66, 22, 22, 180, -190)]],
  [[[24, 16], [76, 16], [44, 90]]],
  [[...arc(50, 30, 20, 19, 60, -270), ...arc(50, 70, 24, 21, -90, 270)]],
  [[...arc(50, 32, 22, 21, 0, -350), [72, 34], [64, 90]]],
];
