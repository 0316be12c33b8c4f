// The network in the browser: forward and backward by hand, the formulas of nn_reference.
//
// A tensor is { shape: [N, ...], data: Float64Array } in row-major order, N examples. A layer is
// { name, kind, options, parameters: { weight: tensor, ... } }, where `options` are the arguments of torch.nn
// with the defaults filled in. Each kind of layer has
//
//   forward(layer, x)                -> { y, cache }
//   backward(layer, cache, gradY)    -> { gradX, grads }     grads: { weight: Float64Array, ... }, or none
//
// BatchNorm uses its running statistics. Dropout passes its input on, or multiplies it by `layer.mask`.
'use strict';

const tensor = (shape, data) => ({ shape, data: data ?? new Float64Array(count(shape)) });
const count = (shape) => shape.reduce((product, size) => product * size, 1);

// y[n,o] = sum_i x[n,i] weight[o,i] + bias[o]
const Linear = {
  forward(layer, x) {
    const { weight, bias } = layer.parameters;
    const [outputs, inputs] = weight.shape;
    const y = tensor([...x.shape.slice(0, -1), outputs]);
    for (let n = 0; n < x.data.length / inputs; n++) {
      for (let o = 0; o < outputs; o++) {
        let sum = 0;
        for (let i = 0; i < inputs; i++) sum += x.data[n * inputs + i] * weight.data[o * inputs + i];
        y.data[n * outputs + o] = sum + (bias ? bias.data[o] : 0);
      }
    }
    return { y, cache: x };
  },
  // dL/dx = dL/dy weight        dL/dweight[o,i] = sum_n dL/dy[n,o] x[n,i]        dL/dbias[o] = sum_n dL/dy[n,o]
  backward(layer, x, gradY, wantGrads) {
    const { weight, bias } = layer.parameters;
    const [outputs, inputs] = weight.shape;
    const gradX = tensor(x.shape);
    const gradWeight = wantGrads && new Float64Array(outputs * inputs);
    const gradBias = wantGrads && bias && new Float64Array(outputs);
    for (let n = 0; n < x.data.length / inputs; n++) {
      for (let o = 0; o < outputs; o++) {
        const upstream = gradY.data[n * outputs + o];
        if (gradBias) gradBias[o] += upstream;
        for (let i = 0; i < inputs; i++) {
          gradX.data[n * inputs + i] += upstream * weight.data[o * inputs + i];
          if (gradWeight) gradWeight[o * inputs + i] += upstream * x.data[n * inputs + i];
        }
      }
    }
    return { gradX, grads: wantGrads ? named({ weight: gradWeight, bias: gradBias }) : {} };
  },
};

const named = (grads) => Object.fromEntries(Object.entries(grads).filter(([, grad]) => grad));

// The windows that convolution and pooling slide over an image: `options` holds kernel_size, stride, dilation
// and border = [[above, below], [left, right]], each for both axes.
function windowsOf(options, height, width) {
  const [kernelHeight, kernelWidth] = options.kernel_size;
  const [[above, below], [left, right]] = options.border;
  const positions = (size, axis) =>
    Math.floor((size - (options.kernel_size[axis] - 1) * options.dilation[axis] - 1) / options.stride[axis]) + 1;
  return {
    kernelHeight,
    kernelWidth,
    rows: positions(height + above + below, 0),
    columns: positions(width + left + right, 1),
    row: (r, i) => r * options.stride[0] + i * options.dilation[0] - above,
    column: (c, j) => c * options.stride[1] + j * options.dilation[1] - left,
  };
}

// y[n,o,r,c] = bias[o] + sum_(k,i,j) weight[o,k,i,j] x[n, k of o's group, row(r,i), column(c,j)]
function convolve(layer, xShape, visit) {
  const [examples, , height, width] = xShape;
  const [outputs, perGroup] = layer.parameters.weight.shape;
  const windows = windowsOf(layer.options, height, width);
  const { kernelHeight, kernelWidth, rows, columns } = windows;
  const outputsPerGroup = outputs / layer.options.groups;
  for (let n = 0; n < examples; n++) {
    for (let o = 0; o < outputs; o++) {
      const firstChannel = Math.floor(o / outputsPerGroup) * perGroup;
      for (let k = 0; k < perGroup; k++) {
        const channel = (n * xShape[1] + firstChannel + k) * height * width;
        for (let i = 0; i < kernelHeight; i++) {
          for (let j = 0; j < kernelWidth; j++) {
            const w = ((o * perGroup + k) * kernelHeight + i) * kernelWidth + j;
            for (let r = 0; r < rows; r++) {
              const row = windows.row(r, i);
              if (row < 0 || row >= height) continue;
              visit(w, channel + row * width, ((n * outputs + o) * rows + r) * columns, windows, j, width);
            }
          }
        }
      }
    }
  }
}

