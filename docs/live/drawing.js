// What the live figures have in common: an SVG that follows the page's colours, and sliders.

"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** An element of an SVG with attributes, appended to a parent. */
  function shape(parent, name, attributes, text) {
    const found = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    if (text !== undefined) found.textContent = text;
    parent.append(found);
    return found;
  }

  /** An empty drawing of so many units, as wide as the page lets it be. */
  function drawing(figure, width, height, label) {
    const found = document.createElementNS(SVG, "svg");
    const about = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label };
    for (const [key, value] of Object.entries(about)) found.setAttribute(key, value);
    figure.append(found);
    return found;
  }

  /** A slider with its name and its value in words; `told` is called with each new value. */
  function slider(figure, name, range, words, told) {
    const label = document.createElement("label");
    const text = document.createElement("span");
    const input = document.createElement("input");
    const value = document.createElement("output");
    text.textContent = name;
    Object.assign(input, { type: "range", step: "any", ...range });
    const changed = () => {
      value.textContent = words(Number(input.value));
      told(Number(input.value));
    };
    input.addEventListener("input", changed);
    label.append(text, input, value);
    figure.append(label);
    value.textContent = words(Number(input.value));
  }

  /** A line of text below a figure that says what is seen. */
  function caption(figure) {
    const found = document.createElement("figcaption");
    found.setAttribute("aria-live", "polite");
    figure.append(found);
    return found;
  }

  /** Points [x, y] as the path of a line. */
  function path(points) {
    return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");
  }

  globalThis.live = { shape, drawing, slider, caption, path };
})();
