// The interactive front: every scored candidate, its costs under the mouse, its drawing at a click.

const MARKS = ["M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-4,-4h8v8h-8z", "M0,-5l5,9h-10z", "M0,-5l5,5l-5,5l-5,-5z"];
const STAR = "M0,-10L2.4,-3.2L9.5,-3.1L3.8,1.2L5.9,8.1L0,4L-5.9,8.1L-3.8,1.2L-9.5,-3.1L-2.4,-3.2Z";
const HEIGHT = 420;
const MARGIN = { top: 14, right: 16, bottom: 48, left: 58 };

export function showFront(place, front) {
  const systems = [...new Set(front.candidates.map((candidate) => candidate.system))];
  const winnerOf = new Map(Object.entries(front.winners).map(([system, index]) => [index, system]));
  const tooltip = element("div", { class: "tooltip", role: "tooltip", hidden: "" });
  const canvas = element("div", { class: "canvas" });
  const chosen = element("div", { class: "chosen", "aria-live": "polite" });
  const state = { picture: 0, selected: null };

  function redraw() {
    canvas.replaceChildren(draw(front, state, systems, winnerOf, canvas.clientWidth), tooltip);
  }

  function lines(index) {
    const { system, feasible, score, costs, architecture } = front.candidates[index];
    const winner = winnerOf.has(index) ? `, trained as ${winnerOf.get(index)}` : "";
    return [
      `${system}${winner}${feasible ? "" : ", breaks a constraint"}`,
      `${front.scoreLabel}: ${score}`,
      ...front.costs.flatMap(({ heading }, cost) => (costs[cost] === null ? [] : [`${heading}: ${costs[cost]}`])),
      ...architectureWords(architecture),
    ];
  }

  function point(event) {
    const mark = event.target.closest("[data-candidate]");
    if (!mark) return hide();
    const text = lines(Number(mark.dataset.candidate));
    tooltip.replaceChildren(...text.map((line, number) => element(number ? "div" : "strong", {}, [line])));
    tooltip.hidden = false;
    const [x, y] = [Number(mark.dataset.x), Number(mark.dataset.y)];
    const room = canvas.clientWidth - tooltip.offsetWidth;
    tooltip.style.left = `${Math.max(0, Math.min(room, x - tooltip.offsetWidth / 2))}px`;
    const above = y - tooltip.offsetHeight - 14;
    tooltip.style.top = `${above >= 0 ? above : y + 14}px`;
    if (!mark.hasAttribute("aria-label")) mark.setAttribute("aria-label", text.join("; "));
  }

  function hide() {
    tooltip.hidden = true;
  }

  function select(mark) {
    state.selected = Number(mark.dataset.candidate);
    for (const old of canvas.querySelectorAll("[aria-pressed='true']")) old.setAttribute("aria-pressed", "false");
    mark.setAttribute("aria-pressed", "true");
    const [title, ...rest] = lines(state.selected);
    chosen.replaceChildren(
      element("p", { class: "name" }, [title]),
      element("p", { class: "summary" }, [rest.slice(0, -2).join(" · ")]),
      drawArchitecture(front.candidates[state.selected].architecture),
    );
  }

  function press(event) {
    const mark = event.target.closest("[data-candidate]");
    if (!mark) return;
    const marks = [...canvas.querySelectorAll("[data-candidate]")];
    const here = marks.indexOf(mark);
    const next = {
      ArrowRight: marks[here + 1], ArrowUp: marks[here + 1],
      ArrowLeft: marks[here - 1], ArrowDown: marks[here - 1],
      Home: marks[0], End: marks.at(-1),
    }[event.key];
    if (event.key === "Escape") hide();
    if (event.key === "Enter" || event.key === " ") select(mark);
    else if (!next) return;
    event.preventDefault();
    next?.focus();
  }

  canvas.addEventListener("pointerover", point);
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("focusin", (event) => {
    point(event);
    for (const stop of canvas.querySelectorAll("[data-candidate][tabindex='0']")) stop.setAttribute("tabindex", "-1");
    event.target.setAttribute("tabindex", "0");
  });
  canvas.addEventListener("focusout", hide);
  canvas.addEventListener("keydown", press);
  canvas.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-candidate]");
    if (mark) select(mark);
  });

  const choice = element("fieldset", { class: "choice" }, [
    element("legend", {}, ["Cost"]),
    ...front.pictures.map(({ label }, number) => {
      const input = element("input", { type: "radio", name: `cost-${place.dataset.seed}` });
      input.checked = number === 0;
      input.addEventListener("change", () => {
        state.picture = number;
        redraw();
      });
      return element("label", {}, [input, label]);
    }),
  ]);
  place.replaceChildren(choice, key(systems), canvas, chosen);
  new ResizeObserver(() => {
    if (canvas.firstChild?.getAttribute("width") !== String(canvas.clientWidth)) redraw();
  }).observe(canvas);
}

