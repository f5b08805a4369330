// Brings the report to life. One module with expert_grid.js, architecture.js and front.js, which it follows.

const { seeds, sentences } = JSON.parse(document.getElementById("data").textContent);

for (const place of document.querySelectorAll(".drawing")) {
  const { stacks, shares } = seeds[place.dataset.seed].systems[place.dataset.system];
  place.append(drawArchitecture(stacks, shares));
}

for (const place of document.querySelectorAll(".front")) {
  showFront(place, seeds[place.dataset.seed].front);
}

// The grids are made when they are first looked at: there are many.
for (const place of document.querySelectorAll("details.experts")) {
  place.addEventListener("toggle", () => fill(place), { once: true });
}

function fill(place) {
  const grids = sentences[place.closest("article").dataset.sentence][place.dataset.system];
  // Hidden from screen readers, which read the box itself when it has the focus.
  const detail = element("p", { class: "detail", "aria-hidden": "true" });
  const tell = (text) => {
    detail.textContent = text;
  };
  place.append(legend(), ...sentenceGrids(grids, { tell, level: "h4" }), detail);
}
