"""Sampling: many chains of each prompt from one model, durable as they finish, none bought twice."""

from retort.sampling.config import Pilot, SamplingConfig
from retort.sampling.driver import Model, plan, sample
from retort.sampling.tally import Sampled

__all__ = ["Model", "Pilot", "Sampled", "SamplingConfig", "plan", "sample"]
