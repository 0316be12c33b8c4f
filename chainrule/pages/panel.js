// Numbers in words: what a frame computes, and how one number comes about.
'use strict';

const MOST_TERMS = 12;
const bracketed = (value) => (value < 0 ? `(${shown(value)})` : shown(value));

// One number taken apart, with its table of products. `open`: without results, for "guess the number".
function storyElement(net, which, checks = [], open = false) {
  const told = story(net, which);
  const back = which.of !== 'y';
  const box = element('div', { class: 'story' });
  const heading = element('h3', {}, `${told.name} = `, element('span', { class: 'number result', text: open ? '?' : shown(told.total, 6) }));
  if (!open) heading.lastChild.dataset.value = told.total;
  box.append(heading, element('p', { class: 'formula', text: told.formula }));
  if (told.given) box.append(element('p', { text: told.given }));
  if (told.terms.length) box.append(termsTable(told, back, open));
  else if (back && !told.given && !open) {
    box.append(element('p', { text: 'Nothing comes back to this number, so its gradient is 0.' }));
  }
  if (checks.length) box.append(checksTable(checks));
  return box;
}

function termsTable(told, back, open) {
  const sorted = told.terms.length > MOST_TERMS
    ? [...told.terms].sort((one, other) => Math.abs(other.a * other.b) - Math.abs(one.a * one.b)) : told.terms;
  const listed = sorted.slice(0, MOST_TERMS), rest = sorted.slice(MOST_TERMS);
  const head = back ? ['upstream', '×', 'local', '=', 'product'] : ['input', '×', 'weight', '=', 'product'];
  const body = element('tbody');
  const line = (left, a, right, b, product) => body.append(element('tr', {},
    element('td', { class: 'text' }, left, ' ', element('b', { text: a })), element('td', { text: '×' }),
    element('td', { class: 'text' }, right, ' ', element('b', { text: b })), element('td', { text: '=' }),
    element('td', { text: product })));
  for (const { left, a, right, b } of listed) {
    line(left, shown(a, 5), right === String(b) ? '' : right, shown(b, 5), open ? '?' : signed(a * b, 5));
  }
  const sumRow = (words, value) => body.append(element('tr', {},
    element('th', { class: 'text', colspan: 4, scope: 'row', text: words }), element('td', { text: open ? '?' : signed(value, 5) })));
  if (rest.length) sumRow(`and ${rest.length} smaller ones`, rest.reduce((sum, { a, b }) => sum + a * b, 0));
  if (told.plusName) sumRow(told.plusName, told.plus);
  if (told.terms.length > 1 || told.plusName) sumRow(told.over ? `sum over the ${told.over}` : 'sum', told.total);
  const cells = head.map((text) => element('th', { scope: 'col', class: text.length > 1 && text !== 'product' ? 'text' : '', text }));
  return scrollable(`The terms of ${told.name}`, element('table', {}, element('thead', {}, element('tr', {}, ...cells)), body));
}

// Rows of [what, number or text]: the same derivative found in other ways.
function checksTable(rows) {
  const body = rows.map(([what, value]) => {
    const cell = element('td', { text: typeof value === 'number' ? shown(value, 8) : value, class: typeof value === 'number' ? '' : 'text' });
    if (typeof value === 'number') cell.dataset.value = value;
    return element('tr', {}, element('th', { scope: 'row', class: 'text', text: what }), cell);
  });
  return element('table', { class: 'checks' },
    element('caption', { class: 'text', text: 'The same derivative, found in other ways' }), element('tbody', {}, ...body));
}

// "fc1[0] = 0.8 · 0.19 + (−0.5) · (−0.33) + 0.15 = 0.467"
function equation(net, which) {
  const told = story(net, which);
  const products = told.terms.map(({ a, b }) => `${bracketed(a)} · ${bracketed(b)}`);
  if (told.plusName) products.push(bracketed(told.plus));
  const middle = !products.length ? (told.given ?? told.formula) : products.length <= 5 ? products.join(' + ')
    : `sum of ${told.terms.length} products`;
  const line = element('li', {}, `${told.name} = ${middle} = `, element('b', { class: 'number', text: shown(told.total, 5) }));
  line.lastChild.dataset.value = told.total;
  return line;
}

