// The page of an explanation: frames stepped by buttons and keys, a number chosen by a click, sliders, guessing.
'use strict';

const net = netFrom(DATA);
const live = isLive(net);
const view = { level: 'layer', position: 0, frames: [], seen: null, chosen: null, guessing: false, answered: false, moved: false };

const current = () => view.frames[view.position];
const question = () => (view.guessing && !view.answered ? questionOf(net, current(), view.position) : null);
const known = () => view.position - (question() ? 1 : 0);

// Whether forward and backward have come to this number.
function shows(which) {
  if (which.of === 'y' && which.l < 0) return true;
  const inputs = which.of === 'parameter' ? net.steps[which.l].grads[which.name].length / net.steps[which.l].layer.parameters[which.name].shape[0] : 1;
  return view.seen(which, inputs) <= known();
}

// ---- Frames ------------------------------------------------------------------------------------------------

function setLevel(level) {
  const { l, phase } = current() ?? {};
  Object.assign(view, { level, frames: framesOf(net.steps, level) });
  view.seen = firstSeen(view.frames);
  const kept = view.frames.findIndex((frame) => frame.phase === phase && frame.l === l);
  go(Math.max(kept, 0));
}

function go(position) {
  view.position = Math.min(Math.max(position, 0), view.frames.length - 1);
  Object.assign(view, { chosen: null, answered: false });
  render();
  say();
}

// The next frame of another layer, for levels with many frames in one.
function jump(direction) {
  const { phase, l } = current();
  let at = view.position;
  while (view.frames[at] && view.frames[at].phase === phase && view.frames[at].l === l) at += direction;
  go(at);
}

function say() {
  const [title] = titleOf(net, current()), asked = question();
  const numbers = [...byId('frame').querySelectorAll('[data-value]')].slice(0, 6).map((cell) => cell.textContent);
  byId('said').textContent = asked ? `${title}. What is ${nameOf(net, asked)}?` : `${title}${numbers.length ? `: ${numbers.join(', ')}` : ''}`;
}

// ---- What is shown ------------------------------------------------------------------------------------------

const room = document.documentElement.clientWidth - (document.documentElement.clientWidth < 640 ? 26 : 40);
const picture = isSmall(net) ? new Graph(net, Math.min(room, 1160), choose) : new Cards(net, Math.min(room, 1160), choose);
byId('picture').append(picture.root);
if (picture instanceof Graph && room >= 900) byId('top').append(byId('chosen-box')); // beside the frame, else a sheet below

function choose(which) {
  view.chosen = which;
  render();
  if (!which) return;
  byId('said').textContent = `${nameOf(net, which)} = ${shows(which) ? shown(numberOf(net, which)) : 'not reached yet'}`;
}

function render() {
  const frame = current(), [title, formula] = titleOf(net, frame), asked = question();
  byId('frame-title').textContent = title;
  byId('frame-formula').textContent = formula;
  byId('level').value = view.level;
  byId('position').textContent = `${view.position + 1} of ${view.frames.length}`;
  byId('back').disabled = view.position === 0;
  byId('next').disabled = view.position === view.frames.length - 1;
  byId('frame').replaceChildren(...(asked ? [guessElement(asked)] : frameElement(net, frame, view.level)));
  byId('loss').textContent = shows({ of: 'loss' }) || view.moved ? shown(net.loss.value, 6) : '?';
  byId('loss').dataset.value = net.loss.value;
  picture.update(net, shows, frame, view.chosen);
  const { chosen } = view;
  byId('chosen-box').hidden = !chosen;
  if (chosen) byId('chosen').replaceChildren(...relatives(chosen), storyElement(net, chosen, checksOf(chosen), Boolean(asked) && same(asked, chosen)));
  if (byId('all-numbers').open) showAll();
}

// A unit has three numbers, or two: buttons that go from one to the other.
function relatives(which) {
  const last = net.steps.length - 1;
  const l = which.of === 'score' ? last : which.of === 'gradient' ? which.l - 1 : which.l;
  const isUnit = ['y', 'score', 'gradient'].includes(which.of);
  const ofBias = which.of === 'parameter' && which.name === 'bias' && net.steps[l].layer.kind === 'Linear';
  if ((!isUnit && !ofBias) || l < 0) return [];
  const u = ofBias ? which.at : which.u;
  const all = [['its value', { of: 'y', l, u }], ['its gradient', l === last ? { of: 'score', u } : { of: 'gradient', l: l + 1, u }]];
  const { layer } = net.steps[l];
  if (layer.kind === 'Linear' && layer.parameters.bias) all.push(['its bias', { of: 'parameter', l, name: 'bias', at: u % layer.parameters.bias.data.length }]);
  return [element('p', { class: 'row' }, `Unit ${outputName(net, l, u)}: `, ...all.map(([text, other]) =>
    element('button', { type: 'button', text, 'aria-pressed': String(same(other, which)), onclick: () => choose(other) })))];
}

