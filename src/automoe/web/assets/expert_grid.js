// Draws, token by token and layer by layer, which expert was used: of the server's page and of a run's report.

const COLOURS = 6; // expert colours in look.css; further experts begin again

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// What colours and boxes mean.
export function legend() {
  const entries = [
    ["e0", "expert 1"],
    ["e1", "expert 2"],
    ["e2", "expert 3, and so on"],
    ["dense", "dense layer: one network for every token"],
    ["identity", "size 0: the token is passed on, without computation"],
  ];
  return element("ul", { class: "legend", "aria-label": "Legend" }, entries.map(([look, text]) =>
    element("li", {}, [element("span", { class: `swatch ${look}` }), text]),
  ));
}

// The grids of a sentence, with their headings.
// tell: hears what is to be said of the box under the mouse or with the focus.
// line: what the headings say of the sentence, if anything. level: of the headings.
export function sentenceGrids({ encoder, decoder }, { tell, line = "", level = "h3" }) {
  return [
    ...stack(`Encoder: reading the text${line}`, "reading", encoder, level, tell),
    ...stack(`Decoder: writing the translation${line}`, "writing", decoder, level, tell),
  ];
}

function stack(title, verb, { tokens, layers, mean_ffn_sizes: means }, level, tell) {
  const largest = Math.max(1, ...layers.flatMap((layer) => layer.experts));
  const mean = average(means);
  const most = average(layers.map(mostActive));
  const share = most ? ` (${number.format((100 * mean) / most)} %)` : "";
  const mixtures = layers.filter((layer) => layer.experts.length > 1).length;
  const summary =
    `Mean active FFN size per token: ${number.format(mean)} of at most ${number.format(most)}${share}, ` +
    `from ${number.format(Math.min(...means))} to ${number.format(Math.max(...means))}. ` +
    `Mixture layers: ${mixtures} of ${layers.length}.`;

  const table = element("table", { role: "grid", class: "expert-grid" }, [
    element("caption", { class: "unseen" }, [`${title}. Rows are layers, columns are tokens.`]),
    element("thead", {}, [
      element("tr", {}, [element("th", { scope: "col" }, ["Layer"]), ...tokens.map(tokenHeader)]),
    ]),
    element("tbody", {}, layers.map((layer) => row(layer, tokens, verb, largest))),
    element("tfoot", {}, [
      element("tr", {}, [
        element("th", { scope: "row" }, ["Mean FFN size"]),
        ...means.map((size) => element("td", {}, [number.format(size)])),
      ]),
    ]),
  ]);
  table.querySelector("tbody td").tabIndex = 0;
  table.addEventListener("keydown", move);
  for (const kind of ["focusin", "mouseover"]) table.addEventListener(kind, (event) => visit(event, tell));
  return [
    element(level, {}, [title]),
    element("p", { class: "summary" }, [summary]),
    element("div", { class: "scroll" }, [table]),
  ];
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// The FFN size of a token that uses the largest experts of a layer, as many as the layer's router picks.
function mostActive({ experts, chosen }) {
  const largest = [...experts].sort((a, b) => b - a).slice(0, chosen[0].length);
  return largest.reduce((sum, size) => sum + size, 0);
}

// "▁" begins a word; without it a token continues the word before.
function tokenHeader(token) {
  const begins = token.startsWith("▁");
  const special = token.startsWith("<") && token.endsWith(">");
  if (token === "</s>") {
    return element("th", { scope: "col", title: "end of the sentence" }, [
      element("span", { class: "mark" }, ["end"]),
    ]);
  }
  return element("th", { scope: "col", class: begins || special ? "begins" : "continues" }, [
    begins ? token.slice(1) || "␣" : token,
  ]);
}

function row(layer, tokens, verb, largest) {
  const [side, index] = layer.name.split(".");
  const dense = layer.experts.length === 1;
  const sizes = element(
    "span",
    { class: "sizes" },
    dense
      ? [`dense ${layer.experts[0]}`]
      : layer.experts.flatMap((size, expert) => [
          element("span", { class: `swatch ${look(layer, expert)}`, "aria-hidden": "true" }),
          String(size),
        ]),
  );
  const name = `${side} ${Number(index) + 1}`;
  return element("tr", { "data-layer": layer.name }, [
    element("th", { scope: "row" }, [name, sizes]),
    ...tokens.map((token, column) => cell(layer, name, layer.chosen[column], token, verb, largest)),
  ]);
}

function cell(layer, name, chosen, token, verb, largest) {
  const sizes = chosen.map((expert) => layer.experts[expert]);
  const dense = layer.experts.length === 1;
  const used = dense
    ? `dense, FFN size ${sizes[0]}`
    : chosen.map((e, i) => `expert ${e + 1} of ${layer.experts.length}, FFN size ${sizes[i]}`).join(" and ");
  const boxes = chosen.map((expert, rank) => {
    const box = element("span", { class: `box ${look(layer, expert)}` });
    box.style.height = `${Math.max(8, (100 * sizes[rank]) / largest)}%`; // even size 0 is seen
    return box;
  });
  const word = token === "</s>" ? "the end" : `“${token.replace("▁", "")}”`;
  return element(
    "td",
    { role: "gridcell", tabindex: "-1", "data-experts": chosen.join(" "), "data-sizes": sizes.join(" ") },
    [
      element("span", { class: "boxes", "aria-hidden": "true" }, boxes),
      element("span", { class: "size", "aria-hidden": "true" }, [sizes.join("+")]),
      element("span", { class: "unseen" }, [`${name}, ${verb} ${word}: ${used}`]),
    ],
  );
}

function look(layer, expert) {
  if (layer.experts.length === 1) return "dense";
  return `e${expert % COLOURS}${layer.experts[expert] === 0 ? " identity" : ""}`;
}

// Arrow keys, Home and End move in the grid, which is one stop of the Tab key.
function move(event) {
  const here = event.target.closest("td");
  if (!here) return;
  const rows = [...here.closest("tbody").rows].map((line) => [...line.querySelectorAll("td")]);
  const y = rows.findIndex((cells) => cells.includes(here));
  const x = rows[y].indexOf(here);
  const there = {
    ArrowLeft: rows[y][x - 1],
    ArrowRight: rows[y][x + 1],
    ArrowUp: rows[y - 1]?.[x],
    ArrowDown: rows[y + 1]?.[x],
    Home: rows[y][0],
    End: rows[y].at(-1),
  }[event.key];
  if (!there) return;
  event.preventDefault();
  there.focus();
}

function visit(event, tell) {
  const here = event.target.closest("tbody td");
  if (!here) return;
  tell(here.querySelector(".unseen").textContent);
  if (event.type === "focusin") {
    for (const stop of here.closest("tbody").querySelectorAll("[tabindex='0']")) stop.tabIndex = -1;
    here.tabIndex = 0;
  }
}

export function element(name, attributes, children = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