const Conv2d = {
  forward(layer, x) {
    const { weight, bias } = layer.parameters;
    const { rows, columns } = windowsOf(layer.options, x.shape[2], x.shape[3]);
    const y = tensor([x.shape[0], weight.shape[0], rows, columns]);
    if (bias) y.data.forEach((_, at) => (y.data[at] = bias.data[Math.floor(at / (rows * columns)) % bias.data.length]));
    convolve(layer, x.shape, (w, xRow, yRow, windows, j, width) => {
      const factor = weight.data[w];
      for (let c = 0; c < columns; c++) {
        const column = windows.column(c, j);
        if (column >= 0 && column < width) y.data[yRow + c] += factor * x.data[xRow + column];
      }
    });
    return { y, cache: x };
  },
  // Each product weight x in y passes dL/dy on to both factors, times the other one.
  backward(layer, x, gradY, wantGrads) {
    const { weight, bias } = layer.parameters;
    const [, , rows, columns] = gradY.shape;
    const gradX = tensor(x.shape);
    const gradWeight = wantGrads && new Float64Array(weight.data.length);
    const gradBias = wantGrads && bias && new Float64Array(bias.data.length);
    convolve(layer, x.shape, (w, xRow, yRow, windows, j, width) => {
      const factor = weight.data[w];
      let sum = 0;
      for (let c = 0; c < columns; c++) {
        const column = windows.column(c, j);
        if (column < 0 || column >= width) continue;
        gradX.data[xRow + column] += gradY.data[yRow + c] * factor;
        sum += gradY.data[yRow + c] * x.data[xRow + column];
      }
      if (gradWeight) gradWeight[w] += sum;
    });
    if (gradBias) gradY.data.forEach((g, at) => (gradBias[Math.floor(at / (rows * columns)) % gradBias.length] += g));
    return { gradX, grads: wantGrads ? named({ weight: gradWeight, bias: gradBias }) : {} };
  },
};

// Go through the windows of each image of x (..., H, W): `seen(pixels, at)` gets the places in x.data that the
// window sees inside the image, in reading order, and the window's own place in y.data.
function pool(layer, xShape, seen) {
  const [height, width] = xShape.slice(-2);
  const windows = windowsOf(layer.options, height, width);
  for (let image = 0; image < count(xShape.slice(0, -2)); image++) {
    for (let r = 0; r < windows.rows; r++) {
      for (let c = 0; c < windows.columns; c++) {
        const pixels = [];
        for (let i = 0; i < windows.kernelHeight; i++) {
          for (let j = 0; j < windows.kernelWidth; j++) {
            const row = windows.row(r, i), column = windows.column(c, j);
            const inside = row >= 0 && row < height && column >= 0 && column < width;
            if (inside) pixels.push((image * height + row) * width + column);
          }
        }
        seen(pixels, (image * windows.rows + r) * windows.columns + c);
      }
    }
  }
  return windows;
}

function pooledShape(layer, xShape) {
  const { rows, columns } = windowsOf(layer.options, ...xShape.slice(-2));
  return [...xShape.slice(0, -2), rows, columns];
}

// The largest of each window; the first in reading order where several are.
const MaxPool2d = {
  forward(layer, x) {
    const y = tensor(pooledShape(layer, x.shape));
    const winner = new Int32Array(y.data.length);
    pool(layer, x.shape, (pixels, at) => {
      winner[at] = pixels.reduce((best, pixel) => (x.data[pixel] > x.data[best] ? pixel : best));
      y.data[at] = x.data[winner[at]];
    });
    return { y, cache: { shape: x.shape, winner } };
  },
  backward(layer, { shape, winner }, gradY) {
    const gradX = tensor(shape);
    winner.forEach((pixel, at) => (gradX.data[pixel] += gradY.data[at]));
    return { gradX, grads: {} };
  },
};

// The sum of each window over `options.divisor`, one number for each of the (H', W') windows.
const AvgPool2d = {
  forward(layer, x) {
    const y = tensor(pooledShape(layer, x.shape)), { divisor } = layer.options;
    pool(layer, x.shape, (pixels, at) => {
      y.data[at] = pixels.reduce((sum, pixel) => sum + x.data[pixel], 0) / divisor[at % divisor.length];
    });
    return { y, cache: x.shape };
  },
  backward(layer, shape, gradY) {
    const gradX = tensor(shape), { divisor } = layer.options;
    pool(layer, shape, (pixels, at) => {
      for (const pixel of pixels) gradX.data[pixel] += gradY.data[at] / divisor[at % divisor.length];
    });
    return { gradX, grads: {} };
  },
};

