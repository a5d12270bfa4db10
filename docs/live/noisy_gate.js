// Softplus' gate, and the mean of ReLU's gate over noise: Theorem 2, for one unit.

"use strict";

(() => {
  const { caption, drawing, path, shape, slider } = globalThis.live;

  /** Numbers within 0..1 that are the same on each visit (a 32-bit xorshift). */
  function uniforms(count, seed = 2463534242) {
    const found = [];
    for (let i = 0; i < count; i++) {
      seed ^= seed << 13;
      seed ^= seed >>> 17;
      seed ^= seed << 5;
      found.push(((seed >>> 0) + 0.5) / 2 ** 32);
    }
    return found;
  }

  /** Noise whose distribution function is the sigmoid of beta times it. */
  function noise(uniform, beta) {
    return Math.log(uniform / (1 - uniform)) / beta;
  }

  /** The share of noisy copies of z that are positive: the mean of ReLU's derivative. */
  function meanGate(z, draws) {
    return draws.filter((e) => z + e > 0).length / draws.length;
  }

  /** Softplus' derivative. */
  function sigmoid(z) {
    return 1 / (1 + Math.exp(-z));
  }

  /** Draw it into a figure, with its sliders. */
  function draw(figure) {
    const picture = drawing(figure, 440, 240, "The gate of softplus beside ReLU's mean over noise");
    const chosen = { beta: 2, count: 30 };
    const said = caption(figure);
    const place = (z, gate) => [220 + 62 * z, 210 - 180 * gate];
    const grid = Array.from({ length: 321 }, (_, i) => -3.2 + i / 50);

    function show() {
      picture.replaceChildren();
      const draws = uniforms(chosen.count).map((u) => noise(u, chosen.beta));
      const thin = { stroke: "currentColor", opacity: 0.35, fill: "none" };
      for (const gate of [0, 1]) {
        shape(picture, "path", { ...thin, d: path([place(-3.2, gate), place(3.2, gate)]) });
        const [x, y] = place(-3.4, gate);
        shape(picture, "text", { x, y: y + 5, fill: "currentColor", "font-size": 14 }, gate);
      }
      const axis = { x: 412, y: 230, fill: "currentColor", "font-size": 14 };
      shape(picture, "text", axis, "z");
      const lines = [
        [grid.map((z) => [z, meanGate(z, draws)]), "#c62828", 1.5],
        [grid.map((z) => [z, sigmoid(chosen.beta * z)]), "#1565c0", 3],
      ];
      for (const [points, stroke, width] of lines) {
        const d = path(points.map(([z, gate]) => place(z, gate)));
        shape(picture, "path", { d, stroke, "stroke-width": width, fill: "none" });
      }
      const off = Math.max(...grid.map((z) => Math.abs(meanGate(z, draws) - sigmoid(chosen.beta * z))));
      said.textContent =
        `Blue: the derivative of softplus with β = ${chosen.beta.toFixed(1)}. Red: the mean of ` +
        `ReLU's derivative over ${chosen.count} noisy copies. They differ by ${off.toFixed(2)} at most.`;
    }

    slider(figure, "β", { min: 0.5, max: 10, value: 2 }, (t) => t.toFixed(1), (t) => {
      chosen.beta = t;
      show();
    });
    const count = (t) => Math.round(10 ** t);
    slider(figure, "Noisy copies", { min: 0, max: 4, value: 1.48 }, (t) => `${count(t)}`, (t) => {
      chosen.count = count(t);
      show();
    });
    figure.append(said);
    show();
  }

  globalThis.live.noisyGate = { uniforms, noise, meanGate, sigmoid, draw };
})();
