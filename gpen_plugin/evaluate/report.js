"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const CARDS = 12;
  const INPUT = -1;
  const TRUTH = -2;

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  /* ---- tables ---- */

  for (const check of document.querySelectorAll(".check input")) {
    const tables = check.closest("section").querySelectorAll(".numbers");
    const toggle = () => tables.forEach((each) => each.classList.toggle("with-intervals", check.checked));
    check.addEventListener("change", toggle);
    toggle();
  }

  const table = document.querySelector("#table .numbers");
  const body = table.tBodies[0];
  const listed = [...body.rows];
  const heads = [...table.querySelectorAll("th[data-lower]")];
  heads.forEach((head, index) => head.firstElementChild.addEventListener("click", () => {
    const lower = head.dataset.lower === "1";
    const turn = head.dataset.turn === "best" ? "worst" : head.dataset.turn === "worst" ? "" : "best";
    for (const each of heads) { each.removeAttribute("aria-sort"); delete each.dataset.turn; }
    const rows = [...listed];
    if (turn) {
      const ascending = lower === (turn === "best");
      head.dataset.turn = turn;
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const value = (row) => row.cells[index + 1].dataset.value;
      rows.sort((one, two) => {
        if (value(one) === "" || value(two) === "") return (value(one) === "") - (value(two) === "");
        return (ascending ? 1 : -1) * (Number(value(one)) - Number(value(two)));
      });
    }
    body.append(...rows);
  }));

  /* ---- images ---- */

  const nameOf = (who) => who === INPUT ? "input" : who === TRUTH ? "ground truth" : data.methods[who].name;

  function pathOf(who, condition, image) {
    const file = `${data.keys[image]}.png`;
    const folder = data.conditions[condition];
    if (who === TRUTH) return `truth/${file}`;
    const parts = who === INPUT ? ["inputs"] : ["methods", data.methods[who].folder, "restored"];
    return [...parts, ...(folder ? [folder] : []), file].join("/");
  }

  const address = (path) => path.split("/").map(encodeURIComponent).join("/");
  const isInside = (path) => Object.hasOwn(data.images, path);

  function failureOf(who, condition, image) {
    if (who < 0) return "";
    return data.methods[who].failure || data.failures[who][condition][image] || "";
  }

  const wordOf = (failure) => ({ [data.nothing]: "none", [data.skipped]: "skipped" })[failure] || "failed";

  function imageElement(who, condition, image, alt) {
    const none = (text) => make("span", { class: "image none", role: "img", "aria-label": `${alt}: ${text}` }, text);
    const failure = failureOf(who, condition, image);
    if (failure) return none(wordOf(failure));
    if (who === TRUTH && data.without_truth.includes(image)) return none("none");
    const path = pathOf(who, condition, image);
    const source = isInside(path) ? data.images[path] : address(path);
    const style = who === INPUT ? "image own-pixels" : "image";
    const shown = make("img", { class: style, src: source, alt, loading: "lazy", draggable: "false" });
    shown.addEventListener("error", () => {
      const stand = none("no file");
      stand.classList.add(...shown.classList);
      shown.replaceWith(stand);
    });
    return shown;
  }

  function slider(left, right, condition, image) {
    const key = data.keys[image];
    const before = imageElement(left, condition, image, `${nameOf(left)}, ${key}`);
    const after = imageElement(right, condition, image, `${nameOf(right)}, ${key}`);
    before.classList.add("before");
    after.classList.add("after");
    const range = make("input", {
      type: "range", min: 0, max: 100, value: 50, step: 1,
      "aria-label": `${nameOf(left)} to the left, ${nameOf(right)} to the right: ${key}`,
    });
    const box = make("div", { class: "slider" }, before, after, make("i"),
      make("span", { class: "left" }, nameOf(left)), make("span", { class: "right" }, nameOf(right)), range);
    const show = () => {
      box.style.setProperty("--at", `${range.value}%`);
      range.setAttribute("aria-valuetext", `${range.value} % ${nameOf(left)}`);
    };
    const follow = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const rect = range.getBoundingClientRect();
      range.value = 100 * (event.clientX - rect.left) / rect.width;
      show();
    };
    range.addEventListener("input", show);
    range.addEventListener("pointerdown", follow);
    range.addEventListener("pointermove", follow);
    show();
    return box;
  }

  /* ---- ranking ---- */

  const form = document.getElementById("controls");
  const controls = form.elements;
  const fill = (select, entries) => select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
  const everyone = [INPUT, ...data.methods.keys(), ...(data.truth ? [TRUTH] : [])];
  fill(controls.method, data.methods.map((method, index) => [index, method.name]));
  fill(controls.other, everyone.map((who) => [who, nameOf(who)]));
  fill(controls.condition, data.conditions.map((condition, index) => [index, condition]));
  fill(controls.metric, data.metrics.map((metric, index) => [index, metric.head]));
  controls.method.value = Math.max(0, data.methods.findLastIndex((method) => !method.failure));
  controls.condition.closest("label").hidden = data.conditions.length < 2;
  if (!data.metrics.length) {
    controls.metric.closest("label").hidden = true;
    controls.order.closest("label").hidden = true;
  }

  const valueOf = (who, condition, metric, image) => who < 0 || metric === null ? null : data.values[who][condition][metric][image];
  const printed = (value, metric) => value === null ? "no value" : value.toFixed(data.metrics[metric].decimals);

  function chosen() {
    return {
      method: Number(controls.method.value), other: Number(controls.other.value),
      condition: Number(controls.condition.value), metric: data.metrics.length ? Number(controls.metric.value) : null,
      order: data.metrics.length ? controls.order.value : "listed", search: controls.search.value.trim().toLowerCase(),
    };
  }

  function ranked({ method, condition, metric, order, search }) {
    const images = [...data.keys.keys()].filter((image) => data.keys[image].toLowerCase().includes(search));
    if (order === "listed") return images;
    const worst = order === "worst";
    const ascending = data.metrics[metric].lower === !worst;
    const group = (image) => {  // failures are the worst there is; what has no value is no case of anything
      const failure = failureOf(method, condition, image);
      if (failure && failure !== data.skipped) return worst ? 0 : 2;
      return valueOf(method, condition, metric, image) === null ? 3 : 1;
    };
    const value = (image) => valueOf(method, condition, metric, image);
    return images.sort((one, two) => group(one) - group(two)
      || (ascending ? 1 : -1) * (value(one) - value(two)) || one - two);
  }

  const cards = document.getElementById("cards");
  const more = document.getElementById("more");
  let images = [];
  let state = chosen();

  function refresh() {
    state = chosen();
    images = ranked(state);
    cards.replaceChildren();
    extend();
  }

  function extend() {
    const start = cards.children.length;
    cards.append(...images.slice(start, start + CARDS).map((image, index) => card(image, start + index)));
    more.hidden = cards.children.length >= images.length;
    document.getElementById("count").textContent = `${cards.children.length} of ${images.length} images shown`;
  }

  function card(image, index) {
    const { method, other, condition, metric } = state;
    const failure = failureOf(method, condition, image);
    const value = failure ? wordOf(failure) : metric === null ? "" : `${data.metrics[metric].label} ${printed(valueOf(method, condition, metric, image), metric)}`;
    const trio = [INPUT, method, ...(data.truth ? [TRUTH] : [])];
    const outside = trio.some((who) => !failureOf(who, condition, image) && !isInside(pathOf(who, condition, image)));
    const item = make("li", {},
      make("p", { class: "name" }, make("span", { title: data.keys[image] }, `${index + 1}. ${data.keys[image]}`), make("b", {}, value)),
      slider(other, method, condition, image),
      make("div", { class: "thumbs" }, ...trio.map((who) => tile(who, condition, image, `Enlarge ${nameOf(who)}`, () => enlarge(index, who)))));
    if (failure) item.append(make("p", { class: "why" }, failure));
    if (outside) item.append(make("p", { class: "why" }, "from file"));
    return item;
  }

  function tile(who, condition, image, label, onClick) {
    const button = make("button", { type: "button", class: "tile", "aria-label": label },
      imageElement(who, condition, image, ""), nameOf(who));
    button.addEventListener("click", onClick);
    return button;
  }

  form.addEventListener("change", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  controls.search.addEventListener("input", refresh);
  more.addEventListener("click", extend);

  /* ---- one image, large, with all methods ---- */

  const dialog = document.getElementById("large");
  let open = 0;

  function enlarge(index, right) {
    const { condition, other, metric } = state;
    const image = images[open = index];
    const name = data.conditions[condition];
    const left = right === other ? (other === INPUT ? state.method : INPUT) : other;
    document.getElementById("large-title").textContent = `${index + 1}. ${data.keys[image]}${name ? `, ${name}` : ""}`;
    document.getElementById("large-slider").replaceChildren(slider(left, right, condition, image));
    document.getElementById("side-by-side").replaceChildren(...everyone.map((who) => {
      const shown = tile(who, condition, image, `Show ${nameOf(who)} to the right of the slider`, () => enlarge(index, who));
      shown.setAttribute("aria-pressed", who === right);
      for (const each of data.metrics.keys()) {
        const value = valueOf(who, condition, each, image);
        if (value !== null) shown.append(make("small", {}, `${each === metric ? "▸ " : ""}${data.metrics[each].label} ${printed(value, each)}`));
      }
      const failure = failureOf(who, condition, image);
      const below = failure ? make("small", {}, failure)
        : make("a", { href: address(pathOf(who, condition, image)), target: "_blank" }, "file");
      return make("figure", {}, shown, below);
    }));
    document.getElementById("previous").disabled = index === 0;
    document.getElementById("next").disabled = index + 1 >= images.length;
    dialog.dataset.right = right;
    if (!dialog.open) dialog.showModal();
  }

  document.getElementById("previous").addEventListener("click", () => enlarge(open - 1, Number(dialog.dataset.right)));
  document.getElementById("next").addEventListener("click", () => enlarge(open + 1, Number(dialog.dataset.right)));

  refresh();
})();