// y = weight (x - running_mean) / sqrt(running_var + eps) + bias, for each feature (or channel) by itself.
const BatchNorm = {
  feature: (x, at) => Math.floor(at / count(x.shape.slice(2))) % x.shape[1],
  forward(layer, x) {
    const { weight, bias, running_mean, running_var } = layer.parameters;
    const y = tensor(x.shape), normalised = tensor(x.shape);
    x.data.forEach((value, at) => {
      const f = BatchNorm.feature(x, at);
      normalised.data[at] = (value - running_mean.data[f]) / Math.sqrt(running_var.data[f] + layer.options.eps);
      y.data[at] = (weight ? weight.data[f] : 1) * normalised.data[at] + (bias ? bias.data[f] : 0);
    });
    return { y, cache: normalised };
  },
  backward(layer, normalised, gradY, wantGrads) {
    const { weight, bias, running_var } = layer.parameters;
    const gradX = tensor(gradY.shape);
    const gradWeight = wantGrads && weight && new Float64Array(weight.data.length);
    const gradBias = wantGrads && bias && new Float64Array(bias.data.length);
    gradY.data.forEach((upstream, at) => {
      const f = BatchNorm.feature(gradY, at);
      const slope = (weight ? weight.data[f] : 1) / Math.sqrt(running_var.data[f] + layer.options.eps);
      gradX.data[at] = upstream * slope;
      if (gradWeight) gradWeight[f] += upstream * normalised.data[at];
      if (gradBias) gradBias[f] += upstream;
    });
    return { gradX, grads: wantGrads ? named({ weight: gradWeight, bias: gradBias }) : {} };
  },
};

const Identity = {
  forward: (layer, x) => ({ y: x, cache: null }),
  backward: (layer, cache, gradY) => ({ gradX: gradY, grads: {} }),
};

// y = x mask
const Dropout = {
  forward(layer, x) {
    return { y: layer.mask ? tensor(x.shape, x.data.map((value, at) => value * layer.mask.data[at])) : x, cache: null };
  },
  backward: (layer, cache, gradY) => ({ gradX: Dropout.forward(layer, gradY).y, grads: {} }),
};

const Flatten = {
  forward(layer, x) {
    const rank = x.shape.length;
    const [first, last] = [layer.options.start_dim, layer.options.end_dim].map((dim) => (dim + rank) % rank);
    const shape = [...x.shape.slice(0, first), count(x.shape.slice(first, last + 1)), ...x.shape.slice(last + 1)];
    return { y: tensor(shape, x.data), cache: x.shape };
  },
  backward: (layer, shape, gradY) => ({ gradX: tensor(shape, gradY.data), grads: {} }),
};

// An activation is a function of one number and its slope there: value(x, options), slope(x, y, options).
const elementwise = (value, slope) => ({
  value,
  slope,
  forward(layer, x) {
    const y = tensor(x.shape, x.data.map((number) => value(number, layer.options)));
    return { y, cache: { x, y } };
  },
  backward(layer, { x, y }, gradY) {
    const grad = gradY.data.map((upstream, at) => upstream * slope(x.data[at], y.data[at], layer.options));
    return { gradX: tensor(x.shape, grad), grads: {} };
  },
});

const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
const normalDensity = (x) => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);

// The integral of the normal density up to x: near 0 its series (Marsaglia, 2004), in the tails Laplace's
// continued fraction (Abramowitz and Stegun, 26.2.14).
function normalCdf(x) {
  if (Math.abs(x) <= 3) {
    let term = x, sum = x;
    for (let n = 3; Math.abs(term) > 1e-18; n += 2) sum += term *= (x * x) / n;
    return 0.5 + normalDensity(x) * sum;
  }
  let fraction = Math.abs(x);
  for (let k = 80; k > 0; k--) fraction = Math.abs(x) + k / fraction;
  const tail = normalDensity(x) / fraction;
  return x > 0 ? 1 - tail : tail;
}

// GELU's sigmoid(2u) stands for (1 + tanh(u)) / 2, with u = sqrt(2 / pi) (x + 0.044715 x^3).
const geluU = (x) => Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
const geluCdf = (x, options) => (options.approximate === 'tanh' ? sigmoid(2 * geluU(x)) : normalCdf(x));
function geluSlope(x, y, options) {
  const cdf = geluCdf(x, options);
  if (options.approximate !== 'tanh') return cdf + x * normalDensity(x);
  return cdf + x * 2 * cdf * (1 - cdf) * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x);
}

