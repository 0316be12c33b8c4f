// Arrays as pictures: one cell for each number, the darker the larger. Plus is orange; minus is blue and hatched,
// so that the sign is seen without colour as well. Focus a picture and walk through it with the arrow keys.
'use strict';

const PLUS = [179, 88, 6], MINUS = [33, 102, 172];

// An element of the page, its attributes, and what is in it; text stays text.
function element(tag, attributes = {}, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'text') made.textContent = value;
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...content);
  return made;
}

// What may be wider than a phone scrolls by itself, by keyboard too.
const scrollable = (label, ...content) =>
  element('div', { class: 'wide', tabindex: 0, role: 'group', 'aria-label': label }, ...content);

const byId = (id) => document.getElementById(id);

// A number as the terminal shows it: `digits` significant ones, a true minus.
function shown(value, digits = 4) {
  const size = Math.abs(value);
  const rounded = size && (size < 1e-4 || size >= 1e9) ? value.toExponential(digits - 1) : value.toPrecision(digits);
  const text = rounded.includes('e') ? rounded.replace(/\.?0*e\+?/, 'e') : String(Number(rounded));
  return text.replaceAll('-', '−');
}
const signed = (value, digits) => (value > 0 ? '+' : '') + shown(value, digits);

// How the numbers of one example lie in the picture: (C, H, W) as C maps side by side with a cell between them,
// (H, W) as it is, (F,) row by row. `across` is how many cells the page has room for.
function arrange(shape, across) {
  const [height, width] = shape.length === 1 ? lines(shape[0]) : shape.slice(-2);
  const maps = shape.length === 1 ? 1 : count(shape.slice(0, -2));
  const besides = Math.max(1, Math.min(Math.ceil(Math.sqrt(maps * 2)), Math.floor((across + 1) / (width + 1))));
  const total = count(shape);
  const above = Math.ceil(maps / besides);
  return {
    columns: Math.min(maps, besides) * (width + 1) - 1,
    rows: above * (height + 1) - 1,
    place(index) {
      const map = Math.floor(index / (height * width)), within = index % (height * width);
      const row = Math.floor(map / besides) * (height + 1) + Math.floor(within / width);
      return [row, (map % besides) * (width + 1) + (within % width)];
    },
    // The number at a cell, or -1 between the maps and beyond the last.
    index(row, column) {
      const inRow = row % (height + 1), inColumn = column % (width + 1);
      const map = Math.floor(row / (height + 1)) * besides + Math.floor(column / (width + 1));
      const found = (map * height + inRow) * width + inColumn;
      return row < 0 || column < 0 || inRow === height || inColumn === width || found >= total ? -1 : found;
    },
    // Where a number lies, in words.
    name(index) {
      if (shape.length === 1) return `unit ${index}`;
      const within = index % (height * width);
      const spot = `row ${Math.floor(within / width)}, column ${within % width}`;
      return maps > 1 ? `map ${Math.floor(index / (height * width))}, ${spot}` : spot;
    },
  };
}

// A vector has rows of 16 where that fits, else of as many as make it about twice as wide as high.
function lines(size) {
  const width = size <= 16 ? size : size % 16 === 0 && size <= 256 ? 16 : Math.ceil(Math.sqrt(2 * size));
  return [Math.ceil(size / width), width];
}

// A picture of an array: its canvas with a caption below. `say(index)` gives the words for one number, `choose`
// is called with an index on a click or Enter.
class Picture {
  constructor({ label, shape, cell = 12, room = 560, say, choose, grey = false }) {
    this.shape = shape;
    this.grey = grey;
    this.say = say;
    this.choose = choose;
    const across = Math.max(1, Math.floor(room / (room < 400 ? 2 : 3)));
    this.layout = arrange(shape, across);
    this.cell = Math.max(2, Math.min(cell, Math.floor(room / this.layout.columns)));
    this.cursor = -1;
    this.canvas = element('canvas', {
      width: this.layout.columns * this.cell,
      height: this.layout.rows * this.cell,
      tabindex: 0,
      role: 'application',
      'aria-roledescription': 'picture of numbers, arrow keys walk through it',
      'aria-label': label,
    });
    this.caption = element('figcaption', { 'aria-live': 'polite' });
    this.figure = element('figure', {}, element('div', { class: 'wide' }, this.canvas), this.caption);
    this.canvas.addEventListener('pointermove', (event) => this.point(this.under(event)));
    this.canvas.addEventListener('pointerdown', (event) => this.pick(this.under(event)));
    this.canvas.addEventListener('pointerleave', () => this.point(-1));
    this.canvas.addEventListener('blur', () => this.point(-1));
    this.canvas.addEventListener('keydown', (event) => this.key(event));
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.layout.rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.layout.columns);
    return this.layout.index(row, column);
  }

  key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === 'Enter' && this.cursor >= 0) this.pick(this.cursor);
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    if (this.cursor < 0) return this.point(0);
    let [row, column] = this.layout.place(this.cursor);
    do {
      row += step[0];
      column += step[1];
      const index = this.layout.index(row, column);
      if (index >= 0) return this.point(index);
    } while (row >= 0 && column >= 0 && row < this.layout.rows && column < this.layout.columns);
  }

  point(index) {
    if (index === this.cursor) return;
    this.cursor = index;
    this.paint();
    this.describe();
  }

  pick(index) {
    if (index >= 0 && this.choose) this.choose(index);
  }

  // Show these numbers; all of a kind share one scale where `largest` is given.
  show(values, words = '', largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)) { // values: null, not known
    Object.assign(this, { values, words, largest });
    this.paint();
    this.describe();
  }

  describe() {
    const text = this.cursor >= 0 && this.values ? this.say(this.cursor) : this.words;
    if (this.caption.textContent !== text) this.caption.textContent = text ?? '';
  }

  paint() {
    const context = this.canvas.getContext('2d');
    const { width, height } = this.canvas;
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer).fill(rgb([233, 233, 233]));
    this.values?.forEach((value, index) => this.fill(pixels, index, value));
    context.putImageData(image, 0, 0);
    if (this.cursor >= 0) {
      const [row, column] = this.layout.place(this.cursor);
      context.lineWidth = 2;
      context.strokeStyle = 'black';
      context.strokeRect(column * this.cell - 1, row * this.cell - 1, this.cell + 2, this.cell + 2);
    }
  }

  fill(pixels, index, value) {
    const strength = this.largest ? Math.min(Math.abs(value) / this.largest, 1) : 0;
    const full = this.grey ? [0, 0, 0] : value < 0 ? MINUS : PLUS;
    const colour = rgb(full.map((channel) => 255 + (channel - 255) * strength));
    const hatched = value < 0 && !this.grey;
    const [row, column] = this.layout.place(index);
    const width = this.canvas.width, left = column * this.cell;
    for (let y = row * this.cell; y < (row + 1) * this.cell; y++) {
      pixels.fill(colour, y * width + left, y * width + left + this.cell);
      for (let x = left + ((4 - ((left + y) % 4)) % 4); hatched && x < left + this.cell; x += 4) {
        pixels[y * width + x] = WHITE;
      }
    }
  }
}

const rgb = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // opaque, little-endian
const WHITE = rgb([255, 255, 255]);
