"""What machines cost: a table that its users edit, `cluster/prices.toml`.

[aws."us-east-1"]
"g6.xlarge" = { on_demand = 0.8048, spot = 0.3525 }    # dollars an hour
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from retort.cluster.nodes import Launch, NodeType


class Price(BaseModel):
    """One hour of one machine, in dollars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_demand: float = Field(gt=0, allow_inf_nan=False)
    spot: float | None = Field(default=None, gt=0, allow_inf_nan=False)


Prices = Mapping[str, Mapping[str, Mapping[str, Price]]]
"""By provider, region and instance."""


def read_prices(path: Path) -> Prices:
    """A table of prices.

    Raises:
        ValueError: it is not one; the line names the first row that is wrong.
    """
    try:
        rows = tomllib.loads(path.read_text())
        return TypeAdapter(dict[str, dict[str, dict[str, Price]]]).validate_python(rows)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"prices {path}: {place}: {first['msg']}; expected {{ on_demand = 0.80, spot = 0.35 }}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"prices {path}: {error}") from error


def hourly(kind: NodeType, launch: Launch, prices: Prices) -> float | None:
    """Dollars an hour of one machine; None where the table has no price of it."""
    price = prices.get(launch.provider, {}).get(launch.region, {}).get(kind.instance)
    if price is None:
        return None
    return price.spot if kind.is_spot else price.on_demand
