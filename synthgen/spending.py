"""What answers cost, and the part of a budget that is counted in task order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synthgen.engines.base import Completion
from synthgen.recipe import Budget
from synthgen.recipe_models import Prices

UNITS = 10**12  # of one unit of money: whole numbers add up to the same in any order


@dataclass(slots=True)
class Spent:
    """Tokens, and money (in units of 1e-12) where the recipe gives prices."""

    input_tokens: int = 0
    output_tokens: int = 0
    units: int = 0

    @property
    def money(self) -> float:
        """What it cost."""
        return self.units / UNITS

    def add(self, completion: Completion, prices: Prices | None) -> None:
        """Count one answer."""
        self.input_tokens += completion.input_tokens
        self.output_tokens += completion.output_tokens
        if prices is not None:
            self.units += completion.input_tokens * _units_a_token(prices.input)
            self.units += completion.output_tokens * _units_a_token(prices.output)

    def more(self, other: Spent) -> None:
        """Count what another counted."""
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.units += other.units

    def exhausts(self, budget: Budget) -> str | None:
        """Which part of the budget this spends: `output_tokens`, `money`, or None."""
        if budget.output_tokens is not None and self.output_tokens >= budget.output_tokens:
            return "output_tokens"
        if budget.money is not None and self.units >= budget.money * UNITS:
            return "money"
        return None

    def share(self, budget: Budget) -> float:
        """How much of the budget is spent, from 0; the part that is spent most."""
        shares = [0.0]
        if budget.output_tokens is not None:
            shares.append(self.output_tokens / budget.output_tokens)
        if budget.money is not None:
            shares.append(self.money / budget.money)
        return max(shares)

    def as_json(self) -> dict[str, Any]:
        """To be stored."""
        return {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "units": self.units}


def _units_a_token(price: float) -> int:
    """A price is for a million tokens."""
    return round(price * (UNITS // 10**6))
