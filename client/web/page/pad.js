// The drawing area: strokes by pointer or keyboard, or an image instead. Light ink on black, like the training data.

const INK = "#fbf1dc";
const WIDTH = 0.085; // of the side
const STEP = 0.05;
const FINE_STEP = 0.015;
const EXPORT_SIDE = 280;

export class Pad {
  /** Calls `changed` when a stroke was completed or removed, `confirmed` on Enter, `tell` with the state of the pen. */
  constructor(canvas, { changed, confirmed, tell }) {
    Object.assign(this, { canvas, changed, confirmed, tell });
    this.draws = true;
    this.strokes = [];
    this.image = null;
    this.pointer = null;
    this.pen = { x: 0.5, y: 0.25, down: false, shown: false };
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.end(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.enter());
    canvas.addEventListener("blur", () => this.leave());
    this.draw();
  }

  get isEmpty() {
    return !this.strokes.length && !this.image;
  }

  /** Accepts strokes and images, or only images. */
  setDraws(draws) {
    this.draws = draws;
    this.canvas.classList.toggle("fixed", !draws);
    this.canvas.tabIndex = draws ? 0 : -1;
    this.canvas.setAttribute("role", draws ? "application" : "img");
    this.canvas.setAttribute("aria-label", draws ? "Draw a digit" : "The chosen image");
    if (draws) this.canvas.setAttribute("aria-roledescription", "drawing area");
    else this.canvas.removeAttribute("aria-roledescription");
  }

  /** Shows an image, an ImageBitmap or a canvas, in place of a drawing. */
  show(image) {
    this.strokes = [];
    this.pen.down = false;
    this.image = image;
    this.draw();
  }

  clear() {
    this.show(null);
    this.changed();
  }

  undo() {
    this.pen.down = false;
    if (this.image) this.image = null;
    else this.strokes.pop();
    this.draw();
    this.changed();
  }

  /** The drawing as ImageData, without the pen. */
  pixels() {
    const copy = Object.assign(document.createElement("canvas"), { width: EXPORT_SIDE, height: EXPORT_SIDE });
    const context = copy.getContext("2d", { willReadFrequently: true });
    this.paint(context, EXPORT_SIDE);
    return context.getImageData(0, 0, EXPORT_SIDE, EXPORT_SIDE);
  }

  begin(event) {
    if (!this.draws || this.pointer !== null || event.button !== 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.pen.shown = false;
    this.start(this.place(event));
  }

  go(event) {
    if (event.pointerId !== this.pointer) return;
    for (const part of event.getCoalescedEvents?.() ?? [event]) this.strokes.at(-1).push(this.place(part));
    this.draw();
  }

  end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.changed();
  }

  key(event) {
    const step = event.shiftKey ? FINE_STEP : STEP;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (!this.draws) return;
    if (event.key === "Enter") this.lift().then(() => this.confirmed());
    else if (event.key === " ") this.pen.down ? this.lift() : this.lower();
    else if (event.key === "Escape") this.lift();
    else if (event.key === "Backspace" || event.key === "Delete") this.undo();
    else if (event.key in moves) this.move(...moves[event.key]);
    else return;
    event.preventDefault();
    this.draw();
  }

  lower() {
    this.pen.down = this.pen.shown = true;
    this.tell("Pen down.");
    this.start([this.pen.x, this.pen.y]);
  }

  async lift() {
    if (!this.pen.down) return;
    this.pen.down = false;
    this.tell("Pen up.");
    await this.changed();
  }

  move(right, down) {
    this.pen.shown = true;
    this.pen.x = Math.min(Math.max(this.pen.x + right, 0), 1);
    this.pen.y = Math.min(Math.max(this.pen.y + down, 0), 1);
    if (this.pen.down) this.strokes.at(-1).push([this.pen.x, this.pen.y]);
  }

  /** Shows the pen when the focus came by keyboard. */
  enter() {
    this.pen.shown = this.draws && this.canvas.matches(":focus-visible");
    this.draw();
  }

  leave() {
    this.pen.shown = false;
    this.lift();
    this.draw();
  }

  start(point) {
    this.image = null;
    this.strokes.push([point]);
    this.draw();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  draw() {
    const side = this.canvas.width;
    const context = this.canvas.getContext("2d");
    this.paint(context, side);
    if (!this.pen.shown) return;
    context.beginPath();
    context.arc(this.pen.x * side, this.pen.y * side, (WIDTH / 2) * side, 0, 2 * Math.PI);
    context.strokeStyle = "#54cdbb";
    context.lineWidth = 0.008 * side;
    if (this.pen.down) {
      context.fillStyle = "#54cdbb";
      context.fill();
    }
    context.stroke();
  }

  paint(context, side) {
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
    if (this.image) {
      const { width, height } = this.image;
      const factor = side / Math.max(width, height);
      context.imageSmoothingEnabled = width > side;
      context.drawImage(
        this.image, (side - width * factor) / 2, (side - height * factor) / 2, width * factor, height * factor,
      );
      return;
    }
    Object.assign(context, { strokeStyle: INK, lineWidth: WIDTH * side, lineCap: "round", lineJoin: "round" });
    for (const stroke of this.strokes) {
      context.beginPath();
      context.moveTo(stroke[0][0] * side - 0.1, stroke[0][1] * side); // a line of no length would draw no dot
      for (const [x, y] of stroke) context.lineTo(x * side, y * side);
      context.stroke();
    }
  }
}
