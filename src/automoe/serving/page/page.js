// Sends the text to /explain and shows its translation, and which expert each token used.

import { element, legend, sentenceGrids } from "./expert_grid.js";

const form = document.getElementById("form");
const source = document.getElementById("source");
const button = document.getElementById("translate");
const error = document.getElementById("error");
const translation = document.getElementById("translation");
const experts = document.getElementById("experts");
const sentences = document.getElementById("sentences");
const detail = document.getElementById("detail");

let latest = 0; // an answer that comes after a newer question is dropped

source.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = ++latest;
  // Not `disabled`, which would take the focus away from a person using the keyboard.
  button.setAttribute("aria-disabled", "true");
  button.textContent = "Translating…";
  try {
    const answer = await ask(source.value);
    if (question === latest) show(answer);
  } catch (problem) {
    if (question === latest) refuse(problem.message);
  } finally {
    if (question === latest) {
      button.removeAttribute("aria-disabled");
      button.textContent = "Translate";
    }
  }
});

async function ask(text) {
  let response;
  try {
    response = await fetch("explain", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text }),
    });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(`Not translated: ${answer.error}`);
  return answer;
}

function refuse(message) {
  error.textContent = message;
  error.hidden = false;
}

function show(answer) {
  error.hidden = true;
  translation.textContent = answer.translation;
  translation.classList.remove("empty");
  detail.textContent = "";
  sentences.replaceChildren(
    ...answer.sentences.flatMap((sentence, index, all) => {
      const line = all.length > 1 ? `, sentence ${index + 1}` : "";
      return sentenceGrids(sentence, { tell, line });
    }),
  );
  experts.hidden = answer.sentences.length === 0;
}

function tell(text) {
  detail.textContent = text;
}

document.getElementById("legend").append(legend());
