"""A program that knows an exported folder and `transformers` only: it runs where AutoMoE is not installed.

    python huggingface_client.py QUESTIONS.json ANSWERS.json

A question: {folder, texts, sources (token ids), target (token ids, BOS first)}. All that the folder says
about them is the answer.
"""

import json
import sys

sys.modules["automoe"] = None  # importing it now fails, installed or not

import torch  # noqa: E402
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline  # noqa: E402


def answer(question: dict) -> dict:
    """What the folder makes of the texts, in every way one can ask it."""
    tokenizer = AutoTokenizer.from_pretrained(question["folder"])
    model, info = AutoModelForSeq2SeqLM.from_pretrained(
        question["folder"], trust_remote_code=True, output_loading_info=True
    )
    batch = tokenizer.pad({"input_ids": question["sources"]}, return_tensors="pt")
    before = model.generation_config.to_dict()
    with torch.inference_mode():
        target_BT = torch.tensor([question["target"]] * len(question["sources"]))
        logits_BTV = model(**batch, decoder_input_ids=target_BT).logits
    found = {
        "dtype": str(model.dtype),
        "loading": {name: sorted(map(str, names)) for name, names in info.items() if names},
        "encoded": tokenizer(question["texts"])["input_ids"],
        "decoded": tokenizer.batch_decode(question["sources"], skip_special_tokens=True),
        "logits": logits_BTV.tolist(),
        "beams": model.generate(**batch).tolist(),
        "greedy": model.generate(**batch, num_beams=1).tolist(),
        "uncached": model.generate(**first(batch, 3), use_cache=False).tolist(),
        "short": model.generate(**first(batch, 12), max_new_tokens=4).tolist(),
        "alone": [model.generate(torch.tensor([source])).tolist()[0] for source in question["sources"][:3]],
    }
    assert model.generation_config.to_dict() == before
    translate = pipeline("translation", model=question["folder"], trust_remote_code=True)
    found["pipeline"] = [one["translation_text"] for one in translate(question["texts"], batch_size=3)]
    found["one"] = translate(question["texts"][0])
    return found


def first(batch: dict, count: int) -> dict:
    """The first rows of a batch."""
    return {name: rows[:count] for name, rows in batch.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with open(sys.argv[1], encoding="utf-8") as questions:
        answers = [answer(question) for question in json.load(questions)]
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(answers, file)
