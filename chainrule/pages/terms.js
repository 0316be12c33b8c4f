// What one number of the network is made of. `story(net, which)` returns
//
//   { name, formula, terms: [{ left, a, right, b }], plus, total, over }
//
// and total = sum of a x b + plus. Of a gradient, a is upstream and b the local derivative. `which` is
//
//   { of: 'y', l, u }             output u of layer l, of the example that is shown
//   { of: 'gradient', l, u }      dL/d(input u of layer l), of that example
//   { of: 'parameter', l, name, at }   dL/d(number `at` of a parameter), over the batch
//   { of: 'loss' }, { of: 'score', u }     the loss, and dL/d(output u of the last layer)
//
// `net` has steps (see engine.js), loss, target, and `example`, which is shown of the batch.
'use strict';

// The place of number `index` in an array of this shape: [1,0]
function place(shape, index) {
  const at = [];
  for (const size of [...shape].reverse()) {
    at.unshift(index % size);
    index = Math.floor(index / size);
  }
  return `[${at.join(',')}]`;
}

const ofOne = (array) => array.data.length / array.shape[0]; // how many numbers one example has
const outputName = (net, l, u) =>
  l < 0 ? `input${place(net.steps[0].x.shape.slice(1), u)}`
    : `${net.steps[l].layer.name}${place(net.steps[l].y.shape.slice(1), u)}`;
const parameterName = (net, { l, name, at }) =>
  `${net.steps[l].layer.name}.${name}${place(net.steps[l].layer.parameters[name].shape, at)}`;

function nameOf(net, which) {
  if (which.of === 'y') return outputName(net, which.l, which.u);
  if (which.of === 'gradient') return `dL/d ${outputName(net, which.l - 1, which.u)}`;
  if (which.of === 'parameter') return `dL/d ${parameterName(net, which)}`;
  if (which.of === 'score') return `dL/d ${outputName(net, net.steps.length - 1, which.u)}`;
  return 'L';
}

// The number itself, which `story` takes apart.
function numberOf(net, which) {
  const { steps, loss, example } = net;
  if (which.of === 'y') return steps[which.l].y.data[example * ofOne(steps[which.l].y) + which.u];
  if (which.of === 'gradient') return steps[which.l].gradX.data[example * ofOne(steps[which.l].x) + which.u];
  if (which.of === 'parameter') return steps[which.l].grads[which.name][which.at];
  if (which.of === 'score') return loss.gradient.data[example * ofOne(loss.gradient) + which.u];
  return loss.value;
}

function story(net, which) {
  const made = { name: nameOf(net, which), terms: [], plus: 0, total: numberOf(net, which) };
  if (which.of === 'loss' || which.of === 'score') return { ...made, ...ofLoss(net, which) };
  const step = net.steps[which.l];
  const kind = PARTS[step.layer.kind] ?? PARTS.elementwise;
  return { ...made, ...kind[which.of](net, step, which) };
}

// ---- The loss ----------------------------------------------------------------------------------------------

function ofLoss(net, which) {
  const { loss } = net, l = net.steps.length - 1;
  return which.of === 'loss' ? { formula: loss.formula, given: scoresInWords(net) }
    : { formula: loss.backward, given: scoresInWords(net), upstreamOf: outputName(net, l, which.u) };
}

function scoresInWords({ steps, loss, target, example }) {
  const scores = steps.at(-1).y, size = ofOne(scores);
  const x = [...scores.data.subarray(example * size, (example + 1) * size)];
  if (loss.kind === 'CrossEntropyLoss') {
    const p = softmax(x).map((value) => shown(value));
    return `k = ${target.data[example]}, p = (${p.slice(0, 12).join(', ')})`;
  }
  const t = loss.kind === 'NLLLoss' ? `k = ${target.data[example]}`
    : `t = (${[...target.data.subarray(example * size, (example + 1) * size)].map((v) => shown(v)).join(', ')})`;
  return `x = (${x.slice(0, 12).map((value) => shown(value)).join(', ')}), ${t}`;
}

// ---- The layers --------------------------------------------------------------------------------------------

