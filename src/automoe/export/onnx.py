"""A trained model as one ONNX graph that ONNX Runtime runs alone, without torch or this package.

translation.onnx   the graph of `automoe.inference.translation_graph`, beam search and all; of one that would
                   be larger than 2 GiB, the weights are in `translation.onnx.data` beside it
tokenizer.json     the vocabulary, for the library `tokenizers`
config.json        what a program that feeds the graph has to know, and the digests of these files
translate.py       such a program
text_parts.py      how a long line is split, for translate.py
translate.mjs      such a program for Node
index.html         such a program as a page
translator.mjs     what these two share; it needs text_parts.mjs and likely_tokens.mjs
package.json       what they need of npm

and with a shortlist:

shortlist.safetensors   the target tokens that source tokens make likely
likely_tokens.py        which of them a sentence's are, for translate.py
"""

from __future__ import annotations

import dataclasses
import shutil
from importlib import resources
from pathlib import Path

from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from automoe.export.export_folder import write_folder
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.finished_graph import OLDEST_RUNTIME, save_graph
from automoe.inference.graph import OPSET
from automoe.inference.graph_model import GraphPrecision, ModelGraph
from automoe.inference.model_folder import CONFIG, SHORTLIST, TOKENIZER, read_model
from automoe.inference.translation_graph import translation_graph
from automoe.storage import file_digest, whole_file, write_json, write_text

FAMILY = "automoe-onnx"
FORMAT = f"{FAMILY}-2"
GRAPH = "translation.onnx"
TEMPLATE = (
    *("translate.py", "translate.mjs", "index.html", "translator.mjs", "text_parts.mjs", "likely_tokens.mjs"),
    "package.json",
)


def export_onnx(
    folder: Path, output: Path, precision: GraphPrecision = "float32", shortlist: int = 0
) -> None:
    """Write the model folder `folder` as the ONNX folder `output`; an earlier export there is replaced.

    Args:
        shortlist: tokens that a sentence's translation is restricted to; 0 is all.

    Raises:
        InputError: `folder` is not a model folder, or has no shortlist where one is asked for; or `output`
            has other files or cannot be written.
    """
    model = read_model(folder)
    model.shortlister(shortlist)  # refuses what there is not
    graph = translation_graph(ModelGraph.of(model, precision), shortlist=bool(shortlist))
    config = {
        "format": FORMAT,
        "precision": precision,
        "opset": OPSET,
        "onnxruntime": ".".join(map(str, OLDEST_RUNTIME)),
        "architecture": model.architecture.to_dict(),
        "vocabulary_size": model.vocabulary_size,
        "pad_id": PAD_ID,
        "bos_id": BOS_ID,
        "eos_id": EOS_ID,
        "unk_id": UNK_ID,
        "shortlist": shortlist,
        "search": dataclasses.asdict(BeamSettings()),
    }

    def write(partial: Path) -> None:
        save_graph(graph, partial / GRAPH)
        with whole_file(partial / TOKENIZER) as temporary:
            shutil.copyfile(folder / TOKENIZER, temporary)
        if shortlist:
            with whole_file(partial / SHORTLIST) as temporary:
                shutil.copyfile(folder / SHORTLIST, temporary)
        digests = {path.name: file_digest(path) for path in sorted(partial.iterdir())}
        write_json(partial / CONFIG, config | {"sha256": digests})
        package = resources.files("automoe")
        programs = [package / "export" / "onnx_template" / name for name in TEMPLATE]
        programs.append(package / "data" / "text_parts.py")
        if shortlist:
            programs.append(package / "data" / "likely_tokens.py")
        for file in programs:
            write_text(partial / file.name, file.read_text(encoding="utf-8"))

    write_folder(output, ("format", FAMILY), write)
