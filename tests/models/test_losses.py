from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses import (
    Multitask,
    RiskSets,
    Ties,
    cox,
    focal_tversky,
    focal_tversky_of_counts,
)
from models.outcome import Outcomes, concordance, simulate

F64 = torch.float64


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "loss"),
    [(2, 1, 0, (1 - 2 / 2.3) ** 0.75), (2, 0, 1, (1 - 2 / 2.7) ** 0.75)],  # 0.2170 and 0.3633
)
def test_a_miss_costs_more_than_a_false_alarm(tp: int, fp: int, fn: int, loss: float) -> None:
    counts = (torch.tensor(float(n), dtype=F64) for n in (tp, fp, fn))
    assert float(focal_tversky_of_counts(*counts)) == pytest.approx(loss, abs=1e-12)
    assert loss == pytest.approx(0.2170 if fp else 0.3633, abs=5e-5)


def test_focal_tversky_of_masks_is_that_of_their_counts() -> None:
    target = torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0]).reshape(1, 1, 2, 2, 2)
    found = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0]).reshape(1, 1, 2, 2, 2)
    logits = torch.where(found > 0, 40.0, -40.0)
    assert float(focal_tversky(logits, target, smooth=0.0)) == pytest.approx(0.2170, abs=5e-5)
    both = torch.cat([logits, torch.where(target > 0, 40.0, -40.0)])
    assert float(focal_tversky(both, torch.cat([target, target]), smooth=0.0)) == pytest.approx(
        0.1085, abs=5e-5
    )


def test_a_perfect_mask_and_an_empty_one_where_nothing_is_leave_finite_gradients() -> None:
    for target in (torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)):
        logits = torch.where(target > 0, 60.0, -60.0).requires_grad_()
        loss = focal_tversky(logits, target)
        assert float(loss.detach()) < 1e-4
        (slope,) = torch.autograd.grad(loss, logits)
        assert bool(torch.isfinite(slope).all())


def by_hand(log_hazard: np.ndarray, duration: np.ndarray, event: np.ndarray, ties: Ties) -> float:
    """The definition, sum by sum."""
    total = 0.0
    for time in np.unique(duration[event]):
        dead = event & (duration == time)
        d, risk = int(dead.sum()), np.exp(log_hazard[duration >= time]).sum()
        tied = np.exp(log_hazard[dead]).sum()
        total -= log_hazard[dead].sum()
        total += sum(np.log(risk - (j / d if ties == "efron" else 0.0) * tied) for j in range(d))
    return float(total / event.sum())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 30),
    last=st.integers(1, 12),
    ties=st.sampled_from(["efron", "breslow"]),
)
def test_the_cox_loss_is_its_definition_whatever_is_tied(seed: int, n: int, last: int, ties: Ties) -> None:
    random = np.random.default_rng(seed)
    log_hazard, duration = random.normal(0, 2, n), random.integers(1, last + 1, n).astype(float)
    event = random.random(n) < 0.6
    event[random.integers(n)] = True
    value = cox(*(torch.as_tensor(a) for a in (log_hazard, duration, event)), ties=ties)
    assert float(value) == pytest.approx(by_hand(log_hazard, duration, event, ties), abs=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_the_gradient_of_the_cox_loss_is_that_of_finite_differences(ties: Ties) -> None:
    random = np.random.default_rng(1)
    duration = torch.as_tensor(random.integers(1, 6, 14).astype(float))
    event = torch.as_tensor(random.random(14) < 0.7)
    risk = torch.as_tensor(random.normal(0, 1, 14)).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: cox(r, duration, event, ties=ties), (risk,))


