"""Engines: what turns a prompt into a completion. One file an engine, one line in the dict."""

from retort.engines import endpoint, hf, replay, vllm

ENGINES = {"vllm": vllm, "hf": hf, "endpoint": endpoint, "replay": replay}
