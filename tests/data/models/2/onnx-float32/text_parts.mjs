// A line as the parts that a model translates one by one, and their translations as a line again: what
// text_parts.py does, which also says why.

const MAX_SOURCE_TOKENS = 1024; // of a part, end-of-sentence counted
const STAND_INS = { "\ufdd0": "<pad>", "\ufdd1": "<s>", "\ufdd2": "</s>" };

const CLOSING = "[\"'”’“‘»›)\\]）］」』】》〉]*";
const SENTENCE_END = new RegExp(`(?<![.!?…])[.!?…]+${CLOSING}(?= )|[。｡！？।॥۔؟։።។៕။།]+${CLOSING}`, "gu");
const CLAUSE_END = new RegExp(`(?<![,;:–—])[,;:–—]+${CLOSING}(?= )|[，、；：،؛፣၊]+${CLOSING}`, "gu");

// Letters and punctuation as wide as a square, in blocks of Unicode, but for Korean's.
const WIDE = "\\u2329\\u232a\\u2e80-\\u303e\\u3041-\\ua4cf\\uf900-\\ufaff\\ufe10-\\ufe6f\\uff01-\\uff60";
const WIDE_ABOVE = "\\u{16fe0}-\\u{1b2ff}\\u{20000}-\\u{3fffd}";
const NEEDS_NO_SPACE = new RegExp(`(?=[\\p{L}\\p{P}])(?!\\p{Script=Hangul})[${WIDE}${WIDE_ABOVE}]$`, "u");

// A function that splits a line into parts, {text, tokens}; a part without tokens is its own translation.
// encode: the token ids of a text, without end-of-sentence. normalise: a text as the vocabulary reads it.
// unknown: the id of the unknown token. wordless: the ids of the tokens without a letter.
export function lineSplitter({ encode, normalise, unknown, wordless, maxTokens = MAX_SOURCE_TOKENS }) {
  const fits = (tokens) => tokens.length < maxTokens;
  const short = (text) => fits(encode(text));

  function parts(line) {
    const tokens = encode(line);
    if (!tokens.length) return [];
    if (tokens.includes(unknown) && tokens.every((token) => token === unknown || wordless.has(token)))
      return [{ text: plain(line), tokens: [] }];
    if (fits(tokens)) return [{ text: line, tokens }];
    return pieces(normalise(line)).flatMap(parts);
  }

  function pieces(text) {
    let found = [text];
    for (const end of [SENTENCE_END, CLAUSE_END])
      found = found.flatMap((piece) => (short(piece) ? [piece] : cut(piece, end)));
    return found.flatMap(halves);
  }

  function halves(text) {
    const characters = [...text];
    if (characters.length < 2 || short(text)) return [text];
    const middle = characters.length >> 1;
    const [at = middle] = [characters.lastIndexOf(" ", middle), characters.indexOf(" ", middle)]
      .filter((space) => space > 0 && space < characters.length - 1)
      .sort((one, other) => Math.abs(one - middle) - Math.abs(other - middle));
    return [characters.slice(0, at), characters.slice(at)].flatMap((half) => halves(strip(half.join(""))));
  }

  function plain(line) {
    return strip(normalise(line).replace(/[\ufdd0-\ufdd2]/g, (standIn) => STAND_INS[standIn]));
  }

  return parts;
}

// One text of several: a space between two, but none behind Chinese or Japanese.
export function joinParts(texts) {
  const join = (joined, text) => joined + (!joined || NEEDS_NO_SPACE.test(joined) ? "" : " ") + text;
  return texts.filter(Boolean).reduce(join, "");
}

// The ids of the tokens without a letter, of a vocabulary's [token, id] pairs.
export function wordlessTokens(vocabulary) {
  return new Set([...vocabulary].filter(([token]) => !/\p{L}/u.test(token)).map(([, id]) => id));
}

function cut(text, end) {
  const ends = [...text.matchAll(end)].map((match) => match.index + match[0].length);
  return [0, ...ends].map((start, index) => strip(text.slice(start, ends[index]))).filter(Boolean);
}

// `trim` would take a byte-order mark away, too.
function strip(text) {
  return text.replace(/^ +| +$/g, "");
}
