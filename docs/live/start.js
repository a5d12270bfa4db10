// Draws the live figures of a page: <figure data-live="levelLine"></figure>.

"use strict";

for (const figure of document.querySelectorAll("[data-live]")) {
  figure.replaceChildren();
  globalThis.live[figure.dataset.live].draw(figure);
}