function draw(front, { picture, selected }, systems, winnerOf, width) {
  const { cost, label, ticks, front: best } = front.pictures[picture];
  const across = scale(ticks, MARGIN.left, width - MARGIN.right);
  const up = scale(front.scoreTicks, HEIGHT - MARGIN.bottom, MARGIN.top);
  const at = (index) => [across(front.candidates[index].costs[cost]), up(front.candidates[index].score)];
  const drawing = svg("svg", {
    width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "group",
    "aria-label": `${front.scoreLabel} against ${label}`,
  });
  // Narrow pictures have room for every other number only.
  const shown = width < 520 ? ticks.filter((_, number) => number % 2 === 0) : ticks;
  for (const tick of shown) {
    drawing.append(
      svg("line", { class: "grid", x1: across(tick), x2: across(tick), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      svg("text", { x: across(tick), y: HEIGHT - MARGIN.bottom + 18, "text-anchor": "middle" }, tidy(tick)),
    );
  }
  for (const tick of front.scoreTicks) {
    drawing.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: up(tick), y2: up(tick) }),
      svg("text", { x: MARGIN.left - 8, y: up(tick) + 4, "text-anchor": "end" }, tidy(tick)),
    );
  }
  const middle = (HEIGHT - MARGIN.bottom + MARGIN.top) / 2;
  drawing.append(
    svg("text", { x: (MARGIN.left + width - MARGIN.right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, label),
    svg("text", { x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, front.scoreLabel),
    svg("path", { class: "best", d: steps(best.map(at)) }),
  );
  const order = front.candidates.map((_, index) => index).filter((index) => front.candidates[index].costs[cost] !== null);
  order.sort((a, b) => winnerOf.has(a) - winnerOf.has(b) || at(a)[0] - at(b)[0]);
  order.forEach((index, number) => {
    const { system, feasible } = front.candidates[index];
    const [x, y] = at(index);
    const which = systems.indexOf(system);
    drawing.append(svg("path", {
      class: `mark ${feasible ? `c${which % 6}` : "broken"}${winnerOf.has(index) ? " winner" : ""}`,
      d: winnerOf.has(index) ? STAR : MARKS[which % MARKS.length],
      transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
      role: "button", tabindex: number ? -1 : 0, "aria-pressed": index === selected,
      "data-candidate": index, "data-x": x, "data-y": y,
    }));
  });
  return drawing;
}

// What the marks mean.
function key(systems) {
  const mark = (look, d) => {
    const drawing = svg("svg", { width: 16, height: 16, viewBox: "-11 -11 22 22", "aria-hidden": "true" });
    drawing.append(svg("path", { class: look, d }));
    return drawing;
  };
  return element("ul", { class: "legend", "aria-label": "Legend" }, [
    ...systems.map((system, which) => [mark(`mark c${which % 6}`, MARKS[which % MARKS.length]), system]),
    [mark("mark broken", MARKS[0]), "breaks a constraint"],
    [mark("best", "M-10,0h20"), "best score at each cost"],
    [mark("mark c0 winner", STAR), "trained"],
  ].map((entry) => element("li", {}, entry)));
}

function scale(ticks, from, to) {
  const [low, high] = [ticks[0], ticks.at(-1)];
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

// From the first point to the last, to the right before up or down.
function steps(points) {
  return points.map(([x, y], number) => (number ? `H${x}V${y}` : `M${x},${y}`)).join("");
}

const tidy = (tick) => String(Number(tick.toPrecision(6)));

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(text);
  return made;
}
