// The three screens: before, at a face, after. All that a voter does goes through change() or go().

const $ = (id) => document.getElementById(id);
const LETTERS = "ABCDEFGHIJKL";
const zoom = new Zoom($("zoom"));
let ballot = storedBallot() ?? newBallot();
let helping = false; // at the instructions again, in the middle of the work
let face = null; // what the step shows: {image, input, names in the order shown, sources}

const order = () => shuffled(SETTINGS.images, ballot.seed);
const content = (image) => JSON.parse($(`image-${image}`).textContent);
const shownOf = (image) => shuffled(Object.keys(content(image).images), `${ballot.seed}/${image}`);
const slotsNow = () => ballot.slots[face.image] ?? emptySlots(face.names);
const letter = (name) => LETTERS[face.names.indexOf(name)];
const complete = (image, slots = ballot.slots[image] ?? []) => slots.length > 0 && ranked(slots) === slots.length;
const say = (text) => ($("live").textContent = text);

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function save() {
  $("warning").hidden = keep(ballot);
}

function change(slots, text) {
  ballot.history = [...ballot.history, { image: face.image, slots: slotsNow() }].slice(-HISTORY);
  ballot.slots[face.image] = slots;
  save();
  drawRanking();
  const left = face.names.length - ranked(slots);
  say(`${text} ${left ? `${left} left.` : "All ranked: Enter goes to the next face."}`);
}

function toggle(name) {
  const slots = toggled(slotsNow(), name);
  const place = placeOf(slots, name);
  if (place < 0) change(slots, `${letter(name)} taken out.`);
  else change(slots, `${letter(name)} is at place ${place + 1}.`);
}

function put(name, place) {
  if (place < 0 || place >= face.names.length || placeOf(slotsNow(), name) === place) return;
  change(putAt(slotsNow(), name, place), `${letter(name)} is at place ${place + 1}.`);
}

function undo() {
  const last = ballot.history.findLastIndex((entry) => entry.image === face.image);
  if (last < 0) return say("Nothing to undo at this face.");
  ballot.slots[face.image] = ballot.history[last].slots;
  ballot.history.splice(last, 1);
  save();
  drawRanking();
  say("Undone.");
}

function go(step) {
  ballot.step = Math.min(Math.max(step, 0), SETTINGS.images.length);
  helping = false;
  save();
  draw();
  window.scrollTo(0, 0);
}

function draw() {
  const screen = helping || ballot.step < 0 ? "intro" : ballot.step < SETTINGS.images.length ? "task" : "thanks";
  for (const name of ["intro", "task", "thanks"]) $(name).hidden = name !== screen;
  face = null;
  drawProgress();
  $("help").hidden = screen === "intro";
  if (screen === "intro") drawIntro();
  if (screen === "task") drawTask();
  if (screen === "thanks") drawThanks();
  $(screen).focus({ preventScroll: true });
}

function drawIntro() {
  $("name").value = ballot.name;
  $("begin").textContent = ballot.step < 0 ? "Begin" : "Continue";
}

function drawThanks() {
  const done = SETTINGS.images.filter((image) => complete(image)).length;
  const left = SETTINGS.images.length - done;
  $("summary").textContent =
    `You have ranked ${done} of ${SETTINGS.images.length} faces.` + (left ? ` ${left} are not fully ranked.` : "");
  $("missing").hidden = left === 0;
}

function drawProgress() {
  const done = SETTINGS.images.filter((image) => complete(image)).length;
  const at = ballot.step >= 0 && ballot.step < SETTINGS.images.length;
  const total = SETTINGS.images.length;
  $("progress-text").textContent = at ? `Face ${ballot.step + 1} of ${total} · ${done} ranked` : `${done} of ${total} ranked`;
  $("progress").value = done;
}

