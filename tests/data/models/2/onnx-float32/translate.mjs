// Translate standard input: npm install --ignore-scripts; node translate.mjs < text

import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { openTranslator } from "./translator.mjs";

// A line out for every line in, as soon as it is there, both in UTF-8.
async function main() {
  const translate = await openTranslator(ort, (name) => readFile(new URL(name, import.meta.url)));
  let number = 0;
  for await (const line of lines(process.stdin)) {
    number += 1;
    process.stdout.write(`${await translate(decoded(line, number))}\n`);
  }
}

// The lines of a stream as bytes; they end at a line feed and nowhere else.
async function* lines(stream) {
  let rest = "";
  for await (const chunk of stream.setEncoding("latin1")) {
    const found = (rest + chunk).split("\n");
    rest = found.pop();
    for (const line of found) yield Buffer.from(line, "latin1");
  }
  if (rest) yield Buffer.from(rest, "latin1");
}

function decoded(line, number) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(line).replace(/\r+$/, "");
  } catch {
    throw new Error(`standard input, line ${number}: is not UTF-8`);
  }
}

function fail(message, code) {
  console.error(`translate.mjs: ${message}`);
  process.exitCode = code;
}

process.stdout.on("error", (error) => {
  fail(`standard output fails: ${error.message}`, 1); // the reader is gone, or the disk is full
  process.exit();
});
main().catch((error) => fail(error.message, 2));