// Go through the lines of x along the axis `dim`: `line(places)` gets the places in x.data.
function alongAxis(shape, dim, line) {
  const axis = (dim + shape.length) % shape.length;
  const size = shape[axis], step = count(shape.slice(axis + 1));
  for (let at = 0; at < count(shape); at++) {
    if (Math.floor(at / step) % size === 0) line(Array.from({ length: size }, (_, k) => at + k * step));
  }
}

// log sum_j exp(x_j), shifted by the largest so that nothing overflows.
function logSumExp(values) {
  const largest = Math.max(...values);
  return largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}

// y_k = x_k - log sum_j exp(x_j)        dL/dx_k = dL/dy_k - softmax_k sum_j dL/dy_j
const LogSoftmax = {
  forward(layer, x) {
    const y = tensor(x.shape);
    alongAxis(x.shape, layer.options.dim, (places) => {
      const total = logSumExp(places.map((at) => x.data[at]));
      for (const at of places) y.data[at] = x.data[at] - total;
    });
    return { y, cache: y };
  },
  backward(layer, y, gradY) {
    const gradX = tensor(y.shape);
    alongAxis(y.shape, layer.options.dim, (places) => {
      const sum = places.reduce((total, at) => total + gradY.data[at], 0);
      for (const at of places) gradX.data[at] = gradY.data[at] - Math.exp(y.data[at]) * sum;
    });
    return { gradX, grads: {} };
  },
};

// y = exp(LogSoftmax(x))        dL/dx_k = y_k (dL/dy_k - sum_j dL/dy_j y_j)
const Softmax = {
  forward(layer, x) {
    const y = tensor(x.shape, LogSoftmax.forward(layer, x).y.data.map(Math.exp));
    return { y, cache: y };
  },
  backward(layer, y, gradY) {
    const gradX = tensor(y.shape);
    alongAxis(y.shape, layer.options.dim, (places) => {
      const mean = places.reduce((total, at) => total + gradY.data[at] * y.data[at], 0);
      for (const at of places) gradX.data[at] = y.data[at] * (gradY.data[at] - mean);
    });
    return { gradX, grads: {} };
  },
};

const LAYERS = {
  Linear,
  Conv2d,
  MaxPool2d,
  AvgPool2d,
  BatchNorm1d: BatchNorm,
  BatchNorm2d: BatchNorm,
  Dropout,
  Identity,
  Flatten,
  ReLU: elementwise((x) => (x > 0 ? x : 0), (x) => (x > 0 ? 1 : 0)),
  LeakyReLU: elementwise(
    (x, options) => (x > 0 ? x : options.negative_slope * x),
    (x, y, options) => (x > 0 ? 1 : options.negative_slope),
  ),
  Sigmoid: elementwise(sigmoid, (x, y) => y * (1 - y)),
  Tanh: elementwise(Math.tanh, (x, y) => 1 - y * y),
  ELU: elementwise(
    (x, options) => (x > 0 ? x : options.alpha * Math.expm1(x)),
    (x, y, options) => (x > 0 ? 1 : options.alpha * Math.exp(x)),
  ),
  SiLU: elementwise((x) => x * sigmoid(x), (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
  GELU: elementwise((x, options) => x * geluCdf(x, options), geluSlope),
  LogSoftmax,
  Softmax,
};

// Send x through the layers. Returns the steps, one for each layer: { layer, x, y, cache }.
function forward(layers, x) {
  const steps = [];
  for (const layer of layers) {
    const { y, cache } = LAYERS[layer.kind].forward(layer, x);
    steps.push({ layer, x, y, cache });
    x = y;
  }
  return steps;
}

// Send dL/d(last y) back. Fills in each step's gradY, gradX and grads, and returns dL/d(first x).
function backward(steps, gradY, wantGrads = true) {
  for (const step of [...steps].reverse()) {
    const { gradX, grads } = LAYERS[step.layer.kind].backward(step.layer, step.cache, gradY, wantGrads);
    Object.assign(step, { gradY, gradX, grads });
    gradY = gradX;
  }
  return gradY;
}

// The probabilities of one example's scores, and back from one class's log p to the scores:
// d log p_k / d score_j = [j = k] - p_j
function softmax(scores) {
  const total = logSumExp([...scores]);
  return scores.map((score) => Math.exp(score - total));
}
const gradOfLogProbability = (probabilities, k) => probabilities.map((p, j) => (j === k ? 1 : 0) - p);