// Autograd's gradient is of the weights that the page came with; a difference can be taken of any.
function checksOf(which) {
  if (which.of !== 'parameter') return [];
  const rows = [['chain rule', numberOf(net, which)]];
  if (live) rows.push(['finite difference', finiteDifferenceOf(which)]);
  const autograd = autogradOf(which);
  if (autograd !== null) rows.push(['autograd (PyTorch)', view.moved ? 'was asked for the first weights: Reset shows it' : autograd]);
  return rows;
}

function finiteDifferenceOf(which) {
  const given = DATA.layers[which.l].parameters[which.name].finite_difference;
  return given && !view.moved ? unpack(given).data[which.at] : finiteDifference(net, which);
}

function autogradOf(which) {
  const { autograd } = DATA.layers[which.l].parameters[which.name];
  if (autograd) return unpack(autograd).data[which.at];
  const apart = DATA.autograd?.apart?.[`${DATA.layers[which.l].name}.${which.name}`];
  if (!apart) return null;
  return unpack(DATA.layers[which.l].parameters[which.name].gradient).data[which.at] + unpack(apart).data[which.at];
}

// Every number as tables, for reading aloud, printing and copying.
function showAll() {
  const total = allParameters(net).length + net.steps.reduce((sum, { y }) => sum + ofOne(y), 0);
  if (total > 1000) {
    const words = `There are ${total}: too many for a table. chainrule explain --json prints them all.`;
    byId('all').replaceChildren(element('p', { text: words }));
    return;
  }
  const table = (caption, head, lines) => scrollable(caption, element('table', {},
    element('caption', { class: 'text', text: caption }),
    element('thead', {}, element('tr', {}, ...head.map((text, k) => element('th', { scope: 'col', class: k ? '' : 'text', text })))),
    element('tbody', {}, ...lines.map(([name, ...values]) => element('tr', {}, element('th', { scope: 'row', class: 'text', text: name }),
      ...values.map((value) => numberCell(value)))))));
  const made = net.steps.flatMap((step, l) => {
    const last = l === net.steps.length - 1;
    const units = Array.from({ length: ofOne(step.y) }, (_, u) => {
      const back = last ? { of: 'score', u } : { of: 'gradient', l: l + 1, u };
      return [outputName(net, l, u), numberOf(net, { of: 'y', l, u }), numberOf(net, back)];
    });
    const learnt = Object.keys(step.grads).flatMap((name) => Array.from(step.grads[name], (_, at) => {
      const which = { of: 'parameter', l, name, at };
      const autograd = view.moved ? null : autogradOf(which);
      return [parameterName(net, which), step.layer.parameters[name].data[at], numberOf(net, which),
        live ? finiteDifferenceOf(which) : null, autograd];
    }));
    const tables = [table(`${step.layer.name} (${step.layer.kind}): ${step.layer.formula}`, ['unit', 'y', 'dL/dy'], units)];
    if (learnt.length) tables.push(table(`${step.layer.name}: what it learns`, ['parameter', 'value', 'gradient', 'finite difference', 'autograd'], learnt));
    return tables;
  });
  byId('all').replaceChildren(element('p', { text: `Loss ${shown(net.loss.value, 8)}` }), ...made);
}

function numberCell(value) {
  const cell = element('td', { text: value === null ? '–' : shown(value, 6) });
  if (value !== null) cell.dataset.value = value;
  return cell;
}

// ---- Guess the number ---------------------------------------------------------------------------------------

function guessElement(which) {
  const value = numberOf(net, which), name = nameOf(net, which);
  const field = element('input', { type: 'text', inputmode: 'text', autocomplete: 'off', id: 'guess', size: 12 });
  const verdict = element('p', { role: 'status', id: 'verdict' });
  const reveal = (words) => {
    view.answered = true;
    render();
    byId('frame').prepend(element('p', { class: 'verdict', id: 'verdict', text: words }));
    byId('said').textContent = words;
    byId('next').focus();
  };
  const form = element('form', { class: 'row', onsubmit: (event) => {
    event.preventDefault();
    const guess = Number(field.value.trim().replace('−', '-').replace(',', '.'));
    if (field.value.trim() === '' || Number.isNaN(guess)) verdict.textContent = 'Write a number, such as -0.25.';
    else if (Math.abs(guess - value) <= Math.max(0.02 * Math.abs(value), 0.0005)) reveal(`Right: ${name} = ${shown(value, 6)}.`);
    else {
      const hint = guess * value < 0 ? 'its sign is the other one' : Math.abs(guess) > Math.abs(value) ? 'it is nearer to zero' : 'it is further from zero';
      verdict.textContent = `Not ${field.value.trim()}: ${hint}. Two digits are enough.`;
    }
  } }, element('label', { for: 'guess', text: `What is ${name}?` }), field,
  element('button', { type: 'submit', text: 'Check' }),
  element('button', { type: 'button', text: 'Show it', onclick: () => reveal(`${name} = ${shown(value, 6)}.`) }));
  return element('div', {}, form, verdict, storyElement(net, which, [], true));
}

