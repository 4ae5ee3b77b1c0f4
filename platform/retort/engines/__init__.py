"""Engines: what turns a prompt into a completion. One file an engine, one line in the dict."""

from retort.engines import replay, vllm

ENGINES = {"vllm": vllm, "replay": replay}
