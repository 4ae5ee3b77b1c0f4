"""What a plan wants, and what of it a pool lacks, as requests."""

from retort.records import Request
from retort.store.plan import Plan, distinct, request_of


def requests_of(plan: Plan) -> list[Request]:
    """Every wanted chain, partition by partition."""
    prompts = [prompt for partition in plan.partitions.values() for prompt in distinct(partition)]
    return [request_of(prompt, index, plan.max_new_tokens) for prompt in prompts for index in range(prompt.num_chains)]


def missing(plan: Plan) -> list[Request]:
    """Wanted chains that no durable row answers, partition by partition."""
    gaps = [gap for partition in plan.partitions for gap in plan.survey(partition).gaps]
    return [request_of(gap.prompt, index, plan.max_new_tokens) for gap in gaps for index in gap.indexes]