// ---- Sliders ------------------------------------------------------------------------------------------------

let sliders = [];

function moved() {
  recompute(net);
  view.moved = true;
  sliders.forEach(({ refresh }) => refresh());
  byId('reset').disabled = false;
  render();
}

function reset() {
  const fresh = netFrom(DATA);
  fresh.steps.forEach((step, l) => {
    for (const [name, { data }] of Object.entries(net.steps[l].layer.parameters)) data.set(step.layer.parameters[name].data);
    net.steps[l].x.data.set(step.x.data);
    Object.assign(net.steps[l], { ...step, layer: net.steps[l].layer, x: l ? step.x : net.steps[0].x });
  });
  Object.assign(net.loss, fresh.loss);
  view.moved = false;
  sliders.forEach(({ refresh }) => refresh());
  byId('reset').disabled = true;
  render();
}

// w <- w - rate dL/dw, for all parameters at once.
function descend() {
  const rate = Number(byId('rate').value);
  if (!Number.isFinite(rate)) return;
  const before = net.loss.value;
  for (const { l, name, at } of allParameters(net)) {
    net.steps[l].layer.parameters[name].data[at] -= rate * net.steps[l].grads[name][at];
  }
  moved();
  byId('descent').textContent = `loss ${shown(before, 6)} → ${shown(net.loss.value, 6)}`;
}

if (live && allParameters(net).length <= MOST_SLIDERS) {
  byId('live').hidden = false;
  sliders = sliderRows(net, moved);
  for (const group of new Set(sliders.map((slider) => slider.group))) {
    const rows = sliders.filter((slider) => slider.group === group).map((slider) => slider.row);
    byId('sliders').append(element('fieldset', {}, element('legend', { text: group }), ...rows));
  }
  sliders.forEach(({ refresh }) => refresh());
}

// ---- Keys and buttons ---------------------------------------------------------------------------------------

byId('close').addEventListener('click', () => choose(null));

const KEYS = {
  Escape: () => view.chosen && choose(null),
  ArrowRight: () => go(view.position + 1),
  ArrowLeft: () => go(view.position - 1),
  PageDown: () => jump(1),
  PageUp: () => jump(-1),
  Home: () => go(0),
  End: () => go(view.frames.length - 1),
};
document.addEventListener('keydown', (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest('input, select, textarea')) return;
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});
byId('next').addEventListener('click', KEYS.ArrowRight);
byId('back').addEventListener('click', KEYS.ArrowLeft);
byId('start').addEventListener('click', KEYS.Home);
byId('end').addEventListener('click', KEYS.End);
byId('level').addEventListener('change', (event) => setLevel(event.target.value));
byId('guessing').addEventListener('click', (event) => {
  view.guessing = !view.guessing;
  event.currentTarget.setAttribute('aria-pressed', String(view.guessing));
  go(view.guessing && view.position === 0 ? 1 : view.position);
});
byId('reset').addEventListener('click', reset);
byId('step').addEventListener('click', descend);
byId('all-numbers').addEventListener('toggle', () => byId('all-numbers').open && showAll());
window.addEventListener('beforeprint', () => {
  byId('all-numbers').open = true;
  showAll();
});

// ---- The heading --------------------------------------------------------------------------------------------

function describe() {
  const { subject, example, batch } = DATA;
  byId('title').textContent = `${subject.name}: forward and backward`;
  byId('network').textContent = `${subject.summary}. Weights: ${subject.weights}.`
    + (subject.training ? ' Dropout and batch normalisation as in training.' : '');
  const of = example.source === 'dataset' ? `${example.title ?? example.dataset}, ${example.split} image ${example.indices.join(', ')}` : 'the numbers given';
  const label = net.target.shape.length === 1 ? `; ${example.class_names[net.target.data[net.example]]} is right` : '';
  byId('example-words').textContent = `Example: ${of}${label}.`;
  byId('agreement').textContent = DATA.autograd
    ? `PyTorch's autograd finds the same gradients: the largest difference is ${shown(DATA.autograd.largest_difference, 2)}.` : '';
  if (batch > 1 && !byId('example').length) {
    byId('example-row').hidden = false;
    for (let n = 0; n < batch; n++) byId('example').append(element('option', { value: n, text: `${n + 1} of ${batch}` }));
    byId('example').addEventListener('change', (event) => {
      net.example = Number(event.target.value);
      describe();
      render();
    });
  }
}

describe();
setLevel('layer');
if (DATA.optimizer.arguments.lr) byId('rate').value = DATA.optimizer.arguments.lr;
if (DATA.weight) { // --weight: the page opens where its gradient is known
  const { layer, parameter: name, index } = DATA.weight;
  const l = net.steps.findIndex((step) => step.layer.name === layer);
  const { shape } = net.steps[l].layer.parameters[name];
  KEYS.End();
  choose({ of: 'parameter', l, name, at: index.reduce((at, k, axis) => at * shape[axis] + k, 0) });
}
