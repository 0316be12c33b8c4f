// The frames that one steps through: forward from the input to the loss, then backward to the first layer.
'use strict';

// Return the frames at a level: 'layer', 'matrix' (each parameter by itself) or 'neuron' (each unit by itself).
// A frame is { phase: 'start' | 'forward' | 'loss' | 'score' | 'backward', l, part, u }; `part` is the name of a
// parameter, or 'input'; where it is missing all of the layer is meant, and so are all units without `u`.
function framesOf(steps, level) {
  const frames = [{ phase: 'start' }];
  const units = (array) => (level === 'neuron' ? Array.from({ length: ofOne(array) }, (_, u) => ({ u })) : [{}]);
  steps.forEach((step, l) => frames.push(...units(step.y).map((unit) => ({ phase: 'forward', l, ...unit }))));
  frames.push({ phase: 'loss' });
  frames.push(...units(steps.at(-1).y).map((unit) => ({ phase: 'score', ...unit })));
  for (let l = steps.length - 1; l >= 0; l--) {
    if (level === 'layer') {
      frames.push({ phase: 'backward', l });
      continue;
    }
    const { layer } = steps[l];
    for (const part of Object.keys(steps[l].grads)) {
      const outputs = level === 'neuron' && layer.kind === 'Linear' ? layer.parameters[part].shape[0] : 0;
      for (let u = 0; u < Math.max(outputs, 1); u++) frames.push({ phase: 'backward', l, part, ...(outputs ? { u } : {}) });
    }
    frames.push(...units(steps[l].x).map((unit) => ({ phase: 'backward', l, part: 'input', ...unit })));
  }
  return frames;
}

// At which frame each number is first seen: a function of `which` (see terms.js).
function firstSeen(frames) {
  const seen = new Map();
  const put = (key, at) => seen.has(key) || seen.set(key, at);
  frames.forEach(({ phase, l, part, u }, at) => {
    const unit = u ?? 'all';
    if (phase === 'forward') put(`y ${l} ${unit}`, at);
    else if (phase === 'loss') put('loss', at);
    else if (phase === 'score') put(`score ${unit}`, at);
    else if (phase === 'backward') put(`${part ?? 'layer'} ${l} ${unit}`, at);
  });
  const first = (...keys) => keys.map((key) => seen.get(key)).find((at) => at !== undefined) ?? Infinity;
  return (which, inputs = 1) => {
    const { of, l, u, name, at } = which;
    if (of === 'y') return l < 0 ? 0 : first(`y ${l} ${u}`, `y ${l} all`);
    if (of === 'loss') return first('loss');
    if (of === 'score') return first(`score ${u}`, 'score all');
    if (of === 'gradient') return first(`input ${l} ${u}`, `input ${l} all`, `layer ${l} all`);
    const row = name === 'weight' ? Math.floor(at / inputs) : at;
    return first(`${name} ${l} ${row}`, `${name} ${l} all`, `layer ${l} all`);
  };
}

// The one number of a frame that "guess the number" asks for. Where a frame has many it is one that is not 0.
function questionOf(net, { phase, l, part, u }, position) {
  const choose = (values) => {
    const start = (position * 7) % values.length;
    const order = values.map((_, k) => (start + k) % values.length);
    return order.find((k) => Math.abs(values[k]) > 1e-12) ?? start;
  };
  const slice = (array) => {
    const size = ofOne(array);
    return Array.from(array.data.subarray(net.example * size, (net.example + 1) * size));
  };
  if (phase === 'start') return null;
  if (phase === 'loss') return { of: 'loss' };
  if (phase === 'forward') return { of: 'y', l, u: u ?? choose(slice(net.steps[l].y)) };
  if (phase === 'score') return { of: 'score', u: u ?? choose(slice(net.loss.gradient)) };
  const step = net.steps[l];
  const name = part ?? ('weight' in step.grads ? 'weight' : 'input');
  if (name === 'input') return { of: 'gradient', l, u: u ?? choose(slice(step.gradX)) };
  const grads = Array.from(step.grads[name]);
  if (u === undefined) return { of: 'parameter', l, name, at: choose(grads) };
  const width = grads.length / step.layer.parameters[name].shape[0];
  return { of: 'parameter', l, name, at: u * width + choose(grads.slice(u * width, (u + 1) * width)) };
}
