"""What a training step of SmolLM2-135M with LoRA would cost here: `python docs/numbers/smollm2_steps.py [--threads 1]`.

A decoder of SmolLM2-135M's shape (30 layers, width 576, 9 heads of which 3 are keys'), low-rank adapters of rank 8 on
the four matrices of attention, and one batch as `training/unhinted.py` makes them: 24 clips of 128 video tokens and
some 92 of text. Forward and backward alone; weights by chance, which cost what trained ones do. A part of the batch is
timed, and the whole reckoned from it.
"""

from __future__ import annotations

import argparse
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

CLIPS, TOKENS, TIMED, STEPS = 24, 220, 4, 2600
SHAPE = dict(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    vocab_size=49152,
    tie_word_embeddings=True,
)


def main() -> None:
    """Print seconds a step, and what `STEPS` of them would take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SHAPE))
    model = get_peft_model(plain, LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
    ids = torch.randint(0, SHAPE["vocab_size"], (TIMED, TOKENS))
    labels = ids.clone()
    labels[:, :-2] = -100  # the answer alone
    seconds = []
    for _ in range(args.rounds + 1):
        began, cpu = time.perf_counter(), time.process_time()
        hidden = model.base_model.model.model(ids).last_hidden_state[:, -3:]
        logits = model.base_model.model.lm_head(hidden)
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, -2:].flatten()).backward()
        seconds.append((time.perf_counter() - began, time.process_time() - cpu))
    wall, used = (sorted(each)[len(each) // 2] * CLIPS / TIMED for each in zip(*seconds[1:], strict=True))
    print(f"{args.threads} thread(s): {wall:.1f} s a step of {CLIPS} clips, {used:.1f} s of CPU")
    print(f"{STEPS} steps, as shapes-nohint took: {STEPS * used / 3600:.1f} hours of CPU")
    print(f"three hours of CPU: {3 * 3600 / used:.0f} steps")


if __name__ == "__main__":
    main()
