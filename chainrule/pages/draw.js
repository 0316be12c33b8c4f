// Draw, and see the network read it: strokes -> image -> forward -> probabilities -> backward to the pixels.
'use strict';

const PAD = 280; // the field that one draws in, in pixels of the page
const LAYER_LIST = DATA.layers.map((layer) => ({ ...layer, parameters: unpackAll(layer.parameters) }));
const [HEIGHT, WIDTH] = DATA.input_shape.slice(-2);

const drawn = {
  strokes: [],
  pen: [PAD / 2, PAD / 2], // where the keys have moved it
  penDown: false, // held down by the Space key
  chosen: null, // the class that is asked about; null: the answer
  byInk: false,
};

// ---- The network ------------------------------------------------------------------------------------------

// What the network makes of an image: its steps, the probabilities, and backward from log p of `chosen`.
function read(image, chosen = null) {
  const pixels = image.map((value) => (value - DATA.mean) / DATA.std);
  const steps = forward(LAYER_LIST, tensor([1, ...DATA.input_shape], pixels));
  const scores = steps.at(-1).y.data;
  const isProbability = LAYER_LIST.at(-1).kind === 'Softmax';
  const probabilities = isProbability ? scores : softmax(scores);
  const answer = probabilities.indexOf(Math.max(...probabilities));
  const k = chosen ?? answer;
  const gradScores = isProbability
    ? probabilities.map((p, j) => (j === k ? 1 / p : 0))
    : gradOfLogProbability(probabilities, k);
  const gradX = backward(steps, tensor(steps.at(-1).y.shape, gradScores), false);
  return { steps, probabilities, answer, k, gradient: gradX.data.map((g) => g / DATA.std) };
}

// ---- What is shown ------------------------------------------------------------------------------------------

const percent = (p) => (p > 0.9995 && p < 1 ? '> 99.9 %' : `${(100 * p).toFixed(1)} %`);
const range = (values) => `${shown(Math.min(...values), 3)} to ${shown(Math.max(...values), 3)}`;
const room = Math.min(document.documentElement.clientWidth - 40, 560);

const imagePicture = new Picture({
  label: 'The image that the network sees',
  shape: [HEIGHT, WIDTH],
  cell: 10,
  room: Math.min(room, 280),
  grey: true,
  say: (at) => `${imagePicture.layout.name(at)}: ${Math.round(imagePicture.values[at] * 255)} of 255`,
});
const evidencePicture = new Picture({
  label: 'What each pixel says for the class',
  shape: [HEIGHT, WIDTH],
  cell: 10,
  room: Math.min(room, 280),
  say: (at) => `${evidencePicture.layout.name(at)}: ${signed(evidencePicture.values[at], 3)}`,
});

// A pair of pictures for each layer but those that pass on what they get.
const layerRows = LAYER_LIST.map((layer, index) => {
  const box = element('div', { class: 'layer' }, element('h3', { text: layer.name }));
  byId('layers').append(box);
  const words = element('p', { class: 'quiet', text: inWords(layer) });
  box.append(words);
  if (['Flatten', 'Dropout', 'Identity'].includes(layer.kind)) return null;
  return { box, layer, index, words };
});

function inWords(layer) {
  const sizes = Object.entries(layer.parameters).map(([name, { shape }]) => `${name} ${shape.join('×')}`);
  const passes = { Dropout: ': off, as always when it reads', Flatten: ': the same numbers in one row', Identity: '' };
  return `${layer.kind}${passes[layer.kind] ?? ''}${sizes.length ? `, ${sizes.join(', ')}` : ''}`;
}

