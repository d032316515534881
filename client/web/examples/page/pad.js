// A pad to draw on with pointer or finger, white on black as the data set has it, and the picture made small.

export function pad(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const clear = () => {
    context.fillStyle = "black";
    context.fillRect(0, 0, canvas.width, canvas.height);
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    Object.assign(context, { strokeStyle: "white", lineWidth: canvas.width / 13, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(...place(event));
  };
  canvas.onpointermove = (event) => {
    if (!event.buttons) return;
    context.lineTo(...place(event));
    context.stroke();
  };
  clear();
  return { clear, put: (picture) => context.drawImage(picture, 0, 0, canvas.width, canvas.height) };
}

/** The drawn part of a canvas in a box of 20/28 of the size, its centre of mass in the middle, as MNIST's digits are. */
export function centred(canvas, width, height) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [left, top, right, bottom, mass, x, y] = [canvas.width, canvas.height, 0, 0, 0, 0, 0];
  for (let at = 0; at < data.length; at += 4) {
    const light = data[at];
    if (light < 32) continue;
    const [column, row] = [(at / 4) % canvas.width, Math.floor(at / 4 / canvas.width)];
    [left, right, top, bottom] = [Math.min(left, column), Math.max(right, column + 1), Math.min(top, row), Math.max(bottom, row + 1)];
    [mass, x, y] = [mass + light, x + light * column, y + light * row];
  }
  const small = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  small.fillRect(0, 0, width, height);
  if (mass) {
    const scale = (20 / 28) * Math.min(width / (right - left), height / (bottom - top));
    small.imageSmoothingQuality = "high";
    const [atX, atY] = [width / 2 - scale * (x / mass - left), height / 2 - scale * (y / mass - top)];
    small.drawImage(canvas, left, top, right - left, bottom - top, atX, atY, scale * (right - left), scale * (bottom - top));
  }
  return small.getImageData(0, 0, width, height);
}
