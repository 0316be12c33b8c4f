// A small network as a graph: a column of units for the input and for each layer, an edge for each weight.
// Forward values stand in the circles, dL/d(value) below them; edges carry weight and gradient. Minus is dashed.
'use strict';

const RADIUS = 27, BETWEEN_UNITS = 122, BETWEEN_COLUMNS = 118;
const SMALL = 12; // units of a layer that a graph still shows well
const MOST_LABELS = 8; // between two layers; with more edges only those that are asked about have their numbers

const isSmall = (net) =>
  [net.steps[0].x, ...net.steps.map((step) => step.y)].every((array) => ofOne(array) <= SMALL) &&
  net.steps.every(({ layer }) => !['Conv2d', 'MaxPool2d', 'AvgPool2d'].includes(layer.kind));

function svg(tag, attributes = {}, ...content) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
}

class Graph {
  constructor(net, room, select) {
    this.select = select;
    const columns = [net.steps[0].x, ...net.steps.map((step) => step.y)].map(ofOne);
    // On a phone from top to bottom, where the units fit side by side.
    const narrow = Math.floor((room - 8) / Math.max(...columns));
    this.upright = room < 700 && narrow >= 68;
    const between = this.upright ? Math.min(narrow, BETWEEN_UNITS) : BETWEEN_UNITS;
    const breadth = Math.max(...columns) * between + (this.upright ? 4 : 34);
    // What the other columns leave over is for the edges that carry weights.
    const linear = net.steps.filter(({ layer }) => layer.kind === 'Linear').length;
    const fixed = (net.steps.length - linear + 1) * BETWEEN_COLUMNS + 100;
    const wide = this.upright ? 250 : Math.min(Math.max((room - fixed) / linear, 220), 330);
    const gaps = net.steps.map(({ layer }) => (layer.kind === 'Linear' ? wide : BETWEEN_COLUMNS));
    const length = gaps.reduce((sum, gap) => sum + gap, 0) + BETWEEN_COLUMNS + 100;
    const along = (column) => 50 + gaps.slice(0, column).reduce((sum, gap) => sum + gap, 0);
    const across = (units, u) => breadth / 2 + 6 + (u - (units - 1) / 2) * between;
    this.point = (column, u, units = columns[column]) => {
      const [a, b] = [along(column), across(units, u)];
      return this.upright ? [b - 6, a + 16] : [a, b];
    };
    const last = along(columns.length - 1) + BETWEEN_COLUMNS;
    this.lossPoint = this.upright ? [breadth / 2, last + 16] : [last, breadth / 2 + 6];
    const [width, height] = this.upright ? [breadth, length + 20] : [length, breadth + 10];
    this.root = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': 'The network' });
    this.edges = svg('g');
    this.nodes = svg('g');
    this.labels = svg('g');
    this.root.append(this.edges, this.labels, this.nodes);
    this.parts = [];
    net.steps.forEach((step, l) => this.connect(net, step, l, columns));
    columns.forEach((units, column) => {
      for (let u = 0; u < units; u++) this.unit(net, column - 1, u);
    });
    this.loss(net, columns);
  }

  connect(net, { layer }, l, columns) {
    const [from, to] = [columns[l], columns[l + 1]];
    if (layer.kind === 'Linear') {
      for (let o = 0; o < to; o++) for (let i = 0; i < from; i++) this.weight(net, l, o, i, from, to);
    } else {
      const all = ['Softmax', 'LogSoftmax'].includes(layer.kind);
      for (let o = 0; o < to; o++) {
        for (let i = 0; i < from; i++) {
          if (all || i === o) this.line(this.point(l, i), this.point(l + 1, o), { class: 'plain' });
        }
      }
    }
  }

  line([x1, y1], [x2, y2], attributes) {
    const line = svg('line', { x1, y1, x2, y2, ...attributes });
    this.edges.append(line);
    return line;
  }