function drawTask() {
  const image = order()[ballot.step];
  face = { image, names: shownOf(image), sources: sourcesOf(image) };
  $("step-title").textContent = `Face ${ballot.step + 1} of ${SETTINGS.images.length}`;
  const tiles = face.names.map((name, at) =>
    make("div", { className: "cell" }, tile(name, at), magnifier(name, `Magnify ${LETTERS[at]}`)),
  );
  if (face.sources.input) {
    const image = make("img", { src: face.sources.input, alt: "The damaged photograph", draggable: false });
    const caption = make("span", { className: "letter", textContent: "damaged" });
    const figure = make("div", { className: "input" }, image, caption);
    tiles.unshift(make("div", { className: "cell" }, figure, magnifier("input", "Magnify the damaged photograph")));
  }
  $("tiles").replaceChildren(...tiles);
  $("back").disabled = ballot.step === 0;
  drawRanking();
  fit();
  const coming = order()[ballot.step + 1];
  if (coming) for (const source of Object.values(sourcesOf(coming))) new Image().src = source;
}

function sourcesOf(image) {
  const { input, images } = content(image);
  const all = input ? { input, ...images } : images;
  const uri = (data) => `data:${IMAGE_KIND};base64,${data}`;
  return Object.fromEntries(Object.entries(all).map(([name, data]) => [name, uri(data)]));
}

function tile(name, at) {
  const button = make(
    "button",
    { type: "button", className: "tile" },
    make("img", { src: face.sources[name], alt: "", draggable: false }),
    make("span", { className: "letter", textContent: LETTERS[at] }),
    make("span", { className: "rank" }),
  );
  button.dataset.image = name;
  button.addEventListener("click", () => toggle(name));
  return button;
}

function magnifier(name, label) {
  const glass = $("glass").content.cloneNode(true);
  const button = make("button", { type: "button", className: "magnify", title: `${label} (Z)` }, glass);
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => magnify(name));
  return button;
}

function drawRanking() {
  const slots = slotsNow();
  for (const button of document.querySelectorAll(".tile")) {
    const place = placeOf(slots, button.dataset.image);
    button.querySelector(".rank").textContent = place < 0 ? "" : place + 1;
    button.setAttribute("aria-pressed", String(place >= 0));
    const text = place < 0 ? "not ranked" : `at place ${place + 1}`;
    button.setAttribute("aria-label", `Image ${letter(button.dataset.image)}, ${text}`);
  }
  $("slots").replaceChildren(...slots.map(slotItem));
  const done = complete(face.image, slots);
  const last = ballot.step === SETTINGS.images.length - 1;
  $("next").textContent = done ? (last ? "Finish" : "Next →") : "Skip →";
  $("next").classList.toggle("main", done);
  $("undo").disabled = !ballot.history.some((entry) => entry.image === face.image);
  drawProgress();
}

function slotItem(names, place, slots) {
  const end = place === 0 ? " best" : place === slots.length - 1 ? " worst" : "";
  const number = make("span", { className: "place", textContent: `${place + 1}${end}` });
  const box = make("div", { className: "box" }, ...names.map((name) => thumb(name, place)));
  const item = make("li", { className: "slot" }, number, box);
  item.dataset.place = place;
  return item;
}

function thumb(name, place) {
  const image = make("img", { src: face.sources[name], alt: "", draggable: false });
  const mark = make("span", { className: "letter", textContent: letter(name) });
  const button = make("button", { type: "button", className: "thumb" }, image, mark);
  button.dataset.image = name;
  button.setAttribute("aria-label", `Place ${place + 1}: image ${letter(name)}. Click to take it out`);
  button.addEventListener("click", () => toggle(name));
  return button;
}

// As many columns as make the images largest without scrolling; two where that would make them too small.
function fit() {
  const cells = document.querySelectorAll(".cell").length;
  const gap = 8;
  const width = $("tiles").clientWidth;
  const height = window.innerHeight - $("tiles").offsetTop - $("bar").offsetHeight - 2 * gap;
  const side = (columns) => Math.min(width / columns, height / Math.ceil(cells / columns)) - gap;
  const counts = Array.from({ length: cells }, (_, at) => at + 1);
  const columns = counts.reduce((best, count) => (side(count) > side(best) ? count : best));
  const fits = side(columns) >= 140;
  $("tiles").style.setProperty("--columns", fits ? columns : Math.max(2, Math.floor(width / 260)));
  $("tiles").style.setProperty("--side", fits ? `${Math.floor(side(columns))}px` : "1fr");
}

