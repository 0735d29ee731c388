// The ballot: what a voter has ranked so far, the rules of ranking, and where it is kept.

const STORE = `study-${SETTINGS.study}`;
const HISTORY = 300; // steps that can be undone

// A 32-bit hash (FNV-1a, then an avalanche), so that an order is a function of the voter's seed.
function scatter(text) {
  let hash = 0x811c9dc5;
  for (const letter of text) hash = Math.imul(hash ^ letter.charCodeAt(0), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function shuffled(names, salt) {
  const keyed = names.map((name) => [scatter(`${salt}/${name}`), name]);
  return keyed.sort((one, other) => one[0] - other[0] || (one[1] < other[1] ? -1 : 1)).map((pair) => pair[1]);
}

// step: -1 before the first face, 0 to n - 1 at a face, n after the last.
function newBallot() {
  const [voter, seed] = crypto.getRandomValues(new Uint32Array(2));
  const hex = (number) => number.toString(16).padStart(8, "0");
  return { voter: hex(voter), seed: hex(seed), name: "", step: -1, slots: {}, history: [] };
}

function storedBallot() {
  try {
    return JSON.parse(localStorage.getItem(STORE));
  } catch {
    return null;
  }
}

// Whether the browser kept it.
function keep(ballot) {
  try {
    localStorage.setItem(STORE, JSON.stringify(ballot));
    return true;
  } catch {
    return false;
  }
}

// Slots: one list of images per place, best first. A place holds one image, more only where ties are allowed.

function emptySlots(names) {
  return names.map(() => []);
}

function placeOf(slots, name) {
  return slots.findIndex((slot) => slot.includes(name));
}

function without(slots, name) {
  return slots.map((slot) => slot.filter((other) => other !== name));
}

// Put an image at a place. Where one is already, it and its neighbors move up to the nearest empty place.
function putAt(slots, name, place) {
  const rest = without(slots, name);
  if (SETTINGS.ties || rest[place].length === 0) {
    rest[place].push(name);
    return rest;
  }
  const holes = rest.flatMap((slot, hole) => (slot.length ? [] : [hole]));
  const nearest = holes.reduce((one, other) => (Math.abs(other - place) < Math.abs(one - place) ? other : one));
  rest.splice(nearest, 1);
  rest.splice(place, 0, [name]);
  return rest;
}

// What a click does: take the image out if it is ranked, otherwise give it the first empty place.
function toggled(slots, name) {
  if (placeOf(slots, name) >= 0) return without(slots, name);
  return putAt(slots, name, slots.findIndex((slot) => slot.length === 0));
}

function ranked(slots) {
  return slots.flat().length;
}

function exportOf(ballot, order, shownOf) {
  const votes = order
    .filter((image) => ranked(ballot.slots[image] ?? []) > 0)
    .map((image) => ({ image, shown: shownOf(image), places: ballot.slots[image] }));
  const { voter, name, seed } = ballot;
  return { format: 1, study: SETTINGS.study, voter, name, seed, exported: new Date().toISOString(), order, votes };
}

function fileName(ballot) {
  const name = ballot.name.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 24);
  return `votes_${SETTINGS.study}_${name ? `${name}-` : ""}${ballot.voter}.json`;
}

function download(text, file) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = file;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
