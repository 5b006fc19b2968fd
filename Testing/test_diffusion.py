"""Schedules, samplers and guidance, against MONAI, diffusers and closed forms."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from DEMISTCore.diffusion import SAMPLERS, Guided, NoiseSchedule, SeededNoise, ddim, ddpm, dpmpp_2m

SHAPE = (2, 3, 4, 5, 6)


def network(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A smooth, non-linear stand-in that depends on z, on its neighbours and on t."""
    return torch.tanh(0.7 * z + 0.2 * z.roll(1, -1) + 0.003 * t.reshape(-1, 1, 1, 1, 1) - 0.1)


def plain_noise(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(tuple(shape), generator=generator)


# Schedules ------------------------------------------------------------------------------------------------------------

MONAI_KIND = {"linear": "linear_beta", "scaled_linear": "scaled_linear_beta", "cosine": "cosine"}


def monai_scheduler(cls, schedule: NoiseSchedule, **options):
    ends = {} if schedule.kind == "cosine" else {"beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    prediction = {"v": "v_prediction", "epsilon": "epsilon"}[schedule.prediction]
    return cls(
        schedule.steps, MONAI_KIND[schedule.kind], prediction_type=prediction, clip_sample=False, **ends, **options
    )


@pytest.mark.parametrize("kind", MONAI_KIND)
def test_schedule_agrees_with_monai(kind):
    from monai.networks.schedulers import DDPMScheduler

    ours = NoiseSchedule(1000, kind, 1e-4, 2e-2)
    theirs = monai_scheduler(DDPMScheduler, ours)
    np.testing.assert_allclose(ours.alphas_cumprod.numpy(), theirs.alphas_cumprod.numpy(), rtol=2e-4, atol=1e-8)
    z0, noise, t = torch.randn(SHAPE), torch.randn(SHAPE), torch.tensor([3, 700])
    torch.testing.assert_close(ours.add_noise(z0, noise, t), theirs.add_noise(z0, noise, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.target(z0, noise, t), theirs.get_velocity(z0, noise, t), rtol=1e-4, atol=1e-5)


def test_zero_terminal_snr_agrees_with_diffusers():
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    plain, rescaled = NoiseSchedule(), NoiseSchedule(zero_snr=True)
    expected = rescale_zero_terminal_snr(plain.betas.clone())
    np.testing.assert_allclose(rescaled.betas.numpy(), expected.numpy(), rtol=1e-9)
    assert rescaled.abar(999) == 0.0
    assert rescaled.abar(0) == pytest.approx(plain.abar(0), rel=1e-12)


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_prediction_and_estimates_are_inverse(prediction):
    schedule = NoiseSchedule(prediction=prediction)
    z0, noise, t = torch.randn(SHAPE), torch.randn(SHAPE), torch.tensor([0, 600])
    z_t = schedule.add_noise(z0, noise, t)
    target = schedule.target(z0, noise, t)
    torch.testing.assert_close(schedule.to_x0(target, z_t, t), z0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(schedule.to_eps(target, z_t, t), noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 7, 10, 20, 999, 1000])
def test_timesteps_agree_with_diffusers(n):
    from diffusers import DPMSolverMultistepScheduler

    theirs = DPMSolverMultistepScheduler(1000, timestep_spacing="trailing")
    theirs.set_timesteps(n)
    assert NoiseSchedule().timesteps(n) == theirs.timesteps.tolist()


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("spacing", ["trailing", "karras", "linspace"])
def test_timesteps_fall_strictly_from_the_last_time(spacing, zero_snr):
    schedule = NoiseSchedule(100, zero_snr=zero_snr, spacing=spacing)
    for n in (1, 2, 5, 10, 50, 99, 100):
        times = schedule.timesteps(n)
        assert len(times) == n
        assert times[0] == 99
        assert times[-1] >= 0
        assert times == sorted(set(times), reverse=True)


def test_schedule_survives_json_and_refuses_nonsense():
    schedule = NoiseSchedule(500, "cosine", prediction="v", zero_snr=True, spacing="karras")
    assert NoiseSchedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    for bad in (
        {"kind": "quadratic"},
        {"prediction": "x"},
        {"spacing": "odd"},
        {"steps": 0},
        {"beta_end": 2.0},
        {"zero_snr": True, "prediction": "epsilon"},
    ):
        with pytest.raises(ValueError, match=r".+"):
            NoiseSchedule(**bad)
    for n in (0, 1001):
        with pytest.raises(ValueError, match="1 to 1000"):
            NoiseSchedule().timesteps(n)


# Samplers, step for step against others -------------------------------------------------------------------------------


def collect(sampler, schedule, steps, seed=11, **options):
    """(every running x0 estimate, result) of one of our samplers, from the noise of ``seed``."""
    noise, estimates = plain_noise(seed), []
    result = sampler(
        network, noise(SHAPE), schedule, steps, noise=noise, callback=lambda i, n, x0: estimates.append(x0), **options
    )
    assert len(estimates) == steps
    return estimates, result


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("kind", MONAI_KIND)
def test_ddpm_agrees_with_monai_step_for_step(kind, prediction):
    from monai.networks.schedulers import DDPMScheduler

    schedule = NoiseSchedule(40, kind, 1e-3, 0.2, prediction=prediction)
    theirs = monai_scheduler(DDPMScheduler, schedule)
    theirs.set_timesteps(40)
    generator = torch.Generator().manual_seed(11)
    z = torch.randn(SHAPE, generator=generator)
    estimates, result = collect(ddpm, schedule, 40)
    for t, estimate in zip(theirs.timesteps.tolist(), estimates):
        z, x0 = theirs.step(network(z, torch.tensor([t, t])), t, z, generator)
        torch.testing.assert_close(estimate, x0, rtol=2e-3, atol=2e-3 * float(x0.abs().max()))
    torch.testing.assert_close(result, z, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_ddim_agrees_with_monai_step_for_step(prediction, eta):
    from monai.networks.schedulers import DDIMScheduler

    schedule = NoiseSchedule(100, "scaled_linear", 0.001, 0.1, prediction=prediction)
    theirs = monai_scheduler(DDIMScheduler, schedule)
    theirs.set_timesteps(10)  # MONAI then steps by 100 // 10, which is what trailing spacing gives
    generator = torch.Generator().manual_seed(11)
    z = torch.randn(SHAPE, generator=generator)
    estimates, result = collect(ddim, schedule, 10, eta=eta)
    for t, estimate in zip(schedule.timesteps(10), estimates):
        z, x0 = theirs.step(network(z, torch.tensor([t, t])), t, z, eta, generator)
        torch.testing.assert_close(estimate, x0, rtol=1e-3, atol=1e-4 * float(x0.abs().max()))
    torch.testing.assert_close(result, z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 25])
@pytest.mark.parametrize(
    ("kind", "prediction", "zero_snr"),
    [
        ("scaled_linear", "v", False),
        ("scaled_linear", "epsilon", False),
        ("scaled_linear", "v", True),
        ("cosine", "v", False),
        ("cosine", "epsilon", False),
    ],
)
def test_dpmpp_2m_agrees_with_diffusers_step_for_step(kind, prediction, zero_snr, steps):
    from diffusers import DPMSolverMultistepScheduler

    schedule = NoiseSchedule(1000, kind, prediction=prediction, zero_snr=zero_snr)
    theirs = DPMSolverMultistepScheduler(
        1000,
        schedule.beta_start,
        schedule.beta_end,
        "squaredcos_cap_v2" if kind == "cosine" else kind,
        prediction_type="v_prediction" if prediction == "v" else "epsilon",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=zero_snr,
        euler_at_final=True,
    )
    theirs.set_timesteps(steps)
    z = plain_noise(11)(SHAPE)
    estimates, result = collect(dpmpp_2m, schedule, steps)
    # diffusers keeps the schedule in float32 and sets the last abar of a zero-SNR schedule to 2^-24 instead of 0.
    tolerance = 3e-3 if zero_snr or kind == "cosine" else 2e-4
    for t, estimate in zip(theirs.timesteps.tolist(), estimates):
        prediction_t = network(z, torch.tensor([t, t]))
        if theirs.step_index is None:
            theirs._init_step_index(t)
        x0 = theirs.convert_model_output(prediction_t, sample=z)
        z = theirs.step(prediction_t, t, z).prev_sample
        torch.testing.assert_close(estimate, x0, rtol=tolerance, atol=tolerance * float(x0.abs().max()))
    torch.testing.assert_close(result, z, rtol=tolerance, atol=tolerance * float(z.abs().max()))


# Samplers against a closed form ---------------------------------------------------------------------------------------

MEAN, SD = 0.4, 0.6


def exact_denoiser(schedule: NoiseSchedule):
    """The optimal prediction for data distributed as N(MEAN, SD^2): E[z_0 | z_t] in the schedule's own currency."""

    def model(z, t):
        alpha, sigma = schedule.alpha_sigma(t, z)
        x0 = MEAN + alpha * SD**2 / (alpha**2 * SD**2 + sigma**2) * (z - alpha * MEAN)
        eps = (z - alpha * x0) / sigma
        return eps if schedule.prediction == "epsilon" else alpha * eps - sigma * x0

    return model


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 1.0), ("dpmpp_2m", 0.0)])
def test_gaussian_data_is_sampled_with_its_mean_and_spread(name, eta, prediction):
    schedule = NoiseSchedule(1000, prediction=prediction, beta_start=1e-4, beta_end=2e-2)
    noise = SeededNoise([5])
    steps = 300 if name == "dpmpp_2m" else 1000
    z0 = SAMPLERS[name](exact_denoiser(schedule), noise((1, 20000)), schedule, steps, noise=noise, eta=eta)
    assert float(z0.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(z0.std()) == pytest.approx(SD, rel=0.03)


def test_karras_spacing_keeps_the_spread_with_ten_steps():
    """What it is for: ten evenly spaced steps lose a quarter of the spread in the last jump, these do not."""
    spread = {}
    for spacing in ("trailing", "karras"):
        schedule = NoiseSchedule(zero_snr=True, spacing=spacing)
        noise = SeededNoise([5])
        z0 = dpmpp_2m(exact_denoiser(schedule), noise((1, 20000)), schedule, 10, noise=noise)
        spread[spacing] = float(z0.std()) / SD
    assert abs(spread["karras"] - 1) < 0.06
    assert spread["trailing"] < 0.85


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("spacing", ["trailing", "karras"])
def test_pure_noise_start_and_any_number_of_steps_stay_finite(name, spacing):
    schedule = NoiseSchedule(50, zero_snr=True, spacing=spacing)
    for steps in (1, 2, 3, 49, 50):
        noise = SeededNoise([1])
        z0 = SAMPLERS[name](network, noise((1, 1, 4, 4, 4)), schedule, steps, noise=noise, eta=0.3)
        assert torch.isfinite(z0).all()
        assert z0.dtype == torch.float32


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_knows_the_answer_returns_it(name):
    schedule = NoiseSchedule(zero_snr=True)
    answer = torch.randn(1, 2, 3, 3, 3)

    def oracle(z, t):
        alpha, sigma = schedule.alpha_sigma(t, z)
        return alpha * (z - alpha * answer) / sigma - sigma * answer

    noise = SeededNoise([2])
    result = SAMPLERS[name](oracle, noise(answer.shape), schedule, 7, noise=noise)
    torch.testing.assert_close(result, answer, rtol=1e-4, atol=1e-5)


def test_callback_may_stop_and_half_precision_networks_are_welcome():
    class Stop(Exception):
        pass

    seen = []

    def stop(step, steps, x0):
        seen.append((step, steps, x0.dtype))
        if step == 3:
            raise Stop

    noise = SeededNoise([0])
    with pytest.raises(Stop):
        ddim(
            lambda z, t: network(z, t).bfloat16(),
            noise((1, 1, 4, 4, 4)),
            NoiseSchedule(),
            9,
            noise=noise,
            callback=stop,
        )
    assert seen == [(i, 9, torch.float32) for i in (1, 2, 3)]


# Seeds ----------------------------------------------------------------------------------------------------------------


def test_a_seed_means_the_same_alone_and_in_company():
    shape = (3, 4, 4, 4)
    together = SeededNoise([1, 2, 99])
    first, second = together((3, *shape)), together((3, *shape))
    alone = SeededNoise([2])
    assert torch.equal(first[1], alone((1, *shape))[0])
    assert torch.equal(second[1], alone((1, *shape))[0])
    assert not torch.equal(first[0], first[1])
    assert first.device.type == "cpu"
    with pytest.raises(ValueError, match="3 seeds"):
        together((2, *shape))


# Guidance -------------------------------------------------------------------------------------------------------------

STREAMS = ("semantic", "spatial", "adaptive")
EFFECT = {"semantic": 1.0, "spatial": 10.0, "adaptive": 100.0}


def three_streams(calls: list):
    def model(z, t, on):
        calls.append(on)
        return z + sum(EFFECT[s] for s in on)

    return model


def guide(weights):
    calls: list = []
    guided = Guided(three_streams(calls), STREAMS, weights)
    result = guided(torch.zeros(1, 1), torch.tensor([5]))
    assert len(calls) == guided.nfe
    return float(result), guided.nfe


def test_guidance_formula_and_cost():
    assert guide(None) == (111.0, 1)
    assert guide({"semantic": 1, "spatial": 1.0}) == (111.0, 1)
    assert guide({"spatial": 0}) == (101.0, 1)  # off, and free
    assert guide({"semantic": 0, "spatial": 0, "adaptive": 0}) == (0.0, 1)  # the bare backbone
    assert guide({"spatial": 3.0}) == (131.0, 2)  # 111 + 2 * 10
    assert guide({"semantic": 2.0, "adaptive": 0.5}) == (62.0, 3)  # 111 + 1 - 50
    assert guide({"all": 2.0}) == (222.0, 2)  # classifier-free guidance against the bare backbone
    assert guide({"semantic": 0, "all": 3.0}) == (330.0, 2)
    with pytest.raises(ValueError, match="unknown stream 'spacial'"):
        Guided(three_streams([]), STREAMS, {"spacial": 2.0})


def test_guidance_is_classifier_free_guidance_for_one_stream():
    """Ho and Salimans 2022, eq. 6: (1 + w) conditional - w unconditional, with their w = ours - 1."""
    z, t = torch.randn(1, 2), torch.tensor([0])

    def model(z, t, on):
        return torch.sin(z) if on else torch.cos(z)

    w = 2.5
    expected = (1 + w) * torch.sin(z) - w * torch.cos(z)
    torch.testing.assert_close(Guided(model, ["only"], {"only": 1 + w})(z, t), expected)


def test_half_log_snr_limits():
    from DEMISTCore.samplers.dpmpp_2m import _half_log_snr

    assert _half_log_snr(0.0) == -math.inf
    assert _half_log_snr(1.0) == math.inf
    assert _half_log_snr(0.5) == 0.0


# ------------------------------------------------------------------------------------- registry


def test_a_sampler_is_one_file(tmp_path, monkeypatch):
    from DEMISTCore import samplers

    (tmp_path / "halving.py").write_text(
        "from DEMISTCore.samplers.parts import estimate, sampler\n\n\n"
        '@sampler("Halving")\n'
        "def halving(model, z, schedule, steps, *, noise, eta=0.0, start=1.0, callback=None):\n"
        "    assert not __import__('torch').is_grad_enabled()\n"
        "    return z / 2\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(samplers, "__path__", [*samplers.__path__, str(tmp_path)])
    found = samplers._found()
    assert set(found) - set(SAMPLERS) == {"halving"}
    assert found["halving"].title == "Halving"
    z = torch.ones(1, 2)
    assert found["halving"](None, z, NoiseSchedule(), 1, noise=SeededNoise([0])).tolist() == [[0.5, 0.5]]


def test_samplers_are_listed_without_torch():
    """Slicer's panel asks for them in the main thread."""
    code = "import sys; from DEMISTCore.samplers import SAMPLERS; print(*SAMPLERS, 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == [*SAMPLERS, "False"]