function showLayers(reading) {
  for (const row of layerRows.filter(Boolean)) {
    const step = reading.steps[row.index];
    const shape = step.y.shape.slice(1);
    if (!row.pictures) {
      const half = Math.min(room, 540);
      const make = (what) => new Picture({
        label: `${row.layer.name}: ${what}`,
        shape,
        cell: shape.length === 1 ? 20 : 5,
        room: half,
        say: (at) => `${row.pictures[0].layout.name(at)}: gives ${signed(row.pictures[0].values[at])}, ` +
          `d log p / d this = ${signed(row.pictures[1].values[at])}`,
      });
      row.pictures = [make('what it gives'), make('what that does for the class')];
      row.box.append(element('div', { class: 'pair' }, ...row.pictures.map((picture) => picture.figure)));
    }
    const [value, gradient] = row.pictures;
    const active = step.y.data.reduce((n, y) => n + (y > 0), 0);
    value.show(step.y.data, `Gives ${shape.join('×')}: ${active} of ${step.y.data.length} above zero, from ` +
      range(step.y.data));
    gradient.show(step.gradY.data, `d log p(${DATA.class_names[reading.k]}) / d each, from ` +
      range(step.gradY.data));
  }
}

const rows = DATA.class_names.map((name, k) => {
  const button = element('button', { type: 'button', text: name, 'aria-pressed': 'false',
    onclick: () => { drawn.chosen = drawn.chosen === k ? null : k; update(); } });
  const number = element('td', { class: 'number', text: '–' });
  const bar = element('div');
  const row = element('tr', {}, element('th', { scope: 'row' }, button), number,
    element('td', { class: 'share' }, bar));
  byId('probabilities').tBodies[0].append(row);
  return { button, number, bar };
});

function showProbabilities(reading) {
  rows.forEach(({ button, number, bar }, k) => {
    const p = reading?.probabilities[k];
    number.textContent = reading ? percent(p) : '–';
    bar.style.width = reading ? `${100 * p}%` : '0';
    button.setAttribute('aria-pressed', String(Boolean(reading) && k === reading.k));
  });
  const answer = reading && `${DATA.class_names[reading.answer]}  (${percent(reading.probabilities[reading.answer])})`;
  byId('answer').textContent = answer ?? '–';
}

function showEvidence(reading, image) {
  const name = DATA.class_names[reading.k];
  byId('evidence-title').textContent = `Which pixels speak for ${name}`;
  const values = drawn.byInk ? reading.gradient.map((g, at) => g * image[at]) : reading.gradient;
  evidencePicture.show(values, drawn.byInk
    ? `gradient × ink: what the ink drawn here does for log p(${name}), to first order`
    : `d log p(${name}) / d pixel: would more ink here raise it (+) or lower it (−)?`);
}

// ---- Drawing ------------------------------------------------------------------------------------------------

const pad = byId('pad'), brush = pad.getContext('2d');
let current = null, waiting = false, announcement = 0;

function paintPad() {
  brush.setTransform(2, 0, 0, 2, 0, 0);
  brush.clearRect(0, 0, PAD, PAD);
  Object.assign(brush, { lineWidth: 16, lineCap: 'round', lineJoin: 'round', strokeStyle: '#222' });
  for (const stroke of drawn.strokes) {
    brush.beginPath();
    brush.moveTo(...stroke[0]);
    for (const point of [...stroke.slice(1), stroke.at(-1)]) brush.lineTo(...point);
    brush.stroke();
  }
  if (document.activeElement === pad && pad.matches(':focus-visible')) {
    const [x, y] = drawn.pen; // a cross, full while the pen is down
    Object.assign(brush, { lineWidth: drawn.penDown ? 4 : 2, strokeStyle: '#005fcc' });
    brush.beginPath();
    for (const [dx, dy] of [[9, 0], [0, 9]]) {
      brush.moveTo(x - dx, y - dy);
      brush.lineTo(x + dx, y + dy);
    }
    brush.stroke();
  }
}

function update() {
  waiting = false;
  paintPad();
  const image = imageOf(drawn.strokes, HEIGHT, WIDTH);
  byId('undo').disabled = byId('clear').disabled = !image;
  if (!image) {
    showProbabilities(null);
    imagePicture.show(new Float64Array(HEIGHT * WIDTH), 'Nothing is drawn yet.', 1);
    evidencePicture.show(new Float64Array(HEIGHT * WIDTH), 'Nothing is drawn yet.', 1);
    return;
  }
  const reading = read(image, drawn.chosen);
  drawn.image = image;
  drawn.reading = reading;
  imagePicture.show(image, `${HEIGHT} × ${WIDTH}: the ink fits in a box of 20 by 20, its centre of mass in the ` +
    'middle, as MNIST was made', 1);
  showProbabilities(reading);
  showEvidence(reading, image);
  showLayers(reading);
  clearTimeout(announcement);
  announcement = setTimeout(() => announce(reading), 400);
}

