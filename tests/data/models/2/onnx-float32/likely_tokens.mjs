// Which tokens a translation may need, from what the tokens of its source mostly become: what likely_tokens.py does, for
// one sentence.

const SPECIAL_TOKENS = 4;
const COPIED = 65_535; // what a token counts for its own translation: as much as a certain one
const KINDS = { U8: Uint8Array, U16: Uint16Array, U32: Uint32Array, F32: Float32Array };

// The ids of the `size` tokens that are likely, in their order; equal ones in the order of their ids.
// tokens, weights: what each token becomes, and how probably. shares: of each token in any text.
export function likelyTokens(source, { tokens, weights, shares }, size) {
  const scores = new Float64Array(shares.length);
  const becomes = tokens.length / shares.length;
  for (const token of source)
    for (let k = token * becomes; k < (token + 1) * becomes; k += 1) scores[tokens[k]] += weights[k];
  shares.forEach((share, token) => (scores[token] += share));
  for (const token of new Set(source)) scores[token] += COPIED;
  scores.fill(Infinity, 0, SPECIAL_TOKENS);

  const least = scores.toSorted().at(-Math.min(size, scores.length));
  let room = size - scores.filter((score) => score > least).length;
  return [...scores.keys()].filter((id) => scores[id] > least || (scores[id] === least && room-- > 0));
}

// The tensors of a safetensors file by name, each one flat.
export function readTensors(bytes) {
  const start = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const tensors = Object.entries(header).map(([name, { dtype, data_offsets: [from, to] }]) => {
    const copy = Uint8Array.from(bytes.subarray(start + from, start + to)); // whose beginning fits any kind
    return [name, new KINDS[dtype](copy.buffer)];
  });
  return Object.fromEntries(tensors);
}
