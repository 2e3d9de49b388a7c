"""Makes a model of 119,232 random parameters that vLLM can serve: python model.py FOLDER"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

folder = sys.argv[1]
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=320,
    special_tokens=["<|end|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
)
tokenizer.train_from_iterator(["A hypervisor runs containers.", "Containers serve models."], trainer)
wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
wrapped.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
wrapped.save_pretrained(folder)

torch.manual_seed(0)
config = Qwen3Config(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=1024,
    eos_token_id=wrapped.eos_token_id,
    bos_token_id=None,
)
Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
