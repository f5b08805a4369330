"""A program that uses an exported folder as `transformers` documents it; AutoMoE cannot be imported.

    python huggingface_habits.py QUESTION.json ANSWERS.json

The question: {folder, texts}. An answer is what came out, or `{"refused": the message}` of a ValueError.
"""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.modules["automoe"] = None  # importing it now fails, installed or not

import numpy  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, pipeline  # noqa: E402


def answer(folder: str, texts: list[str], scratch: Path) -> dict[str, Any]:
    """All that the folder makes of the texts, by the way it is asked."""
    model, tokenizer = load(folder)
    batch = tokenizer(texts, return_tensors="pt", padding=True)

    def generate(**arguments: Any) -> Any:
        return model.generate(**{**batch, **arguments})

    def with_own(**values: Any) -> Any:
        own = model.generation_config
        model.generation_config = copy.deepcopy(own)
        try:
            model.generation_config.update(**values)
            return generate()
        finally:
            model.generation_config = own

    def padded_left() -> Any:
        tokenizer.padding_side = "left"
        try:
            return model.generate(**tokenizer(texts, return_tensors="pt", padding=True))
        finally:
            tokenizer.padding_side = "right"

    def scored() -> Any:
        found = generate(return_dict_in_generate=True, output_scores=True, num_return_sequences=2)
        steps = model.compute_transition_scores(
            found.sequences, found.scores, found.beam_indices, normalize_logits=False
        )
        return {
            "sequences": found.sequences,
            "scores": found.sequences_scores,
            "sums": steps.sum(dim=1),
            "lengths": (steps < 0).sum(dim=1),
        }

    def trained() -> Any:
        model.train()
        try:
            return generate()
        finally:
            model.eval()

    encoded = model.get_encoder()(batch["input_ids"], batch["attention_mask"])
    two = torch.tensor([[1, 5]] * len(texts))
    asked: dict[str, Callable[[], Any]] = {
        "beams": generate,
        "greedy": lambda: generate(num_beams=1),
        "max_length": lambda: generate(max_length=5),
        "max_new_tokens": lambda: generate(max_new_tokens=4),
        "of numpy": lambda: generate(max_length=numpy.int64(5), num_beams=numpy.int64(5)),
        "both": lambda: generate(max_length=3, max_new_tokens=4),
        "config max_length": lambda: generate(generation_config=GenerationConfig(max_length=5)),
        "config max_new_tokens": lambda: generate(generation_config=GenerationConfig(max_new_tokens=4)),
        "own max_length": lambda: with_own(max_length=5),
        "own max_new_tokens": lambda: with_own(max_new_tokens=4),
        "config says nothing": lambda: generate(generation_config=GenerationConfig()),
        "huge": lambda: generate(max_new_tokens=10_000),
        "one token": lambda: generate(max_new_tokens=1),
        "min_length": lambda: generate(min_length=12),
        "min_new_tokens": lambda: generate(min_new_tokens=11),
        "own min_length": lambda: with_own(min_length=12),
        "longer than its limit": lambda: generate(min_new_tokens=60),
        "longer than asked": lambda: generate(min_new_tokens=9, max_new_tokens=6),
        "prompt": lambda: generate(decoder_input_ids=two, max_new_tokens=4),
        "length_penalty": lambda: generate(length_penalty=0.0),
        "n best": lambda: generate(num_return_sequences=3),
        "sampled": lambda: generate(do_sample=True, num_beams=1, num_return_sequences=3, max_new_tokens=6),
        "scored": scored,
        "left": padded_left,
        "wide": lambda: model.generate(
            **tokenizer(texts, return_tensors="pt", padding="max_length", max_length=50)
        ),
        "without mask": lambda: model.generate(batch["input_ids"]),
        "encoded": lambda: model.generate(encoder_outputs=encoded, attention_mask=batch["attention_mask"]),
        "train": trained,
        "moved": lambda: model.to("cpu").generate(**batch.to("cpu")),
        "double": lambda: copy.deepcopy(model).double().generate(**batch),
        "half": lambda: load(folder, dtype=torch.float16)[0].generate(**batch).shape[0],
        "no room": lambda: generate(max_length=1),
        "nothing new": lambda: generate(max_new_tokens=0),
        "no beams": lambda: generate(num_beams=0),
        "half a beam": lambda: generate(num_beams=2.5),
        "beams as text": lambda: generate(num_beams="2"),
        "endless": lambda: generate(max_new_tokens=float("inf")),
        "length as text": lambda: generate(max_length="5"),
        "no penalty": lambda: generate(length_penalty=float("nan")),
        "misspelt": lambda: generate(max_lenght=5),
        "attentions": lambda: generate(output_attentions=True, return_dict_in_generate=True),
        "hidden states": lambda: generate(output_hidden_states=True, return_dict_in_generate=True),
        "static cache": lambda: generate(cache_implementation="static"),
        "guidance": lambda: generate(guidance_scale=1.5),
        "healing": lambda: generate(token_healing=True, tokenizer=tokenizer),
        "lookup": lambda: model.generate(
            **tokenizer(texts[0], return_tensors="pt"), prompt_lookup_num_tokens=2
        ),
        "a list": lambda: model.generate([[5, 2]]),
        "a batch": lambda: model.generate(batch),
        "a vector": lambda: model.generate(torch.tensor([5, 2])),
        "no sentence": lambda: model.generate(torch.zeros((0, 3), dtype=torch.long)),
        "no token": lambda: model.generate(torch.zeros((2, 0), dtype=torch.long)),
        "nothing": model.generate,
        "forward attentions": lambda: model(**batch, decoder_input_ids=two, output_attentions=True),
        "forward tuple": lambda: len(model(**batch, decoder_input_ids=two, return_dict=False)),
        "text_target": lambda: dict(tokenizer(texts[0], text_target=texts[1])),
        "kept": lambda: tokenizer.decode(batch["input_ids"][0], skip_special_tokens=False),
        "skipped": lambda: tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True),
        "cut": lambda: tokenizer(" ".join(texts), truncation=True, max_length=6)["input_ids"],
    }
    found = {name: outcome(ask) for name, ask in asked.items()}
    # Saved, moved, loaded, saved again: the folders before are gone.
    model.save_pretrained(scratch / "one")
    tokenizer.save_pretrained(scratch / "one")
    (scratch / "one").rename(scratch / "moved")
    for part in load(str(scratch / "moved")):
        part.save_pretrained(scratch / "two")
    again, tokens = load(str(scratch / "two"))
    found["saved"] = again.generate(**tokens(texts, return_tensors="pt", padding=True)).tolist()
    found["saved pipeline"] = outcome(lambda: make_pipeline(str(scratch / "two"))(texts))
    load(folder, dtype=torch.float16)[0].save_pretrained(scratch / "half")
    found["saved half"] = str(load_model(str(scratch / "half"), dtype="auto").dtype)

    translate = make_pipeline(folder)
    translate.save_pretrained(scratch / "three")
    found["pipeline saved"] = outcome(lambda: make_pipeline(str(scratch / "three"))(texts))
    pipes: dict[str, Callable[[], Any]] = {
        "one": lambda: translate(texts[0]),
        "several": lambda: translate(texts),
        "arguments": lambda: translate(*texts),
        "a tuple": lambda: translate(tuple(texts)),
        "keyword": lambda: translate(inputs=texts),
        "generator": lambda: [one[0] for one in translate(text for text in texts)],
        "batched": lambda: translate(texts, batch_size=2),
        "empty": lambda: translate([]),
        "blank": lambda: translate(["", texts[0], "  "], batch_size=3, num_return_sequences=2),
        "n best": lambda: translate(texts, num_return_sequences=3),
        "n best of one": lambda: translate(texts[0], num_return_sequences=3),
        "tensors": lambda: [one["translation_token_ids"] for one in translate(texts, return_tensors=True)],
        "truncation": lambda: translate(texts, truncation=True),
        "truncated": lambda: translate("a " * 5000, truncation=True, max_length=4),
        "clean": lambda: translate(texts, clean_up_tokenization_spaces=True),
        "languages": lambda: translate(texts, src_lang="en_XX", tgt_lang="de"),
        "max_length": lambda: translate(texts, max_length=5),
        "made with": lambda: make_pipeline(folder, max_length=5, truncation=True, src_lang="en")(texts),
        "named": lambda: make_pipeline(folder, task="translation_en_to_de")(texts),
        "half": lambda: len(make_pipeline(folder, dtype=torch.float16)(texts)),
        "another language": lambda: translate(texts, src_lang="fr"),
        "another target": lambda: make_pipeline(folder, tgt_lang="en"),
        "nothing": lambda: translate(texts, return_text=False),
        "a dictionary": lambda: translate(texts, return_dict_in_generate=True),
        "a number": lambda: translate([texts[0], 3]),
        "none": lambda: translate(None),
        "half a pair": lambda: translate([texts[0], "a \ud83d b"]),
        "misspelt": lambda: translate(texts, max_lenght=5),
    }
    found["pipeline"] = {name: outcome(ask) for name, ask in pipes.items()}
    return found


def load_model(folder: str, **arguments: Any) -> Any:
    """The model of a folder."""
    return AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True, **arguments)


def load(folder: str, **arguments: Any) -> tuple[Any, Any]:
    """The model and the tokenizer of a folder."""
    return load_model(folder, **arguments), AutoTokenizer.from_pretrained(folder, trust_remote_code=True)


def make_pipeline(folder: str, task: str = "translation", **arguments: Any) -> Any:
    """The pipeline of a folder."""
    return pipeline(task, model=folder, trust_remote_code=True, **arguments)


def outcome(ask: Callable[[], Any]) -> Any:
    """What came out, as JSON can say it, or the message of a refusal."""
    try:
        return plain(ask())
    except ValueError as error:
        return {"refused": str(error)}


def plain(value: Any) -> Any:
    """Lists and numbers instead of tensors."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    question, answers = map(Path, sys.argv[1:])
    asked_of = json.loads(question.read_text(encoding="utf-8"))
    found = answer(asked_of["folder"], asked_of["texts"], answers.parent / "scratch")
    answers.write_text(json.dumps(found), encoding="utf-8")
