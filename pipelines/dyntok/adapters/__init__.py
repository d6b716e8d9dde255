"""From stored tokens into other libraries' LLM stages.

`huggingface` has `load_language_model` and `TokenLM`, over `packing` (does a model keep packed sequences apart?) and
`checkpoint` (the LLM inside a LLaVA checkpoint); `trainer` the `TokenTrainer`, `vllm` prompts as embeddings,
`answering` an `Answerer` of questions about stored videos. `lmms_eval` is the evaluation plug-in, over `evaluation`
and `video_ids`. May import `load`, `merging`, `store`, `vision`, `errors` and `records`; nothing imports it. Each
module imports its own library when it is used, so the others need not be installed.
"""