function magnify(name) {
  const names = face.sources.input ? [...face.names, "input"] : face.names;
  const images = names.map((one) => ({ label: letter(one) ?? "damaged", source: face.sources[one] }));
  const one = names.indexOf(name);
  const rival = slotsNow().flat().findLast((other) => other !== name) ?? face.names.find((other) => other !== name);
  zoom.open(images, one, names.indexOf(rival));
}

function exportVotes() {
  const text = JSON.stringify(exportOf(ballot, order(), shownOf), null, 1);
  download(`${text}\n`, fileName(ballot));
  say("Votes exported.");
}

function startAnew() {
  if (!confirm("This removes the votes above from this browser. Have they been exported?")) return;
  ballot = newBallot();
  save();
  draw();
}

// Keys at a face. Letters and numbers work wherever the focus is; arrows go from image to image.

function press(event) {
  if (!face || zoom.dialog.open || event.altKey || event.metaKey) return;
  if (act(event, document.activeElement)) event.preventDefault();
}

function act(event, at) {
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  if (event.ctrlKey) return key === "Z" && (undo(), true);
  const named = face.names[LETTERS.indexOf(key)];
  const image = at.dataset.image ?? document.querySelector(".tile:hover")?.dataset.image;
  if (key.length === 1 && named) return toggle(named), true;
  if (/^[1-9]$/.test(key)) return image ? put(image, Number(key) - 1) : say("Go to an image first."), true;
  if (key === "Z") return magnify(image ?? face.names[0]), true;
  if (key === "Backspace") return undo(), true;
  if (key === "PageDown") return go(ballot.step + 1), true;
  if (key === "PageUp") return go(ballot.step - 1), true;
  const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if (turn) return move(at, ...turn), true;
  const free = at.classList.contains("tile") || at === $("task") || at === document.body;
  if (key === "Enter" && free && complete(face.image)) return go(ballot.step + 1), true;
  return false;
}

function move(at, across, down) {
  if (at.classList.contains("thumb")) {
    const name = at.dataset.image;
    put(name, placeOf(slotsNow(), name) + across);
    document.querySelector(`.thumb[data-image="${name}"]`).focus();
    return;
  }
  const tiles = [...document.querySelectorAll(".tile")];
  const from = tiles.indexOf(at);
  const columns = Number($("tiles").style.getPropertyValue("--columns"));
  const to = from < 0 ? 0 : from + across + down * columns;
  tiles[to]?.focus();
}

$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  ballot.name = $("name").value.trim();
  go(Math.max(ballot.step, 0));
});
$("name").addEventListener("change", () => {
  ballot.name = $("name").value.trim();
  save();
});
$("help").addEventListener("click", () => {
  helping = true;
  draw();
});
$("export").addEventListener("click", exportVotes);
$("export-last").addEventListener("click", exportVotes);
$("back").addEventListener("click", () => go(ballot.step - 1));
$("next").addEventListener("click", () => go(ballot.step + 1));
$("undo").addEventListener("click", undo);
$("missing").addEventListener("click", () => go(order().findIndex((image) => !complete(image))));
$("review").addEventListener("click", () => go(SETTINGS.images.length - 1));
$("another").addEventListener("click", startAnew);
window.addEventListener("resize", () => face && fit());
window.addEventListener("storage", (event) => {
  if (event.key !== STORE || zoom.dialog.open) return;
  ballot = storedBallot() ?? newBallot(); // the page is open in two windows
  draw();
});
document.addEventListener("keydown", press);
enableDragging("[data-image]", put);
save();
draw();
