// The network of the page: at first the engine's own numbers, and the browser's as soon as a slider moves.
'use strict';

const MOST_SLIDERS = 200;

// Return the net that `terms.js` describes, from the dictionary that `chainrule explain --json` prints.
function netFrom(data) {
  let x = unpack(data.input);
  const steps = data.layers.map((given) => {
    const parameters = Object.fromEntries(Object.entries(given.parameters).map(([name, { value }]) => [name, unpack(value)]));
    const layer = {
      ...given,
      parameters: { ...parameters, ...unpackAll(given.buffers) },
      parameterFormulas: Object.fromEntries(Object.entries(given.parameters).map(([name, { formula }]) => [name, formula])),
      mask: given.local.mask && unpack(given.local.mask),
      slopes: given.local.kind === 'batch' && given.local.values && unpack(given.local.values),
    };
    const grads = Object.fromEntries(Object.entries(given.parameters).map(([name, { gradient }]) => [name, unpack(gradient).data]));
    // BatchNorm with the statistics of the batch is not computed here (see isLive).
    const cache = layer.local.kind === 'batch' ? null : LAYERS[layer.kind].forward(layer, x).cache;
    const step = { layer, x, y: unpack(given.output), cache, gradY: unpack(given.upstream), gradX: unpack(given.gradient), grads };
    x = step.y;
    return step;
  });
  const loss = { ...data.loss, gradient: unpack(data.loss.gradient) };
  return { steps, loss, target: unpack(data.target), example: 0 };
}

// Whether the page can compute this network: not with BatchNorm's statistics of the batch, nor weighted losses.
const isLive = ({ steps, loss }) =>
  steps.every(({ layer }) => layer.local.kind !== 'batch' && LAYERS[layer.kind])
  && Object.keys(loss.arguments).every((name) => name === 'label_smoothing');

const lossOf = (net, scores) => LOSSES[net.loss.kind](scores, net.target, net.loss.arguments);
const layersOf = (net) => net.steps.map((step) => step.layer);

// Forward, loss and backward with the weights and the input as they are now.
function recompute(net) {
  const steps = forward(layersOf(net), net.steps[0].x);
  Object.assign(net.loss, lossOf(net, steps.at(-1).y));
  backward(steps, net.loss.gradient);
  steps.forEach((step, l) => Object.assign(net.steps[l], step));
}

// dL/d(one number of a parameter) as a central difference: (L(w + h) - L(w - h)) / 2h
function finiteDifference(net, { l, name, at }) {
  const { data } = net.steps[l].layer.parameters[name], value = data[at];
  const h = Math.cbrt(2 ** -52) * Math.max(1, Math.abs(value));
  const lossWith = (w) => {
    data[at] = w;
    return lossOf(net, forward(layersOf(net), net.steps[0].x).at(-1).y).value;
  };
  const difference = lossWith(value + h) - lossWith(value - h);
  data[at] = value;
  return difference / (value + h - (value - h));
}

// All learnt numbers, as { l, name, at }.
const allParameters = (net) => net.steps.flatMap(({ grads }, l) =>
  Object.keys(grads).flatMap((name) => Array.from(grads[name], (_, at) => ({ of: 'parameter', l, name, at }))));

// A slider for each number of each parameter, and of the input where that is small. `moved` is called after each move.
function sliderRows(net, moved) {
  const rows = [];
  const add = (group, label, array, at) => {
    const span = Math.max(3, Math.ceil(2 * Math.abs(array.data[at])));
    const range = element('input', { type: 'range', min: -span, max: span, step: 0.01, 'aria-label': label });
    const shownValue = element('output', { class: 'number' });
    const row = element('div', { class: 'slider' }, element('span', { class: 'slider-name', text: label }), range, shownValue);
    range.addEventListener('input', () => {
      array.data[at] = Number(range.value);
      moved();
    });
    const refresh = () => {
      range.value = array.data[at];
      shownValue.textContent = shown(array.data[at], 4);
      range.setAttribute('aria-valuetext', `${shown(array.data[at], 4)}, loss ${shown(net.loss.value, 4)}`);
    };
    rows.push({ group, row, refresh });
  };
  const { x } = net.steps[0];
  if (ofOne(x) <= SMALL) x.data.forEach((_, at) => {
    add('input', `input${place(x.shape[0] > 1 ? x.shape : x.shape.slice(1), at)}`, x, at);
  });
  for (const which of allParameters(net)) {
    const { layer } = net.steps[which.l];
    add(`${layer.name}.${which.name}`, parameterName(net, which), layer.parameters[which.name], which.at);
  }
  return rows;
}