// The equations of many numbers: all of them where they are few, else the largest. `values` are the numbers, of
// which the k-th is `which(k)`.
function equations(net, values, which) {
  let order = [...values.keys()];
  if (order.length > MOST_TERMS) order = largestOf(values, MOST_TERMS);
  const list = element('ul', { class: 'equations' }, ...order.map((k) => equation(net, which(k))));
  if (values.length <= MOST_TERMS) return list;
  return element('div', {}, element('p', { text: `The largest ${MOST_TERMS} of ${values.length}; the pictures below have them all:` }), list);
}

function largestOf(values, many) {
  const found = [];
  values.forEach((value, k) => {
    if (found.length === many && Math.abs(value) <= Math.abs(values[found.at(-1)])) return;
    const at = found.findIndex((other) => Math.abs(values[other]) < Math.abs(value));
    found.splice(at < 0 ? found.length : at, 0, k);
    found.length = Math.min(found.length, many);
  });
  return found;
}

// A matrix with its name and shape: its numbers where they fit, else its picture.
function matrix(name, rows, columns, value) {
  const title = `${name}  (${rows}, ${columns})`;
  if (rows > 140 || columns > 140) return element('p', { class: 'large', text: `${title}: its picture is below` });
  if (rows > SMALL || columns > SMALL) {
    const picture = new Picture({ label: title, shape: [rows, columns], cell: 8, room: 300, say: (at) =>
      `[${Math.floor(at / columns)},${at % columns}] = ${shown(picture.values[at])}` });
    picture.show(Float64Array.from({ length: rows * columns }, (_, at) => value(Math.floor(at / columns), at % columns)), title);
    return picture.figure;
  }
  const lines = Array.from({ length: rows }, (_, r) => element('tr', {}, ...Array.from({ length: columns }, (_, c) => {
    const cell = element('td', { text: shown(value(r, c)) });
    cell.dataset.value = value(r, c);
    return cell;
  })));
  return element('table', { class: 'matrix' }, element('caption', { text: title }), element('tbody', {}, ...lines));
}

const sign = (text) => element('span', { class: 'sign', text });

function matrices(net, { phase, l, part }) {
  const step = phase === 'score' ? net.steps.at(-1) : net.steps[l];
  const N = step.y.shape[0], F = ofOne(step.y), I = ofOne(step.x);
  const y = matrix(`y = ${step.layer.name}`, N, F, (n, f) => step.y.data[n * F + f]);
  const x = () => matrix('x', N, I, (n, i) => step.x.data[n * I + i]);
  if (phase === 'score') return [matrix(`dL/d ${step.layer.name}`, N, F, (n, f) => net.loss.gradient.data[n * F + f])];
  const { weight, bias } = step.layer.parameters;
  const isLinear = step.layer.kind === 'Linear' && step.x.shape.length === 2;
  if (phase === 'forward') {
    if (!isLinear) return [x(), sign('→'), y];
    const plus = bias ? [sign('+'), matrix('b', 1, F, (_, o) => bias.data[o])] : [];
    return [x(), sign('·'), matrix('Wᵀ', I, F, (i, o) => weight.data[o * I + i]), ...plus, sign('='), y];
  }
  const g = matrix('g = dL/dy', N, F, (n, f) => step.gradY.data[n * F + f]);
  if (part === 'input') {
    const grad = matrix('dL/dx', N, I, (n, i) => step.gradX.data[n * I + i]);
    if (isLinear) return [g, sign('·'), matrix('W', F, I, (o, i) => weight.data[o * I + i]), sign('='), grad];
    const slope = I === F && slopeAt(step, 0) !== null && !['Softmax', 'LogSoftmax', 'MaxPool2d', 'AvgPool2d'].includes(step.layer.kind);
    return slope ? [g, sign('∗'), matrix('dy/dx', N, I, (n, i) => slopeAt(step, n * I + i)), sign('='), grad] : [g, sign('→'), grad];
  }
  const values = step.grads[part], rows = step.layer.parameters[part].shape[0];
  if (!isLinear) return [g, sign('→'), matrix(`dL/d ${part}`, rows, values.length / rows, (o, i) => values[(o * values.length) / rows + i])];
  if (part === 'bias') return [sign('Σ over the batch of'), g, sign('='), matrix('dL/db', 1, F, (_, o) => values[o])];
  return [matrix('gᵀ', F, N, (o, n) => step.gradY.data[n * F + o]), sign('·'), x(), sign('='), matrix('dL/dW', F, I, (o, i) => values[o * I + i])];
}

