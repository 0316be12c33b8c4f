// A network too large for a graph: for each layer a card with pictures of what it gives, of the gradient there, and
// of the weights of one unit. Click a number in a picture, or walk to it with the arrow keys and press Enter.
'use strict';

class Cards {
  constructor(net, room, select) {
    this.select = select;
    this.root = element('div');
    this.room = Math.min(room, 520);
    this.cards = [this.inputCard(net), ...net.steps.map((step, l) => this.layerCard(net, step, l))];
    this.root.append(...this.cards.map((card) => card.box));
  }

  inputCard(net) {
    const { x } = net.steps[0], shape = x.shape.slice(1);
    const pixel = (now, u) => now.steps[0].x.data[now.example * ofOne(x) + u];
    const value = this.picture('input', shape, (now, u) => `${outputName(now, -1, u)} = ${shown(pixel(now, u))}`);
    const grad = this.picture('dL/d input', shape, (now, u) => this.words(now, { of: 'gradient', l: 0, u }),
      (u) => this.select({ of: 'gradient', l: 0, u }));
    const box = element('div', { class: 'layer' }, element('h3', { text: 'input' }), element('div', { class: 'pair' }, value.figure, grad.figure));
    return {
      box,
      update: (now, shows, frame) => {
        value.show(this.ofExample(now, now.steps[0].x), `The input, ${shape.join('×')}`);
        this.showOrNot(grad, shows({ of: 'gradient', l: 0, u: 0 }), () => this.ofExample(now, now.steps[0].gradX), 'dL/d input');
        box.classList.toggle('current', frame.phase === 'start' || (frame.l === 0 && frame.part === 'input'));
      },
    };
  }

  layerCard(net, step, l) {
    const { layer } = step, shape = step.y.shape.slice(1);
    const last = l === net.steps.length - 1;
    const back = (u) => (last ? { of: 'score', u } : { of: 'gradient', l: l + 1, u });
    const value = this.picture(`${layer.name}, what it gives`, shape, (now, u) => this.words(now, { of: 'y', l, u }),
      (u) => { this.unitOf(l, u); this.select({ of: 'y', l, u }); });
    const grad = this.picture(`dL/d ${layer.name}`, shape, (now, u) => this.words(now, back(u)),
      (u) => { this.unitOf(l, u); this.select(back(u)); });
    const sizes = Object.entries(layer.parameters).map(([name, array]) => `${name} ${array.shape.join('×')}`);
    const box = element('div', { class: 'layer' },
      element('h3', { text: `${layer.name} (${layer.kind})` }),
      element('p', { class: 'formula', text: `${layer.formula}    ${layer.shapes}` }));
    if (layer.kind !== 'Flatten') box.append(element('div', { class: 'pair' }, value.figure, grad.figure));
    const weights = 'weight' in step.grads && layer.parameters.weight.shape.length > 1 && this.weights(net, step, l, box);
    if (weights) box.append(element('p', { class: 'quiet', text: sizes.join(', ') }));
    return {
      box,
      weights,
      update: (now, shows, frame) => {
        this.showOrNot(value, shows({ of: 'y', l, u: 0 }), () => this.ofExample(now, now.steps[l].y), `y: what it gives, ${shape.join('×')}`);
        const upstream = last ? now.loss.gradient : now.steps[l + 1].gradX;
        this.showOrNot(grad, shows(back(0)), () => this.ofExample(now, upstream), 'dL/dy, its upstream gradient');
        weights?.update?.(now, shows);
        box.classList.toggle('current', frame.l === l && (frame.phase === 'forward' || frame.phase === 'backward'));
      },
    };
  }

  // The weights into one unit as a picture of what they weigh, and the gradient of these.
  weights(net, { layer, x }, l, box) {
    const { weight } = layer.parameters, each = weight.data.length / weight.shape[0];
    const before = net.steps[l - 1];
    const image = layer.kind === 'Linear' && before?.layer.kind === 'Flatten' ? before.x.shape.slice(1) : [each];
    const shape = layer.kind === 'Conv2d' ? weight.shape.slice(1) : image;
    const made = { unit: 0 };
    const which = (k) => ({ of: 'parameter', l, name: 'weight', at: made.unit * each + k });
    const words = (now, k) => `${parameterName(now, which(k))} = ${shown(now.steps[l].layer.parameters.weight.data[which(k).at])}`;
    const value = this.picture(`${layer.name}.weight of one unit`, shape, words, (k) => this.select(which(k)));
    const grad = this.picture(`dL/d ${layer.name}.weight of one unit`, shape, (now, k) => this.words(now, which(k)), (k) => this.select(which(k)));
    const choice = element('input', { type: 'number', min: 0, max: weight.shape[0] - 1, value: 0, id: `unit-${l}`,
      onchange: () => { this.unitOf(l, Number(choice.value), true); } });
    box.append(
      element('p', { class: 'row' }, element('label', { for: `unit-${l}`, text: `Weights of unit (0 to ${weight.shape[0] - 1})` }), choice),
      element('div', { class: 'pair' }, value.figure, grad.figure));
    made.update = (now, shows) => {
      const part = (array) => array.slice(made.unit * each, (made.unit + 1) * each);
      choice.value = made.unit;
      value.show(part(now.steps[l].layer.parameters.weight.data), `weights of unit ${made.unit}: the darker, the larger`);
      this.showOrNot(grad, shows(which(0)), () => part(now.steps[l].grads.weight), `dL/d of these weights`);
    };
    return made;
  }

  // Show the weights of the unit that output u of layer l belongs to.
  unitOf(l, u, isUnit = false) {
    const made = this.cards[l + 1].weights;
    if (!made || !this.now) return;
    const { y, layer } = this.now.steps[l], units = layer.parameters.weight.shape[0];
    const unit = isUnit ? u : layer.kind === 'Conv2d' ? Math.floor(u / count(y.shape.slice(2))) : u % units;
    made.unit = Math.min(Math.max(Math.round(unit) || 0, 0), units - 1);
    made.update(this.now, this.shows);
  }

  picture(label, shape, words, choose) {
    const say = (index) => (this.now ? words(this.now, index) : '');
    return new Picture({ label, shape, cell: shape.length === 1 ? 20 : 10, room: this.room, say, choose });
  }

  words(now, which) {
    return this.shows(which) ? `${nameOf(now, which)} = ${shown(numberOf(now, which))}` : `${nameOf(now, which)}: not known yet`;
  }

  ofExample(now, array) {
    const size = ofOne(array);
    return array.data.subarray(now.example * size, (now.example + 1) * size);
  }

  showOrNot(picture, visible, values, words) {
    const found = visible && values();
    if (found) picture.show(found, `${words}; largest ${shown(found.reduce((m, v) => Math.max(m, Math.abs(v)), 0), 3)}`);
    else picture.show(null, `${words}: not known yet`, 1);
  }

  update(net, shows, frame, chosen) {
    Object.assign(this, { now: net, shows });
    if (chosen?.of === 'parameter' && chosen.name === 'weight') {
      const made = this.cards[chosen.l + 1].weights, { weight } = net.steps[chosen.l].layer.parameters;
      if (made) made.unit = Math.floor(chosen.at / (weight.data.length / weight.shape[0]));
    }
    for (const card of this.cards) card.update(net, shows, frame);
  }
}
