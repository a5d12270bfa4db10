// A network of two inputs, the line on which its answer stays, and its gradient along that line.

"use strict";

(() => {
  const { caption, drawing, path, shape, slider } = globalThis.live;

  // One hidden layer: the answer is the sum of weight * softplus(direction . x - offset).
  const UNITS = [
    { angle: 0.2, weight: 1.0, offset: 0.3 },
    { angle: 1.3, weight: 1.4, offset: 0.5 },
    { angle: 2.6, weight: 0.9, offset: 0.2 },
    { angle: 3.7, weight: 1.2, offset: 0.4 },
    { angle: 5.1, weight: 1.1, offset: 0.4 },
  ].map(({ angle, ...rest }) => ({ u: Math.cos(angle), v: Math.sin(angle), ...rest }));
  const LEVEL = 1;
  const POINTS = 3600;

  /** Softplus and its derivative; those of ReLU for an infinite beta. */
  function softplus(z, beta) {
    if (beta === Infinity) return [Math.max(z, 0), z > 0 ? 1 : 0];
    const scaled = beta * z;
    const value = scaled > 30 ? z : Math.log1p(Math.exp(scaled)) / beta;
    return [value, 1 / (1 + Math.exp(-scaled))];
  }

  /** The answer at a point and its gradient: [g, dg/dx, dg/dy]. */
  function network(x, y, beta) {
    let [g, gx, gy] = [0, 0, 0];
    for (const { u, v, weight, offset } of UNITS) {
      const [value, slope] = softplus(u * x + v * y - offset, beta);
      // Less what all units say at rest, so that the level means the same for each beta.
      g += weight * (value - softplus(-offset, beta)[0]);
      gx += weight * slope * u;
      gy += weight * slope * v;
    }
    return [g, gx, gy];
  }

  /** The line around the centre on which the answer is LEVEL: points, lengths, normals' angles. */
  function levelLine(beta) {
    const line = [];
    let length = 0;
    for (let i = 0; i <= POINTS; i++) {
      const [c, s] = [Math.cos((2 * Math.PI * i) / POINTS), Math.sin((2 * Math.PI * i) / POINTS)];
      let [inside, outside] = [0, 20];
      for (let k = 0; k < 50; k++) {
        const middle = (inside + outside) / 2;
        if (network(middle * c, middle * s, beta)[0] < LEVEL) inside = middle;
        else outside = middle;
      }
      const [x, y] = [outside * c, outside * s];
      const [g, gx, gy] = network(x, y, beta);
      const before = line[line.length - 1];
      if (before) length += Math.hypot(x - before.x, y - before.y);
      line.push({ x, y, g, length, normal: Math.atan2(gy, gx) });
    }
    return line;
  }

  /** The angle between two directions, 0..pi. */
  function angleBetween(a, b) {
    const turned = Math.abs(a - b) % (2 * Math.PI);
    return turned > Math.PI ? 2 * Math.PI - turned : turned;
  }

  /** From a point of the line on: where one is after a distance, how far the normal has turned. */
  function walk(line, start, distance) {
    const end = line[start].length + distance;
    let [i, largest] = [start, 0];
    while (i < line.length - 1 && line[i].length < end) {
      const step = line[i + 1].length - line[i].length;
      largest = Math.max(largest, angleBetween(line[i + 1].normal, line[i].normal) / step);
      i += 1;
    }
    const went = line[i].length - line[start].length;
    return { to: line[i], turned: angleBetween(line[i].normal, line[start].normal), largest, went };
  }

  const degrees = (angle) => `${((180 * angle) / Math.PI).toFixed(0)}°`;

  /** Draw it into a figure, with its sliders. */
  function draw(figure) {
    const scale = 62;
    const place = ({ x, y }) => [220 + scale * x, 190 - scale * y];
    const picture = drawing(figure, 440, 380, "A line of equal answers and the gradient along it");
    const chosen = { beta: Infinity, share: 0.385, distance: 0.3 };
    const said = caption(figure);
    let line = levelLine(chosen.beta);

    function arrow(point, colour, name) {
      const [x, y] = place(point);
      const [dx, dy] = [Math.cos(point.normal), -Math.sin(point.normal)];
      const [tx, ty] = [x + 70 * dx, y + 70 * dy];
      const style = { stroke: colour, "stroke-width": 3, fill: "none" };
      shape(picture, "path", { ...style, d: path([[x, y], [tx, ty]]) });
      const side = (t) => [tx - 11 * dx - t * 6 * dy, ty - 11 * dy + t * 6 * dx];
      shape(picture, "path", { ...style, d: path([side(1), [tx, ty], side(-1)]) });
      shape(picture, "circle", { cx: x, cy: y, r: 5, fill: colour });
      const text = { x: x + 88 * dx - 6, y: y + 88 * dy + 5, fill: colour, "font-size": 17 };
      shape(picture, "text", text, name);
    }

    function show() {
      picture.replaceChildren();
      const start = Math.round(chosen.share * (POINTS / 2));
      const found = walk(line, start, chosen.distance);
      const thin = { stroke: "currentColor", fill: "none", "stroke-width": 1.5, opacity: 0.8 };
      shape(picture, "path", { ...thin, d: path(line.map(place)) });
      arrow(line[start], "#1565c0", "x");
      arrow(found.to, "#c62828", "x'");
      const bound =
        chosen.beta === Infinity
          ? "With ReLU it can turn by a whole corner at no distance."
          : `At most, by the largest curvature between them times the distance: ` +
            `${degrees(Math.min(Math.PI, found.largest * found.went))}.`;
      said.textContent =
        `Both answers are ${line[start].g.toFixed(4)} and ${found.to.g.toFixed(4)}; the gradient ` +
        `has turned by ${degrees(found.turned)}. ${bound}`;
    }

    const range = (min, max, value) => ({ min, max, value });
    const beta = (t) => (t >= 1 ? Infinity : 10 ** (2 * t));
    const betaWords = (t) => (t >= 1 ? "ReLU" : `softplus, β = ${beta(t).toPrecision(2)}`);
    slider(figure, "Activation", range(0, 1, 1), betaWords, (t) => {
      chosen.beta = beta(t);
      line = levelLine(chosen.beta);
      show();
    });
    slider(figure, "Place of x", range(0, 1, chosen.share), (t) => `${degrees(t * Math.PI)}`, (t) => {
      chosen.share = t;
      show();
    });
    slider(figure, "Distance of x'", range(0, 1.5, chosen.distance), (t) => t.toFixed(2), (t) => {
      chosen.distance = t;
      show();
    });
    figure.append(said);
    show();
  }

  globalThis.live.levelLine = { softplus, network, levelLine, angleBetween, walk, draw };
})();