// What a frame is called, and the formula of what happens in it.
function titleOf(net, frame) {
  const { phase, l, part, u } = frame, of = net.steps.length;
  const step = net.steps[l];
  if (phase === 'start') return ['The input', 'Forward: each layer computes its output from the one before. Press → or Next.'];
  if (phase === 'loss') return ['The loss', net.loss.formula];
  if (phase === 'score') return [`Backward begins: ${u === undefined ? 'dL/d scores' : nameOf(net, { of: 'score', u })}`, net.loss.backward];
  if (phase === 'forward') {
    const unit = u === undefined ? '' : `, ${outputName(net, l, u)}`;
    return [`Forward ${l + 1} of ${of}: ${step.layer.name} (${step.layer.kind})${unit}`, `${step.layer.formula}    ${step.layer.shapes}`];
  }
  const what = part === undefined ? '' : part === 'input' ? ', dL/dx' : `, dL/d ${part}`;
  const unit = u === undefined ? '' : ` of unit ${u}`;
  const all = [...Object.values(step.layer.parameterFormulas), step.layer.backward].join('    ');
  const formula = !part ? all : part === 'input' ? step.layer.backward : step.layer.parameterFormulas[part];
  return [`Backward ${of - l} of ${of}: ${step.layer.name} (${step.layer.kind})${what}${unit}`, formula];
}

// What is shown of a frame at a level, once its numbers may be seen.
function frameElement(net, frame, level) {
  const { phase, l, part, u } = frame, step = net.steps[l];
  const shownOf = (array) => array.data.subarray(net.example * ofOne(array), (net.example + 1) * ofOne(array));
  const one = (which) => [storyElement(net, which)];
  if (phase === 'start') return [matrixOfInput(net)];
  if (phase === 'loss') return one({ of: 'loss' });
  if (phase === 'score' && u !== undefined) return one({ of: 'score', u });
  if (level === 'matrix' && (phase === 'score' || step.y.shape.length === 2)) {
    return [scrollable('The matrices', element('div', { class: 'product' }, ...matrices(net, frame)))];
  }
  if (phase === 'score') return [equations(net, shownOf(net.loss.gradient), (k) => ({ of: 'score', u: k }))];
  if (phase === 'forward') {
    return u === undefined ? [equations(net, shownOf(step.y), (k) => ({ of: 'y', l, u: k }))] : one({ of: 'y', l, u });
  }
  if (part === 'input' && u !== undefined) return one({ of: 'gradient', l, u });
  const made = [];
  for (const name of part ? [part].filter((p) => p !== 'input') : Object.keys(step.grads)) {
    const size = step.grads[name].length, rows = step.layer.parameters[name].shape[0];
    const [from, to] = u === undefined ? [0, size] : [(u * size) / rows, ((u + 1) * size) / rows];
    made.push(equations(net, step.grads[name].subarray(from, to), (k) => ({ of: 'parameter', l, name, at: from + k })));
  }
  if (!part || part === 'input') made.push(equations(net, shownOf(step.gradX), (k) => ({ of: 'gradient', l, u: k })));
  return made;
}

function matrixOfInput(net) {
  const { x } = net.steps[0];
  if (ofOne(x) > SMALL) return element('p', { text: `${ofOne(x)} numbers: the picture is below.` });
  return element('div', { class: 'product' }, matrix('x', x.shape[0], ofOne(x), (n, i) => x.data[n * ofOne(x) + i]));
}
