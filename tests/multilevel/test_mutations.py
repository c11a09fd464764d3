"""Each of these defects, written into a copy of the package, must fail the oracle that passes on the package."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checks import check_one_step, check_step, mutant

SCALAR = 'loss_upper - inner if at.paths == "both" else -inner'
HEAD = 'losses["loss_head"] = self._omega_steps(heads, encoded)'
MUTATIONS: dict[str, tuple[Callable, str, list[tuple[str, str]]]] = {
    "sign of the head's path": (check_one_step, "response.py", [(SCALAR, SCALAR.replace("-", "+", 1))]),
    "sign of the result": (check_one_step, "products.py", [("scale(-1.0 / chunks", "scale(1.0 / chunks")]),
    "direct path dropped": (check_one_step, "response.py", [(SCALAR, "-inner")]),
    "head path dropped": (check_one_step, "response.py", [(SCALAR, "loss_upper")]),
    "mask recomputed": (check_step, "step.py", [("self.phi, lower_batch)", "self.phi, self._freeze(lower_batch))")]),
    "mask never frozen": (check_step, "step.py", [("last = self._freeze(last)", "pass")]),
    "mask frozen before all steps": (
        check_step,
        "step.py",
        [
            ("last = self._freeze(last)", "pass"),
            ("*first, last = lower_batches", "*first, last = lower_batches; last = self._freeze(last)"),
        ],
    ),
    "head not updated first": (
        check_step,
        "step.py",
        [
            (HEAD, f"self.old = {{k: t.detach().clone() for k, t in self.omega.items()}}; {HEAD}"),
            ("self.theta, self.omega, head_batch", "self.theta, self.old, head_batch"),
        ],
    ),
    "theta not updated first": (
        check_step,
        "step.py",
        [("lower.append(self._theta_step(last))", 'lower.append(lower[0]); losses = {"loss_lower": lower[0]}')],
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutant_fails(name: str, tmp_path: Path) -> None:
    check, file, replacements = MUTATIONS[name]
    broken = mutant(tmp_path, file, *replacements)
    with pytest.raises(AssertionError):
        check(broken)


@pytest.mark.parametrize("check", [check_one_step, check_step])
def test_unchanged_copy_passes(check: Callable, tmp_path: Path) -> None:
    check(mutant(tmp_path, "step.py"))
