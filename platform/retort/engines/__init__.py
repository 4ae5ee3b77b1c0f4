"""Engines: what turns a prompt into a completion. One file an engine, one line in the dict."""

from retort.engines import hf, replay, vllm

ENGINES = {"vllm": vllm, "hf": hf, "replay": replay}