const PARTS = {
  Linear: {
    y(net, step, { l, u }) {
      const { weight, bias } = step.layer.parameters;
      const [outputs, inputs] = weight.shape, row = Math.floor(u / outputs), o = u % outputs;
      const x = net.example * ofOne(step.x) + row * inputs;
      const terms = Array.from({ length: inputs }, (_, i) => ({
        left: outputName(net, l - 1, row * inputs + i), a: step.x.data[x + i],
        right: `w[${o},${i}]`, b: weight.data[o * inputs + i],
      }));
      return { formula: `y = Σ x w${bias ? ' + b' : ''}`, terms, plus: bias ? bias.data[o] : 0, plusName: bias && `b[${o}]` };
    },
    gradient(net, step, { l, u }) {
      const { weight } = step.layer.parameters;
      const [outputs, inputs] = weight.shape, row = Math.floor(u / inputs), i = u % inputs;
      const g = net.example * ofOne(step.y) + row * outputs;
      const terms = Array.from({ length: outputs }, (_, o) => ({
        left: `dL/d ${outputName(net, l, row * outputs + o)}`, a: step.gradY.data[g + o],
        right: `w[${o},${i}]`, b: weight.data[o * inputs + i],
      }));
      return { formula: 'dL/dx = Σ over the outputs of dL/dy · dy/dx, and dy/dx = w', terms };
    },
    parameter(net, step, { l, name, at }) {
      const [outputs, inputs] = step.layer.parameters.weight.shape;
      const [o, i] = name === 'weight' ? [Math.floor(at / inputs), at % inputs] : [at, null];
      const terms = Array.from({ length: step.y.data.length / outputs }, (_, n) => ({
        left: `dL/d ${step.layer.name}[${o}]`, a: step.gradY.data[n * outputs + o],
        right: i === null ? '1' : l ? `${net.steps[l - 1].layer.name}[${i}]` : `input[${i}]`,
        b: i === null ? 1 : step.x.data[n * inputs + i],
      }));
      const local = i === null ? 'dL/db = Σ dL/dy · dy/db, and dy/db = 1' : 'dL/dw = Σ dL/dy · dy/dw, and dy/dw = x';
      return { formula: local, terms, over: terms.length > 1 ? 'examples of the batch' : '' };
    },
  },

  // All layers that take each number by itself: activations, Dropout, Identity, Flatten, BatchNorm in evaluation.
  elementwise: {
    y(net, step, { l, u }) {
      const x = step.x.data[net.example * ofOne(step.x) + u];
      return { formula: step.layer.formula, given: `x = ${outputName(net, l - 1, u)} = ${shown(x)}` };
    },
    gradient(net, step, { l, u }) {
      const at = net.example * ofOne(step.x) + u;
      const slope = slopeAt(step, at, u);
      if (slope === null) return ofBatch(net, step, l, u);
      const term = { left: `dL/d ${outputName(net, l, u)}`, a: step.gradY.data[at], right: 'dy/dx', b: slope };
      return { formula: `dL/dx = dL/dy · dy/dx, and ${step.layer.local.formula}`, terms: [term] };
    },
    parameter(net, step, { name, at }) { // of BatchNorm
      const terms = [];
      if (!step.cache) return { formula: step.layer.parameterFormulas[name], given: 'x̂ depends on the whole batch' };
      step.gradY.data.forEach((g, place_) => {
        if (BatchNorm.feature(step.gradY, place_) !== at) return;
        const b = name === 'bias' ? 1 : step.cache.data[place_];
        terms.push({ left: `dL/d ${step.layer.name}[${at}]`, a: g, right: name === 'bias' ? '1' : 'x̂', b });
      });
      return { formula: step.layer.parameterFormulas[name], terms, over: 'examples of the batch' };
    },
  },

  Softmax: jacobian((y, i, j) => y[i] * ((i === j) - y[j])),
  LogSoftmax: jacobian((y, i, j) => (i === j) - Math.exp(y[j])),

  MaxPool2d: {
    y(net, step, { l, u }) {
      const winner = step.cache.winner[net.example * ofOne(step.y) + u] - net.example * ofOne(step.x);
      return { formula: step.layer.formula, given: `the winner is ${outputName(net, l - 1, winner)}` };
    },
    gradient(net, step, { l, u }) {
      const terms = [], first = net.example * ofOne(step.y), pixel = net.example * ofOne(step.x) + u;
      for (let at = 0; at < ofOne(step.y); at++) {
        if (step.cache.winner[first + at] === pixel) {
          terms.push({ left: `dL/d ${outputName(net, l, at)}`, a: step.gradY.data[first + at], right: 'it won', b: 1 });
        }
      }
      return { formula: step.layer.backward, terms };
    },
  },

  AvgPool2d: {
    y: (net, step) => ({ formula: step.layer.formula }),
    gradient(net, step, { l, u }) {
      const terms = [], pixel = net.example * ofOne(step.x) + u, { divisor } = step.layer.options;
      pool(step.layer, step.x.shape, (pixels, at) => {
        if (!pixels.includes(pixel)) return;
        const right = '1 / pixels', b = 1 / divisor[at % divisor.length];
        terms.push({ left: `dL/d ${outputName(net, l, at % ofOne(step.y))}`, a: step.gradY.data[at], right, b });
      });
      return { formula: step.layer.backward, terms };
    },
  },

  Conv2d: {
    y(net, step, { l, u }) {
      const { bias } = step.layer.parameters, [, outputs, rows, columns] = step.y.shape;
      const o = Math.floor(u / (rows * columns)) % outputs;
      const terms = products(net, step, l, ({ yAt }) => yAt === net.example * ofOne(step.y) + u, 'x', 'w');
      return { formula: step.layer.formula, terms, plus: bias ? bias.data[o] : 0, plusName: bias && `b[${o}]` };
    },
    gradient(net, step, { l, u }) {
      const terms = products(net, step, l, ({ xAt }) => xAt === net.example * ofOne(step.x) + u, 'g', 'w');
      return { formula: step.layer.backward, terms };
    },
    parameter(net, step, { l, name, at }) {
      const { formula } = { formula: step.layer.parameterFormulas[name] };
      if (name === 'weight') {
        return { formula, terms: products(net, step, l, ({ w }) => w === at, 'g', 'x'), over: 'places' };
      }
      const [, outputs, rows, columns] = step.y.shape, terms = [];
      step.gradY.data.forEach((g, place_) => {
        if (Math.floor(place_ / (rows * columns)) % outputs !== at) return;
        terms.push({ left: `dL/d ${outputName(net, l, place_ % ofOne(step.y))}`, a: g, right: '1', b: 1 });
      });
      return { formula, terms, over: 'places' };
    },
  },
};

