// A pad to draw on with pointer or finger.

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
  return {
    clear,
    put: (image) => context.drawImage(image, 0, 0, canvas.width, canvas.height),
    pixels: () => context.getImageData(0, 0, canvas.width, canvas.height),
  };
}
