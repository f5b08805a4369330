// Draws an architecture: its stacks side by side, first layers at the bottom, experts to scale.

// stacks: as `architecture_plain` writes them. shares: each expert's share of its layer's tokens, by layer.
export function drawArchitecture(stacks, shares = {}) {
  const sizes = stacks.flatMap((stack) => stack.layers.flatMap((layer) => layer.experts));
  const largest = Math.max(1, ...sizes);
  return element("div", { class: "architecture" }, stacks.map((stack) =>
    element("div", { class: `stack ${stack.stack}` }, [
      element("p", { class: "name" }, [`${stack.stack} · ${counted(stack.layers.length, "layer")} · width ${stack.width}`]),
      element("ol", {}, stack.layers.map((layer, index) =>
        drawLayer(layer, index, largest, shares[`${stack.stack}.${index}`]))),
    ]),
  ));
}

function drawLayer(layer, index, largest, shares) {
  const mixture = layer.experts.length > 1;
  const bars = layer.experts.map((size, expert) => {
    const bar = element("span", { class: `bar ${size ? "" : "identity"}`, "aria-hidden": "true" });
    bar.style.width = `${Math.max(3, (60 * size) / largest)}%`;
    if (shares && size) bar.style.opacity = String(0.25 + 0.75 * Math.min(1, 2 * shares[expert]));
    const share = shares ? ` · ${Math.round(100 * shares[expert])} %` : "";
    return element("li", {}, [bar, element("span", {}, [`${size || "identity"}${share}`])]);
  });
  const router = mixture ? `router: each token to ${layer.topK} of ${layer.experts.length}` : "one FFN, no router";
  return element("li", { class: "layer" }, [
    element("span", { class: "number" }, [String(index + 1)]),
    element("div", { class: "attentions" }, layer.attentions.map((text) => element("span", {}, [text]))),
    element("div", {}, [
      element("span", { class: "router" }, [router]),
      element("ul", { class: "bars", "aria-label": "FFN sizes" }, bars),
    ]),
  ]);
}

// The same in a line.
export function architectureWords(stacks) {
  return stacks.map((stack) =>
    `${stack.stack}: ${counted(stack.layers.length, "layer")}, width ${stack.width}, FFNs ` +
    stack.layers.map((layer) => layer.experts.join("+")).join(" | "));
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
