"""What a decoder's mixers cost: the same model with each of them, timed in turns.

    python benchmarks/decoder_mixers.py [--backend onnx] [--precision float32] [--batch 1] [--runs 300]

For each length of a translation, one line a mixer: encoder and decoder in ms, and why not to believe
the figures, if so. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse

from automoe.cost.measure import measure_together, why_noisy
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import MIXERS, dense, with_mixer

LENGTHS = (30, 60, 120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--ffn-size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=300)
    asked = parser.parse_args()
    attention = dense(asked.width, asked.ffn_size, 4, 6, asked.layers)
    subjects = {mixer: with_mixer(attention, mixer) for mixer in reversed(MIXERS)}
    for length in LENGTHS:
        protocol = MeasuringProtocol(
            backend=asked.backend,
            precision=asked.precision,
            source_length=length,
            target_length=length,
            vocabulary_size=4000,
            threads=asked.threads,
            batch=asked.batch,
            norm="pre",
        )
        measured = measure_together(protocol, subjects, asked.runs)
        for mixer, latency in measured.items():
            figures = f"encoder {latency.encoder_ms:8.2f} ms, decoder {latency.decoder_ms:8.2f} ms"
            print(f"{length:4} tokens  {mixer:18} {figures}  {why_noisy(latency) or ''}", flush=True)


if __name__ == "__main__":
    main()