def test_hazards_far_apart_stay_finite() -> None:
    risk = torch.tensor([400.0, -400.0, 0.0, 90.0]).requires_grad_()
    loss = cox(risk, torch.tensor([1.0, 1.0, 2.0, 1.0]), torch.tensor([True, True, True, True]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(loss)) and risk.grad is not None and bool(torch.isfinite(risk.grad).all())


def test_a_batch_without_an_event_costs_nothing_and_still_has_a_gradient() -> None:
    risk = torch.tensor([1.0, 2.0]).requires_grad_()
    loss = cox(risk, torch.tensor([1.0, 2.0]), torch.tensor([False, False]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0 and risk.grad is not None and risk.grad.tolist() == [0.0, 0.0]


def test_a_linear_model_fitted_by_the_loss_is_the_one_of_lifelines() -> None:
    import pandas as pd
    from lifelines import CoxPHFitter

    random = np.random.default_rng(4)
    features = random.normal(size=(120, 2))
    duration = np.ceil(random.exponential(np.exp(-features @ [0.8, -0.5])) * 6)  # months: many ties
    event = random.random(120) < 0.7
    frame = pd.DataFrame({"a": features[:, 0], "b": features[:, 1], "t": duration, "e": event})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitter = CoxPHFitter().fit(frame, "t", "e")
    x, t, e = (torch.as_tensor(a) for a in (features, duration, event))
    beta = torch.zeros(2, dtype=F64, requires_grad=True)
    steps = torch.optim.LBFGS([beta], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        steps.zero_grad()
        loss = cox(x @ beta, t, e)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    steps.step(closure)  # type: ignore[no-untyped-call]
    assert beta.detach().numpy() == pytest.approx(fitter.params_.to_numpy(), abs=1e-5)
    assert -float(closure().detach()) * int(event.sum()) == pytest.approx(fitter.log_likelihood_, abs=1e-5)


def test_with_a_bank_the_batches_of_an_epoch_have_the_gradient_of_the_full_batch() -> None:
    random = np.random.default_rng(2)
    duration, event = torch.as_tensor(random.exponential(5, 20)), torch.as_tensor(random.random(20) < 0.6)
    risk = torch.as_tensor(random.normal(size=20)).requires_grad_()
    (whole,) = torch.autograd.grad(cox(risk, duration, event), risk)
    bank = RiskSets(duration, event)
    bank.log_hazard = risk.detach().clone()
    parts = torch.zeros_like(whole)
    for here in torch.randperm(20, generator=torch.Generator().manual_seed(0)).split(3):
        parts += torch.autograd.grad(bank.loss(here, risk[here]), risk)[0]
    assert parts.numpy() == pytest.approx(whole.numpy(), abs=1e-7)


def test_the_bank_counts_only_whom_it_has_seen_and_nobody_twice() -> None:
    bank = RiskSets(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, True, False]))
    assert float(bank.loss([1], torch.tensor([0.3]))) == pytest.approx(0.0)
    assert float(bank.loss([0], torch.tensor([0.3]))) == pytest.approx(math.log(2) / 2)
    assert float(bank.null()) == pytest.approx((math.log(3) + math.log(2)) / 2)
    with pytest.raises(ValueError, match="twice"):
        bank.loss([0, 0], torch.zeros(2))


def test_sixty_and_forty_hold_for_a_network_that_knows_nothing() -> None:
    bank = RiskSets(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(4, dtype=torch.bool))
    both = Multitask(null_cox=float(bank.null()))
    total, log = both(torch.tensor(1.0), bank.loss(range(4), torch.zeros(4)))
    assert float(total) == pytest.approx(1.0)
    assert log["segmentation_share"] == pytest.approx(0.6) and log["cox_share"] == pytest.approx(0.4)
    assert log["cox"] == pytest.approx(math.log(24) / 4)


def test_small_batches_with_a_bank_learn_the_hazard_of_patients_they_never_saw() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 3))
    eta = features @ [1.0, -0.7, 0.0]
    made = simulate(eta, scale=24.0, shape=1.3, censoring_scale=60.0, follow_up=60.0, seed=1)
    x, old = torch.as_tensor(features, dtype=torch.float32), slice(0, 200)
    bank = RiskSets(torch.as_tensor(made.duration[old]), torch.as_tensor(made.event[old]))
    torch.manual_seed(0)
    head = torch.nn.Linear(3, 1, bias=False)
    steps = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(10):
        for here in np.array_split(random.permutation(200), 50):
            steps.zero_grad()
            bank.loss(here.tolist(), head(x[here])[:, 0]).backward()  # type: ignore[no-untyped-call]
            steps.step()
    new = Outcomes(duration=made.duration[200:], event=made.event[200:])
    predicted = head(x[200:])[:, 0].detach().numpy()
    assert concordance(predicted, new) > 0.97 * concordance(eta[200:], new)
