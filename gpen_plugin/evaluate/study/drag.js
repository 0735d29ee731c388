// Dragging an image to a place, by mouse, pen or finger. A finger on a tile scrolls; it drags after resting there.

const STIR = 8; // pixels that a click may move
const REST = 300; // milliseconds that a finger rests on a tile before it drags

// sources: what can be dragged (a selector; data-image names the image); drop(name, place) is called at the end.
function enableDragging(sources, drop) {
  let drag = null;

  const slotBelow = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest(".slot");

  function lift() {
    drag.ghost = drag.source.querySelector("img").cloneNode();
    drag.ghost.className = "ghost";
    document.body.append(drag.ghost);
    document.body.classList.add("dragging");
    follow(drag);
  }

  function follow({ clientX, clientY }) {
    drag.ghost.style.transform = `translate(${clientX}px, ${clientY}px) translate(-50%, -50%)`;
  }

  function mark(slot) {
    for (const other of document.querySelectorAll(".slot")) other.classList.toggle("target", other === slot);
  }

  function end() {
    if (!drag) return;
    clearTimeout(drag.timer);
    drag.ghost?.remove();
    document.body.classList.remove("dragging");
    mark(null);
    drag = null;
  }

  document.addEventListener("pointerdown", (event) => {
    const source = event.target.closest(sources);
    if (!source || event.button !== 0 || drag) return;
    const { pointerId, clientX, clientY } = event;
    drag = { source, name: source.dataset.image, pointerId, clientX, clientY, ghost: null, timer: null };
    drag.scrolls = event.pointerType === "touch" && !source.closest(".slot");
    if (drag.scrolls) drag.timer = setTimeout(lift, REST);
  });

  document.addEventListener("pointermove", (event) => {
    if (drag?.pointerId !== event.pointerId) return;
    const moved = Math.hypot(event.clientX - drag.clientX, event.clientY - drag.clientY) > STIR;
    if (!drag.ghost && moved && drag.scrolls) return end();
    if (!drag.ghost && moved) lift();
    if (!drag.ghost) return;
    follow(event);
    mark(slotBelow(event));
  });

  document.addEventListener("pointerup", (event) => {
    if (drag?.pointerId !== event.pointerId) return;
    const { ghost, name } = drag;
    const slot = ghost && slotBelow(event);
    end();
    if (!ghost) return;
    swallowClick();
    if (slot) drop(name, Number(slot.dataset.place));
  });

  document.addEventListener("pointercancel", end);
  document.addEventListener("keydown", (event) => event.key === "Escape" && end());
  document.addEventListener("touchmove", (event) => drag?.ghost && event.preventDefault(), { passive: false });
  document.addEventListener("contextmenu", (event) => event.target.closest(sources) && event.preventDefault());
}

// A browser takes the end of a drag for a click as well.
function swallowClick() {
  const swallow = (event) => {
    event.stopPropagation();
    event.preventDefault();
  };
  document.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => document.removeEventListener("click", swallow, { capture: true }), 50);
}
