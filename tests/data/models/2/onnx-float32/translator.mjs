// What translate.mjs and index.html share: a folder that is opened and checked, and the translation of a line.

import { Tokenizer } from "@huggingface/tokenizers";
import { likelyTokens, readTensors } from "./likely_tokens.mjs";
import { joinParts, lineSplitter, wordlessTokens } from "./text_parts.mjs";

const FORMAT = "automoe-onnx-2";
const KEYS = ["sha256", "vocabulary_size", "onnxruntime", "eos_id", "unk_id", "shortlist", "search"];
const LONGEST_WORD = 50_000; // the tokens of a word become the arguments of one call

// A function from a line to the promise of its translation; throws what is wrong with the folder.
// ort: onnxruntime-node or onnxruntime-web. read: from the name of a file of the folder to its bytes' promise.
export async function openTranslator(ort, read) {
  const config = parsed("config.json", await read("config.json"));
  const format = config?.format;
  if (format !== FORMAT) throw new Error(`config.json: is of the format ${format}, not ${FORMAT}`);
  const missing = KEYS.filter((key) => !(key in config));
  if (missing.length) throw new Error(`config.json: lacks ${missing.join(", ")}`);
  const { eos_id: eos, unk_id: unknown, search, sha256 } = config;
  if ("translation.onnx.data" in sha256) throw new Error("the model is too large for JavaScript: take translate.py");
  const names = ["translation.onnx", "tokenizer.json", ...(config.shortlist ? ["shortlist.safetensors"] : [])];
  const [graph, json, tables] = await Promise.all(
    names.map(async (name) => checked(name, await read(name), sha256[name])),
  );
  const vocabulary = openVocabulary(json, unknown);
  const [found, told] = [vocabulary.size, config.vocabulary_size];
  if (found !== told) throw new Error(`tokenizer.json: has ${found} tokens, but config.json says ${told}`);
  const session = await opened(ort, graph, config.onnxruntime);
  const tensors = tables && readTensors(tables);

  function ints(values, shape = [values.length]) {
    return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), shape);
  }

  async function translateTokens(source) {
    const longest = Math.trunc(search.max_length_ratio * source.length + search.max_length_extra);
    const feeds = {
      source: ints(source, [1, source.length]),
      max_lengths: ints([Math.max(longest, search.min_length)]),
      length_penalty: new ort.Tensor("float32", [search.length_penalty], []),
    };
    for (const name of ["beam_size", "n_best", "min_length"]) feeds[name] = ints([search[name]]);
    if (tensors) feeds.shortlist = ints(likelyTokens(source, tensors, config.shortlist));
    const { tokens } = await session.run(feeds, ["tokens"]);
    return vocabulary.decode(Array.from(tokens.data.subarray(0, tokens.dims[2]), Number));
  }

  const parts = lineSplitter({ ...vocabulary, unknown });
  return async (line) => {
    if (line.split(" ").some((word) => word.length > LONGEST_WORD))
      throw new Error(`a word of more than ${LONGEST_WORD} characters is too long`);
    const texts = [];
    for (const { text, tokens } of parts(line))
      texts.push(tokens.length ? await translateTokens([...tokens, eos]) : text);
    return joinParts(texts);
  };
}

// The vocabulary of a tokenizer.json, given as its bytes, which reads as the library in Rust does.
export function openVocabulary(bytes, unknown) {
  // JavaScript's `trim` would take a byte-order mark away, too.
  const strip = { type: "Replace", pattern: { Regex: "\\A\\s+|\\s+\\z" }, content: "" };
  const json = parsed("tokenizer.json", bytes, (_, value) => (value?.type === "Strip" ? strip : value));
  const words = { type: "Split", pattern: { Regex: "▁[^▁]*" }, invert: true };
  const pre_tokenizer = { type: "Sequence", pretokenizers: [json.pre_tokenizer, words] };
  // Without added tokens, text never becomes a special one, not even when it spells it.
  const tokenizer = new Tokenizer(
    { ...json, added_tokens: [], pre_tokenizer },
    { clean_up_tokenization_spaces: false },
  );
  const tokens = tokenizer.get_vocab();
  return {
    size: tokens.size,
    wordless: wordlessTokens(tokens),
    normalise: (text) => tokenizer.normalizer?.(text) ?? text,
    encode: (text) => tokenizer.encode(text).ids.map((id) => Math.max(id, unknown)),
    decode(ids) {
      const spelled = ids.filter((id) => id > unknown); // special tokens come first
      return spelled.length ? tokenizer.decode(spelled) : "";
    },
  };
}

function parsed(name, bytes, reviver) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes), reviver);
  } catch (error) {
    throw new Error(`${name}: is damaged: ${error.message}`);
  }
}

// A page that is neither of this machine nor encrypted can compute no digest.
async function checked(name, bytes, sha256) {
  const digest = new Uint8Array((await globalThis.crypto.subtle?.digest("SHA-256", bytes)) ?? []);
  const hexadecimal = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hexadecimal && hexadecimal !== sha256)
    throw new Error(
      `${name}: is not the file that config.json was written with; copy the whole folder, or export anew`,
    );
  return bytes;
}

async function opened(ort, graph, oldest) {
  const version = ort.env.versions.common;
  if (comparable(version) < comparable(oldest))
    throw new Error(`onnxruntime ${version} is too old: translation.onnx needs ${oldest} or a newer one`);
  try {
    return await ort.InferenceSession.create(graph);
  } catch (error) {
    throw new Error(`onnxruntime ${version} cannot run translation.onnx: ${error.message}`);
  }
}

function comparable(version) {
  const [major, minor] = version.split(".").map(Number);
  return 1000 * major + minor;
}
