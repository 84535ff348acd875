"use strict";
// Parts arrive as scripts that call `receive`; each is asked for once.
const ROWS_A_PAGE = 24;
const waiting = {}, parts = {};
const by = id => document.getElementById(id);
let matches = [], page = 0, latest = 0;

async function receive(name, packed) {
  const bytes = Uint8Array.from(atob(packed), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  waiting[name](JSON.parse(await new Response(stream).text()));
}

function part(name) {
  parts[name] ??= new Promise((resolve, reject) => {
    waiting[name] = resolve;
    const script = document.createElement("script");
    script.src = `rows/${name}.js`;
    script.onerror = () => reject(new Error(`rows/${name}.js is missing beside this page`));
    document.head.append(script);
  });
  return parts[name];
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;  // never markup: texts come from models
  return made;
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
}

async function chooseDataset() {
  const number = by("dataset").value, about = INDEX[number];
  for (const method of ["grpo", "sft"]) {
    fill(by(`${method}-step`), about.steps[method].map(step => [step, step || "0 (base)"]));
    by(`${method}-step`).value = about.common.at(-1);
  }
  const rows = await part(number);
  fill(by("slice"), [["", "all rows"], ...rows.slices.map((slice, i) => [i, slice.label])]);
  await filter();
}

async function chosen() {
  const number = by("dataset").value;
  const [rows, grpo, sft] = await Promise.all([
    part(number),
    part(`${number}-grpo-${by("grpo-step").value}`),
    part(`${number}-sft-${by("sft-step").value}`),
  ]);
  return { number, rows, grpo, sft };
}

async function filter() {
  const turn = ++latest, { rows, grpo, sft } = await chosen();
  if (turn !== latest) return;  // another choice was made meanwhile
  const slice = by("slice").value, text = by("text").value.toLowerCase();
  const candidates = slice === "" ? rows.expressions.keys() : rows.slices[slice].rows;
  const fits = (answers, method, row) =>
    by(`${method}-right`).value === "" || answers.hits[row] === Number(by(`${method}-right`).value);
  matches = [...candidates].filter(row => fits(grpo, "grpo", row) && fits(sft, "sft", row) && (
    !text || [rows.expressions[row], grpo.texts[row], sft.texts[row]]
      .some(one => one.toLowerCase().includes(text))));
  by("count").textContent = `${matches.length} of ${rows.expressions.length} rows`;
  page = 0;
  await show();
}

async function show() {
  const turn = latest, { number, rows, grpo, sft } = await chosen();
  const pages = Math.max(1, Math.ceil(matches.length / ROWS_A_PAGE));
  const visible = matches.slice(page * ROWS_A_PAGE, (page + 1) * ROWS_A_PAGE);
  const cards = await Promise.all(visible.map(row => card(number, row, rows, { grpo, sft })));
  if (turn !== latest) return;
  by("rows").replaceChildren(...cards);
  by("page").textContent = `page ${page + 1} of ${pages}`;
  by("previous").disabled = page === 0;
  by("next").disabled = page + 1 >= pages;
}

async function card(number, row, rows, answers) {
  const made = element("article", "case");
  const image = rows.images[row];
  if (image !== null) {
    const loaded = await part(`${number}-images-${Math.floor(image / IMAGES_A_PART)}`);
    made.append(picture(loaded[image % IMAGES_A_PART], rows.boxes[row], answers, row));
  }
  made.append(element("blockquote", "", `“${rows.expressions[row]}”`));
  const list = element("dl");
  list.append(element("dt", "", "True box"), element("dd", "", inWords(rows.boxes[row])));
  for (const [method, label] of [["grpo", "GRPO"], ["sft", "SFT"]]) {
    const found = answers[method], right = found.hits[row] === 1;
    const told = element("dd", "", `${inWords(found.boxes[row])}, IoU ${found.ious[row]} `);
    told.append(element("b", right ? "right" : "wrong", right ? "right" : "wrong"));
    told.append(element("span", "raw", found.texts[row]));
    list.append(element("dt", `${method}-ink`, label), told);
  }
  made.append(list);
  return made;
}

// A row has a box, several (a list of them), or none (null).
function listed(boxes) { return !boxes ? [] : Array.isArray(boxes[0]) ? boxes : [boxes]; }

function inWords(boxes) {
  return listed(boxes).map(box => `(${box.join(", ")})`).join(", ") || "no box";
}

function picture({ size, url }, truth, answers, row) {
  const made = element("div", "shown"), image = element("img");
  image.src = url;
  image.alt = "the image with the true box and both answers";
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  drawing.setAttribute("preserveAspectRatio", "none");
  const drawn = [["halo", truth], ["truth", truth],
    ["grpo", answers.grpo.boxes[row]], ["sft", answers.sft.boxes[row]]];
  for (const [name, box] of drawn.flatMap(([name, boxes]) => listed(boxes).map(one => [name, one]))) {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    shape.setAttribute("class", name);
    const [x, y] = [Math.min(box[0], box[2]), Math.min(box[1], box[3])];
    for (const [key, value] of [["x", x], ["y", y],
      ["width", Math.abs(box[2] - box[0])], ["height", Math.abs(box[3] - box[1])]])
      shape.setAttribute(key, value);
    drawing.append(shape);
  }
  made.append(image, drawing);
  return made;
}

function fail(error) { by("count").textContent = `Cannot show the rows: ${error.message}`; }
by("filters").addEventListener("submit", event => event.preventDefault());
by("dataset").addEventListener("change", () => chooseDataset().catch(fail));
for (const id of ["grpo-step", "sft-step", "grpo-right", "sft-right", "slice", "text"])
  by(id).addEventListener("input", () => filter().catch(fail));
by("previous").addEventListener("click", () => { page -= 1; show().catch(fail); });
by("next").addEventListener("click", () => { page += 1; show().catch(fail); });
chooseDataset().catch(fail);
