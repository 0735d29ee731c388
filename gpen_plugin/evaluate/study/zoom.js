// Two images large: side by side, or one in the place of the other while it is held.

class Zoom {
  constructor(dialog) {
    this.dialog = dialog;
    this.sides = ["left", "right"].map((id) => dialog.querySelector(`#${id}`));
    this.held = false;
    dialog.querySelector("#close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("keydown", (event) => this.press(event));
    dialog.addEventListener("keyup", (event) => event.key === " " && this.hold(false));
    this.sides.forEach((side) => {
      side.querySelector("img").addEventListener("pointerdown", () => this.hold(true));
      side.querySelector("img").addEventListener("contextmenu", (event) => event.preventDefault());
    });
    for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => this.hold(false));
  }

  // images: [{label, source}]; one and other: which of them are shown.
  open(images, one, other) {
    this.images = images;
    this.shown = [one, other];
    this.sides.forEach((side, at) => {
      const choices = images.map(({ label }, choice) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = label;
        button.addEventListener("click", () => this.choose(at, choice));
        return button;
      });
      side.querySelector("figcaption").replaceChildren(...choices);
    });
    this.draw();
    this.dialog.showModal();
  }

  choose(side, index) {
    this.shown[side] = index;
    this.draw();
  }

  hold(held) {
    if (this.held === held || !this.dialog.open) return;
    this.held = held;
    this.draw();
  }

  press(event) {
    const turn = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (turn) {
      const side = event.shiftKey ? 1 : 0;
      this.choose(side, (this.shown[side] + turn + this.images.length) % this.images.length);
    } else if (event.key === " ") {
      this.hold(true);
    } else if (event.key.toLowerCase() === "z") {
      this.dialog.close();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  draw() {
    this.sides.forEach((side, at) => {
      const { source, label } = this.images[this.shown[this.held ? 1 - at : at]];
      Object.assign(side.querySelector("img"), { src: source, alt: label });
      side.querySelectorAll("button").forEach((button, choice) => {
        button.setAttribute("aria-pressed", String(choice === this.shown[at]));
      });
    });
  }
}