  weight(net, l, o, i, from, to) {
    const which = { of: 'parameter', l, name: 'weight', at: o * from + i };
    const ends = [this.point(l, i), this.point(l + 1, o)];
    const line = this.line(...ends, {});
    const hit = this.line(...ends, { class: 'hit' });
    const [near, far] = this.upright ? [0.18, 0.7] : [0.2, 0.78]; // no two labels side by side
    const t = from * to === 1 ? 0.5 : near + ((far - near) * (o * from + i)) / (from * to - 1);
    const [x, y] = [0, 1].map((axis) => ends[0][axis] + (ends[1][axis] - ends[0][axis]) * t);
    const value = svg('text', { x, y: y - 1 }), grad = svg('text', { x, y: y + 12, class: 'grad' });
    const group = svg('g', { class: 'edge' }, hit, line);
    this.edges.append(group);
    const label = svg('g', { class: 'label' }, value, grad);
    this.labels.append(label);
    this.button(group, which);
    this.button(label, which, false);
    const isCurrent = (frame) => frame.l === l && frame.phase !== 'start'
      && (frame.phase === 'forward' ? (frame.u ?? o) === o
        : frame.part === undefined || (frame.part === 'weight' && (frame.u ?? o) === o)
          || (frame.part === 'input' && (frame.u ?? i) === i));
    if (from * to > MOST_LABELS) {
      let under = false;
      const show = (frame, chosen) => {
        const asked = under || same(which, chosen) || (frame.u !== undefined && isCurrent(frame));
        label.style.visibility = asked ? 'visible' : 'hidden';
      };
      const look = (on) => () => { under = on; show(this.frame, this.chosen); };
      for (const [event, on] of [['pointerenter', true], ['focus', true], ['pointerleave', false], ['blur', false]]) {
        group.addEventListener(event, look(on));
      }
      this.parts.push((now, shows, frame, chosen) => show(frame, chosen));
    }
    this.parts.push((now, shows) => {
      const { weight } = now.steps[l].layer.parameters;
      const w = weight.data[which.at], most = weight.data.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-9);
      line.setAttribute('class', w < 0 ? 'minus' : 'plus');
      line.style.strokeWidth = 1 + (4 * Math.abs(w)) / most;
      value.textContent = shown(w, 3);
      grad.textContent = shows(which) ? `g ${signed(numberOf(now, which), 3)}` : '';
      const said = shows(which) ? `, gradient ${shown(numberOf(now, which))}` : '';
      group.setAttribute('aria-label', `weight ${parameterName(now, which)} is ${shown(w)}${said}`);
    });
    this.mark(group, [which], isCurrent);
  }

  unit(net, l, u) {
    const [cx, cy] = this.point(l + 1, u);
    const circle = svg('circle', { cx, cy, r: RADIUS });
    const name = svg('text', { x: cx, y: cy - RADIUS - 5, class: 'name' });
    const value = svg('text', { x: cx, y: cy + 4, class: 'value' });
    const grad = svg('text', { x: cx, y: cy + RADIUS + 14, class: 'grad' });
    const group = svg('g', { class: 'unit' }, circle, name, value, grad);
    this.nodes.append(group);
    const last = l === net.steps.length - 1;
    const forward = { of: 'y', l, u }, back = last ? { of: 'score', u } : { of: 'gradient', l: l + 1, u };
    this.button(group, { either: [forward, back] });
    name.textContent = outputName(net, l, u);
    this.parts.push((now, shows) => {
      const input = () => now.steps[0].x.data[now.example * ofOne(now.steps[0].x) + u];
      const y = l < 0 ? input() : shows(forward) ? numberOf(now, forward) : null;
      value.textContent = y === null ? '?' : shown(y, 3);
      circle.setAttribute('class', y === null ? 'unknown' : y < 0 ? 'minus' : 'plus');
      grad.textContent = shows(back) ? `g ${signed(numberOf(now, back), 3)}` : '';
      const said = shows(back) ? `, gradient ${shown(numberOf(now, back))}` : '';
      group.setAttribute('aria-label', `${outputName(now, l, u)} is ${y === null ? 'not known yet' : shown(y)}${said}`);
    });
    this.mark(group, [forward, back], (frame) => (frame.l === l && frame.part === 'bias' && (frame.u ?? u) === u)
      || (frame.phase === 'forward' && frame.l === l && (frame.u ?? u) === u)
      || (frame.phase === 'score' && last && (frame.u ?? u) === u)
      || (frame.phase === 'backward' && frame.l === l + 1 && [undefined, 'input'].includes(frame.part) && (frame.u ?? u) === u));
  }

  loss(net, columns) {
    const [cx, cy] = this.lossPoint;
    for (let u = 0; u < columns.at(-1); u++) this.line(this.point(columns.length - 1, u), this.lossPoint, { class: 'plain' });
    const value = svg('text', { x: cx, y: cy + 4, class: 'value' });
    const box = svg('rect', { x: cx - RADIUS - 4, y: cy - RADIUS, width: 2 * RADIUS + 8, height: 2 * RADIUS });
    const name = svg('text', { x: cx, y: cy - RADIUS - 5, class: 'name' });
    name.textContent = 'loss';
    const group = svg('g', { class: 'unit' }, box, name, value);
    this.nodes.append(group);
    this.button(group, { of: 'loss' });
    this.parts.push((now, shows) => {
      value.textContent = shows({ of: 'loss' }) ? shown(now.loss.value, 3) : '?';
      group.setAttribute('aria-label', `loss, ${value.textContent === '?' ? 'not known yet' : shown(now.loss.value)}`);
    });
    this.mark(group, [{ of: 'loss' }], (frame) => frame.phase === 'loss');
  }

  // Let a part be chosen by mouse, and by Enter or Space where it can have the focus. A unit stands for two
  // numbers: once backward has reached it, for its gradient.
  button(group, which, focusable = true) {
    const choose = () => this.select(which.either ? which.either[this.shows?.(which.either[1]) ? 1 : 0] : which);
    group.addEventListener('click', choose);
    if (!focusable) return;
    group.setAttribute('tabindex', '0');
    group.setAttribute('role', 'button');
    group.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      choose();
    });
  }

  // Let a part stand out while it is what the frame computes, and while one of its numbers is chosen.
  mark(group, numbers, isCurrent) {
    this.parts.push((now, shows, frame, chosen) => {
      group.classList.toggle('current', isCurrent(frame));
      group.classList.toggle('chosen', numbers.some((which) => same(which, chosen)));
    });
  }

  update(net, shows, frame, chosen) {
    Object.assign(this, { shows, frame, chosen });
    for (const part of this.parts) part(net, shows, frame, chosen);
  }
}

const same = (a, b) => Boolean(a && b) && ['of', 'l', 'u', 'name', 'at'].every((key) => a[key] === b[key]);
