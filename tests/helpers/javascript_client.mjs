// What an exported folder's JavaScript makes of texts.
//
//     node javascript_client.mjs FOLDER TOKENIZER MAX_TOKENS
//
// In: a JSON list of [text, token ids]. Out, a line each: the text's ids, its parts as [text, ids], these joined, and
// the text of the ids that came in.

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [folder, path, maxTokens] = process.argv.slice(2);
const { openVocabulary } = await import(pathToFileURL(`${folder}/translator.mjs`));
const { joinParts, lineSplitter } = await import(pathToFileURL(`${folder}/text_parts.mjs`));
const vocabulary = openVocabulary(await readFile(path), 3);
const parts = lineSplitter({ ...vocabulary, unknown: 3, maxTokens: Number(maxTokens) });
for (const [text, ids] of JSON.parse(await readFile("/dev/stdin", "utf8"))) {
  const found = parts(text);
  const joined = joinParts(found.map((part) => part.text));
  const pairs = found.map((part) => [part.text, part.tokens]);
  console.log(JSON.stringify([vocabulary.encode(text), pairs, joined, vocabulary.decode(ids)]));
}