function announce({ probabilities }) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const [first, second] = order.map((k) => `${DATA.class_names[k]} ${percent(probabilities[k])}`);
  byId('said').textContent = `Read as ${first}, then ${second}`;
}

// One update for each frame, however many points come in.
function later() {
  if (!waiting) requestAnimationFrame(update);
  waiting = true;
}

function place(event) {
  const box = pad.getBoundingClientRect();
  const scale = PAD / pad.clientWidth;
  return [(event.clientX - box.left - pad.clientLeft) * scale, (event.clientY - box.top - pad.clientTop) * scale];
}

function clear() {
  Object.assign(drawn, { strokes: [], penDown: false, chosen: null });
  current = null;
  later();
}

function undo() {
  drawn.strokes.pop();
  drawn.penDown = false;
  current = null;
  later();
}

pad.addEventListener('pointerdown', (event) => {
  if (event.button) return;
  pad.setPointerCapture(event.pointerId);
  drawn.strokes.push((current = [place(event)]));
  drawn.penDown = false;
  later();
});
pad.addEventListener('pointermove', (event) => {
  if (!current || drawn.penDown) return;
  const points = event.getCoalescedEvents?.() ?? [];
  current.push(...(points.length ? points : [event]).map(place));
  later();
});
for (const end of ['pointerup', 'pointercancel']) pad.addEventListener(end, () => { current = null; });

pad.addEventListener('keydown', (event) => {
  const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
  if (step) {
    const far = event.shiftKey ? 40 : 10;
    drawn.pen = drawn.pen.map((at, axis) => Math.min(Math.max(at + step[axis] * far, 10), PAD - 10));
    if (drawn.penDown) current.push([...drawn.pen]);
  } else if (event.key === ' ') {
    drawn.penDown = !drawn.penDown;
    current = drawn.penDown ? [[...drawn.pen]] : null;
    if (current) drawn.strokes.push(current);
    byId('said').textContent = drawn.penDown ? 'pen down' : 'pen up';
  } else if (event.key === 'Backspace') undo();
  else if (event.key === 'Delete') clear();
  else return;
  event.preventDefault();
  later();
});
for (const change of ['focus', 'blur']) pad.addEventListener(change, paintPad);

byId('undo').addEventListener('click', undo);
byId('clear').addEventListener('click', clear);
for (const [id, byInk] of [['by-gradient', false], ['by-ink', true]]) {
  byId(id).addEventListener('click', () => {
    drawn.byInk = byInk;
    byId('by-ink').setAttribute('aria-pressed', String(byInk));
    byId('by-gradient').setAttribute('aria-pressed', String(!byInk));
    later();
  });
}

// Digits are what the page knows how to draw.
if (DATA.class_names.every((name, k) => name === String(k)) && DATA.class_names.length === EXAMPLES.length) {
  byId('examples-row').hidden = false;
  EXAMPLES.forEach((_, digit) => byId('examples').append(element('option', { value: digit, text: `a ${digit}` })));
  byId('examples').addEventListener('change', (event) => {
    if (event.target.value === '') return;
    const strokes = EXAMPLES[event.target.value].map((stroke) => stroke.map((point) => point.map((at) => at * PAD / 100)));
    Object.assign(drawn, { strokes, chosen: null, penDown: false });
    event.target.value = '';
    later();
  });
}

byId('network').textContent = `${DATA.run}: ${DATA.summary}, trained on ${DATA.dataset}. All of it (${DATA.weights}) is in ` +
  'this page, which needs no network connection.';
byId('image').append(imagePicture.figure);
byId('evidence').append(evidencePicture.figure);
update();
