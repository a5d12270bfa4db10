// A canvas to draw on with mouse, finger or pen: light lines on black. The picture becomes the
// component's value (a PNG's address) whenever a line ends.
const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
let last = null, empty = true;
const blacken = () => {
  pen.fillStyle = "black";
  pen.fillRect(0, 0, canvas.width, canvas.height);
};
const clear = () => {
  blacken();
  pen.fillStyle = "#8a8a8a";
  pen.font = "16px sans-serif";
  pen.textAlign = "center";
  pen.fillText("draw here", canvas.width / 2, canvas.height / 2);
  empty = true;
};
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * canvas.width) / box.width,
    ((event.clientY - box.top) * canvas.height) / box.height,
  ];
};
const draw = (event) => {
  if (empty) blacken();
  const now = place(event);
  pen.strokeStyle = "#fcb519";
  pen.lineWidth = Number(element.querySelector("input").value);
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...(last || now));
  pen.lineTo(...now);
  pen.stroke();
  last = now;
  empty = false;
};
const tell = () => {
  props.value = empty ? "" : canvas.toDataURL("image/png");
};
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = null;
  draw(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (last) draw(event);
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => {
    if (!last) return;
    last = null;
    tell();
  });
}
element.querySelector("button").addEventListener("click", () => {
  clear();
  tell();
});
clear();