// The products x w of a convolution that `wanted` asks for, each as two of: x, w and g = dL/dy.
function products(net, step, l, wanted, left, right) {
  const terms = [], { weight } = step.layer.parameters;
  convolve(step.layer, step.x.shape, (w, xRow, yRow, windows, j, width) => {
    for (let c = 0; c < windows.columns; c++) {
      const column = windows.column(c, j);
      if (column < 0 || column >= width) continue;
      const hit = { w, xAt: xRow + column, yAt: yRow + c };
      if (!wanted(hit)) continue;
      const factor = {
        x: () => [outputName(net, l - 1, hit.xAt % ofOne(step.x)), step.x.data[hit.xAt]],
        w: () => [`w${place(weight.shape, w)}`, weight.data[w]],
        g: () => [`dL/d ${outputName(net, l, hit.yAt % ofOne(step.y))}`, step.gradY.data[hit.yAt]],
      };
      const [[leftName, a], [rightName, b]] = [factor[left](), factor[right]()];
      terms.push({ left: leftName, a, right: rightName, b });
    }
  });
  return terms;
}

function jacobian(local) {
  return {
    y: (net, step, { l, u }) => ({
      formula: step.layer.formula,
      given: `x = ${outputName(net, l - 1, u)} = ${shown(step.x.data[net.example * ofOne(step.x) + u])}`,
    }),
    gradient(net, step, { l, u }) {
      const first = net.example * ofOne(step.y);
      const y = step.y.data.subarray(first, first + ofOne(step.y));
      const terms = Array.from(y, (_, i) => ({
        left: `dL/d ${outputName(net, l, i)}`, a: step.gradY.data[first + i], right: `dy[${i}]/dx[${u}]`, b: local(y, i, u),
      }));
      return { formula: `dL/dx = Σ dL/dy · dy/dx, and ${step.layer.local.formula}`, terms };
    },
  };
}

// BatchNorm with the statistics of the batch: each x moves the outputs of all examples. `layer.slopes` (N, N, C)
// has d(output i)/d(input j) of each channel; for images and for large batches it is not in the page.
function ofBatch(net, step, l, u) {
  const { slopes, local, backward: formula } = step.layer;
  if (!slopes) return { formula, given: local.formula };
  const [examples, , channels] = slopes.shape;
  const terms = Array.from({ length: examples }, (_, i) => ({
    left: `dL/d ${outputName(net, l, u)} of example ${i + 1}`, a: step.gradY.data[i * channels + u],
    right: 'dy/dx', b: slopes.data[(i * examples + net.example) * channels + u],
  }));
  return { formula: `dL/dx = Σ dL/dy · dy/dx, as x moves the whole batch. ${formula}`, terms, over: 'examples of the batch' };
}

// dy/dx of a layer that takes each number by itself; null for BatchNorm with the statistics of the batch.
function slopeAt(step, at) {
  const { layer } = step;
  if (layer.local.kind === 'batch') return null;
  if (layer.kind === 'Dropout') return layer.mask ? layer.mask.data[at] : 1;
  if (layer.kind.startsWith('BatchNorm')) {
    const f = BatchNorm.feature(step.x, at), { weight, running_var } = layer.parameters;
    return (weight ? weight.data[f] : 1) / Math.sqrt(running_var.data[f] + layer.options.eps);
  }
  return LAYERS[layer.kind].slope?.(step.x.data[at], step.y.data[at], layer.options) ?? 1;
}
