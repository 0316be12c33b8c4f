// The losses, by nn_reference's formulas. Scores are a tensor (N, C); the target is (N,) classes, or for MSELoss
// and BCEWithLogitsLoss (N, C) numbers. Each returns the mean { value, gradient: dL/dscores }.
'use strict';

const LOSSES = {
  // L = -sum_j t_j log p_j, p = softmax(x), t = (1 - s) [j = k] + s / C with label smoothing s
  // dL/dx_j = p_j sum_(i != j) t_i - t_j sum_(i != j) p_i, which is p_j - t_j without its cancellation
  CrossEntropyLoss(scores, target, { label_smoothing: smoothing = 0 }) {
    const [examples, classes] = scores.shape;
    const gradient = tensor(scores.shape);
    let value = 0;
    for (let n = 0; n < examples; n++) {
      const x = scores.data.subarray(n * classes, (n + 1) * classes);
      const p = softmax(x), total = logSumExp([...x]);
      const t = Array.from(p, (_, j) => (j === target.data[n] ? 1 - smoothing : 0) + smoothing / classes);
      for (let j = 0; j < classes; j++) {
        let otherT = 0, otherP = 0;
        for (let i = 0; i < classes; i++) {
          if (i !== j) [otherT, otherP] = [otherT + t[i], otherP + p[i]];
        }
        value -= (t[j] * (x[j] - total)) / examples;
        gradient.data[n * classes + j] = (p[j] * otherT - t[j] * otherP) / examples;
      }
    }
    return { value, gradient };
  },
  // L = -x_k
  NLLLoss(scores, target) {
    const [examples, classes] = scores.shape;
    const gradient = tensor(scores.shape);
    let value = 0;
    for (let n = 0; n < examples; n++) {
      value -= scores.data[n * classes + target.data[n]] / examples;
      gradient.data[n * classes + target.data[n]] = -1 / examples;
    }
    return { value, gradient };
  },
  // L = mean of (x - t)^2
  MSELoss: (scores, target) =>
    meanOf(scores, (x, at) => (x - target.data[at]) ** 2, (x, at) => 2 * (x - target.data[at])),
  // L = mean of -t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))
  BCEWithLogitsLoss: (scores, target) =>
    meanOf(
      scores,
      (x, at) => Math.max(x, 0) - x * target.data[at] + Math.log1p(Math.exp(-Math.abs(x))),
      (x, at) => sigmoid(x) - target.data[at],
    ),
};

function meanOf(scores, value, slope) {
  const size = scores.data.length;
  return {
    value: scores.data.reduce((sum, x, at) => sum + value(x, at), 0) / size,
    gradient: tensor(scores.shape, scores.data.map((x, at) => slope(x, at) / size)),
  };
}
