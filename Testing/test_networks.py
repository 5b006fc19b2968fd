"""Networks: sizes, locality, and what the frozen backbone and its three streams promise."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks import CrossAttentionBlock
from monai.networks.nets import DiffusionModelUNet

from DEMISTCore.networks import (
    ALL,
    NONE,
    PRESETS,
    AutoencoderConfig,
    BackboneConfig,
    Demist,
    ModelConfig,
    Streams,
    build_autoencoder,
    build_backbone,
    build_demist,
    encode,
    sample_latent,
)
from DEMISTCore.networks.autoencoder import ChannelNorm, fold_voxels, unfold_voxels
from DEMISTCore.networks.knowledge import KNOWN_WIDTH
from DEMISTCore.networks.streams import GatedCrossAttention, positions
from DEMISTCore.networks.wiring import Site

TINY = PRESETS["tiny"]
SHAPE = (6, 4, 8)  # multiples of 2, as the tiny backbone needs; of 4, not all
T = torch.tensor([10, 900])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def randomised(module: torch.nn.Module, scale: float = 0.15) -> torch.nn.Module:
    """Give every weight a value, zero convolutions included, as training would."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * scale)
    return module


def tiny_backbone(cross: bool = False, include_fc: bool = True) -> DiffusionModelUNet:
    cfg = replace(TINY.backbone, cross_attention_dim=5 if cross else None, include_fc=include_fc)
    return randomised(build_backbone(cfg))


def tiny_demist(trained: bool = False, backbone: DiffusionModelUNet | None = None, **streams) -> Demist:
    model = Demist(backbone or tiny_backbone(), replace(TINY.streams, **streams), TINY.condition.latent_channels)
    if trained:
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p) * 0.15)
    return model


def latents(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 4, *SHAPE), torch.randn(batch, 4, *SHAPE)


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> bool:
    return torch.allclose(a, b, atol=atol, rtol=1e-4)


# ------------------------------------------------------------------------------------------- config


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_config_survives_json(name):
    config = PRESETS[name]
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_refuses_what_does_not_fit():
    values = TINY.to_dict()
    values["backbone"]["chanels"] = [1]
    with pytest.raises(ValueError, match="no chanels"):
        ModelConfig.from_dict(values)
    with pytest.raises(ValueError, match="latent_channels"):
        AutoencoderConfig.from_dict({"in_channels": 1, "out_channels": 1, "channels": [8]})
    with pytest.raises(ValueError, match="one grid"):
        replace(TINY, condition=replace(TINY.condition, channels=(8, 16)))
    with pytest.raises(ValueError, match="latent channels"):
        replace(TINY, psr=replace(TINY.psr, latent_channels=3))
    with pytest.raises(ValueError, match="one entry per level"):
        BackboneConfig(4, (8, 16), (True,))
    with pytest.raises(ValueError, match="batch"):
        replace(TINY.psr, norm="batch")


def test_presets_are_read_without_torch():
    code = "import sys; from DEMISTCore.networks import PRESETS; PRESETS['small']; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_parameter_counts():
    def build(name):
        cfg = PRESETS[name]
        with torch.device("meta"):
            return build_autoencoder(cfg.psr), build_autoencoder(cfg.condition), build_demist(cfg)

    assert sum(map(count, build("tiny"))) < 500_000
    assert sum(map(count, build("small"))) <= 24_000_000  # 48 MB in half precision
    psr, _, demist = build("brats")
    # The published bundle (MONAI model zoo, brats_mri_generative_diffusion) has exactly these.
    assert count(psr) == 21_000_353
    assert count(demist.backbone) == 189_325_576


# -------------------------------------------------------------------------------------- autoencoder


def test_channel_norm_is_layer_norm_over_channels():
    norm = randomised(ChannelNorm(6))
    x = torch.randn(2, 6, 3, 4, 5)
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    affine = (norm.weight.view(-1, 1, 1, 1), norm.bias.view(-1, 1, 1, 1))
    assert close(norm(x), (x - mean) / (var + 1e-6).sqrt() * affine[0] + affine[1])
    last = x.to(memory_format=torch.channels_last_3d)
    assert norm(last).is_contiguous(memory_format=torch.channels_last_3d)
    assert norm(last.bfloat16()).dtype == torch.bfloat16


FOLDED = replace(TINY.psr, channels=(16, 16), fold=2)


def test_folding_moves_blocks_into_channels():
    x = torch.randn(2, 3, 4, 6, 8)
    folded = fold_voxels(x, 2)
    assert folded.shape == (2, 24, 2, 3, 4)
    assert torch.equal(folded[0, 8:16, 1, 2, 3], x[0, 1, 2:4, 4:6, 6:8].flatten())
    assert torch.equal(unfold_voxels(folded, 2), x)


def test_folded_autoencoder_has_the_same_face():
    autoencoder = build_autoencoder(FOLDED).eval()
    assert FOLDED.factor == TINY.psr.factor == 4
    x = torch.rand(1, 1, 16, 12, 8)
    with torch.no_grad():
        z = encode(autoencoder, x)
        assert z.shape == (1, 4, 4, 3, 2)
        assert autoencoder.decode(z).shape == autoencoder(x)[0].shape == x.shape
    with pytest.raises(ValueError, match="multiple of 4"):
        encode(autoencoder, x[..., :6])
    with pytest.raises(ValueError, match="block edge"):
        replace(FOLDED, fold=0)


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("norm", ["channel", "group"])
def test_autoencoder_decodes_a_tile_as_the_whole(norm, fold):
    autoencoder = build_autoencoder(replace(TINY.psr if fold == 1 else FOLDED, norm=norm)).eval()
    z = torch.randn(1, 4, 16, 4, 4)
    with torch.no_grad():
        whole, tile = autoencoder.decode(z), autoencoder.decode(z[:, :, :12])
    # Far from the cut only statistics over the field of view could tell tile and whole apart.
    difference = (whole[:, :, :16] - tile[:, :, :16]).abs().max()
    assert (difference < 1e-5) == (norm == "channel")


def test_encode():
    autoencoder = build_autoencoder(TINY.condition).eval()
    x = torch.rand(1, 2, 16, 12, 8)
    with torch.no_grad():
        mean = encode(autoencoder, x)
        mu, sigma = autoencoder.encode(x)
        a, b = (encode(autoencoder, x, sample=True, generator=torch.Generator().manual_seed(1)) for _ in range(2))
        assert autoencoder.decode(mean).shape == x.shape
    assert mean.shape == (1, 4, 4, 3, 2)
    assert torch.equal(mean, mu)
    assert torch.equal(a, b)
    assert not torch.equal(a, mean)
    with pytest.raises(ValueError, match="multiple of 4"):
        encode(autoencoder, x[..., :6])
    draws = sample_latent(torch.full((1, 1, 30, 30, 30), 2.0), torch.full((1, 1, 30, 30, 30), 0.5))
    assert draws.mean().item() == pytest.approx(2, abs=0.02)
    assert draws.std().item() == pytest.approx(0.5, abs=0.02)


# ------------------------------------------------------------------------------- the frozen backbone


@pytest.mark.parametrize("kind", ["self", "no_fc", "cross"])
@pytest.mark.parametrize("bf16", [False, True])
def test_untrained_model_equals_its_backbone_exactly(kind, bf16):
    backbone = tiny_backbone(cross=kind == "cross", include_fc=kind != "no_fc")
    context = torch.randn(2, 3, 5) if kind == "cross" else None
    z, c = latents()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        before = backbone(z, T, context=context)
        model = tiny_demist(backbone=backbone)
        condition = model.condition(c)
        for on in itertools.product([False, True], repeat=3):
            assert torch.equal(model(z, T, condition, Streams(*on), context=context), before)
        assert torch.equal(model(z, T, None, context=context), before)
    assert before.std() > 0.01


def test_backbone_keeps_its_names_and_bits_through_training():
    backbone = tiny_backbone()
    names = list(backbone.state_dict())
    frozen = {k: v.clone() for k, v in backbone.state_dict().items()}
    model = tiny_demist(backbone=backbone).train()
    assert not backbone.training
    assert list(model.backbone.state_dict()) == names
    before = copy.deepcopy(model.streams_state_dict())
    optimiser = torch.optim.AdamW([p for ps in model.stream_parameters().values() for p in ps], 1e-2)
    z, c = latents()
    target = torch.randn_like(z)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = (model(z, T, model.condition(c)) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is None for p in backbone.parameters())
    assert all(torch.equal(v, frozen[k]) for k, v in model.backbone.state_dict().items())
    moved = [k for k, v in model.streams_state_dict().items() if not torch.equal(v, before[k])]
    assert {k.split(".")[0] for k in moved} == {"tokens", "semantic", "spatial", "adaptive"}
    # and outside a call of the model, the backbone is a plain MONAI network
    plain = build_backbone(TINY.backbone).eval()
    plain.load_state_dict(frozen)
    with torch.no_grad():
        assert torch.equal(model.backbone(z, T), plain(z, T))


def test_every_stream_parameter_learns():
    model = tiny_demist(trained=True)
    z, c = latents()
    model(z, T, model.condition(c)).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert silent == []


def test_first_gradients_reach_every_stream():
    model = tiny_demist()
    z, c = latents()
    model(z, T, model.condition(c)).square().sum().backward()
    assert all(block.out.weight.grad.any() for block in model.semantic.attention)
    assert all(up.grad.abs().sum() > 0 for up in model.adaptive.up)
    assert all(p.grad.abs().sum() > 0 for p in model.spatial.control.controlnet_mid_block.parameters())


# ------------------------------------------------------------------------------------------ streams


def test_each_stream_acts_and_can_be_switched_off():
    model = tiny_demist(trained=True)
    z, c = latents()
    with torch.no_grad():
        condition = model.condition(c)
        outputs = {on: model(z, T, condition, Streams(*on)) for on in itertools.product([False, True], repeat=3)}
        bare = model.backbone(z, T)
    assert torch.equal(outputs[(False, False, False)], bare)
    for a, b in itertools.combinations(outputs, 2):
        assert not close(outputs[a], outputs[b]), (a, b)


def test_a_stream_switched_off_costs_nothing():
    model = tiny_demist(trained=True)
    called = []
    for name in ("semantic", "spatial", "adaptive"):
        for part in getattr(model, name).modules():
            part.register_forward_hook(lambda *_, name=name: called.append(name))
    z, c = latents()
    for name, _ in ALL:
        called.clear()
        streams = replace(NONE, **{name: True})
        condition = model.condition(c, streams)
        model(z, T, condition, streams)
        assert set(called) == {name}
    with pytest.raises(ValueError, match="without the semantic"):
        model(z, T, model.condition(c, ALL.without("semantic")), ALL)
    with pytest.raises(ValueError, match="No stream"):
        ALL.without("temporal")


@pytest.mark.parametrize("missing", ["semantic", "spatial", "adaptive"])
def test_a_stream_can_be_left_out(missing):
    model = tiny_demist(trained=True, **{missing: False})
    assert missing not in model.stream_parameters()
    assert "(not built)" in model.parameter_table()
    z, c = latents()
    with torch.no_grad():
        condition = model.condition(c)
        assert torch.equal(model(z, T, condition), model(z, T, condition, ALL.without(missing)))
        assert not close(model(z, T, condition), model.backbone(z, T))


def test_condition_work_is_done_once():
    model = tiny_demist(trained=True)
    z, c = latents()
    condition = model.condition(c)

    def refuse(*_):
        raise AssertionError("condition work in a step")

    model.tokens.register_forward_pre_hook(refuse)
    model.spatial.embedding.register_forward_pre_hook(refuse)
    for block in model.semantic.attention:
        for part in (block.to_k, block.to_v, block.place):
            part.register_forward_pre_hook(refuse)
    model(z, T, condition)


def test_one_condition_serves_several_seeds():
    model = tiny_demist(trained=True)
    z, c = torch.randn(3, 4, *SHAPE), torch.randn(1, 4, *SHAPE)
    with torch.no_grad():
        condition = model.condition(c)
        together = model(z, torch.tensor([7]), condition)
        each = torch.cat([model(z[i : i + 1], torch.tensor([7]), condition) for i in range(3)])
        assert close(together, each)
        with pytest.raises(ValueError, match="2 volumes"):
            model(z, torch.tensor([7]), model.condition(c.expand(2, -1, -1, -1, -1)))


def test_dropout_takes_streams_sample_by_sample():
    model = tiny_demist(trained=True)
    z, c = latents()
    with torch.no_grad():
        condition = model.condition(c)
        whole, bare = model(z, T, condition), model.backbone(z, T)
        kept, dropped = torch.ones(2), torch.zeros(2)
        assert torch.equal(model(z, T, replace(condition, keep={name: kept for name, _ in ALL})), whole)
        assert close(model(z, T, replace(condition, keep={name: dropped for name, _ in ALL})), bare)
        for name, _ in ALL:
            off = model(z, T, condition, ALL.without(name))
            assert close(model(z, T, replace(condition, keep={name: dropped})), off)
            half = replace(condition, keep={name: torch.tensor([1.0, 0.0])})
            mixed = model(z, T, half)
            assert close(mixed[0], whole[0])
            assert close(mixed[1], off[1])


def test_adaptive_stream_is_a_low_rank_change_of_the_weights():
    model = tiny_demist(trained=True, semantic=False, spatial=False)
    z, c = latents(1)
    t = torch.tensor([300])
    with torch.no_grad():
        condition = model.condition(c)
        gate = model.adaptive.gate(t, condition.mean_token)[0]
        merged = build_backbone(TINY.backbone).eval()
        merged.load_state_dict(model.backbone.state_dict())
        for name, i in model.adaptive.index.items():
            merged.get_submodule(name).weight += gate[i] * model.adaptive.up[i] @ model.adaptive.down[i]
        assert len(model.adaptive.index) == 4 * 4  # q, k, v, out of the down, middle and two up attentions
        assert close(model(z, t, condition), merged(z, t))
        later = model.adaptive.gate(torch.tensor([800]), condition.mean_token)[0]
        other = model.adaptive.gate(t, model.condition(c + 1).mean_token)[0]
    assert gate.std() > 0
    assert not close(gate, later)
    assert not close(gate, other)


def test_cross_attention_equals_monai():
    block = randomised(GatedCrossAttention(Site("", 16, 16, 0, heads=2), token_width=6))
    with torch.no_grad():
        block.place.weight.zero_()
        block.place.bias.zero_()
        reference = CrossAttentionBlock(16, num_heads=2, context_input_size=6)
        weights = {"to_q": block.to_q, "to_k": block.to_k, "to_v": block.to_v, "out_proj": block.out}
        for name, module in weights.items():
            getattr(reference, name).load_state_dict(module.state_dict())
        h, tokens = torch.randn(2, 10, 16), torch.randn(2, 7, 6)
        expected = block.alpha.tanh() * reference(block.norm(h), context=tokens)
        assert close(block(h, block.prepare(tokens, positions((10, 1, 1)))), expected)


def test_control_starts_as_the_backbones_encoder():
    model = tiny_demist()
    own, copied = model.backbone.state_dict(), model.spatial.control.state_dict()
    shared = [k for k in own if not k.startswith(("up_blocks.", "out."))]
    assert shared
    assert all(torch.equal(own[k], copied[k]) for k in shared)
    assert own["conv_in.conv.weight"].data_ptr() != copied["conv_in.conv.weight"].data_ptr()
    z, c = latents()
    embedded, _ = model.spatial.embed(c)
    assert embedded.std() > 0.01  # only the output convolutions start at zero
    down, middle, out = model.spatial(z, T, embedded)
    assert all(not r.any() for r in [*down, middle, out])


def test_control_residuals_enter_where_monai_takes_them():
    model = tiny_demist(trained=True, semantic=False, adaptive=False)
    z, c = latents()
    with torch.no_grad():
        down, middle, out = model.spatial(z, T, model.spatial.embed(c)[0])
        expected = model.backbone(
            z, T, down_block_additional_residuals=tuple(down), mid_block_additional_residual=middle
        )
        assert out.any()
        condition = model.condition(c)
        fused = model.spatial.fusion(expected, z, condition.estimate, T)
        assert fused.any()
        assert torch.equal(model(z, T, condition), expected + (out + fused))


def test_own_context_passes_through_beside_the_tokens():
    model = tiny_demist(trained=True, backbone=tiny_backbone(cross=True))
    z, c = latents()
    one, other = torch.randn(2, 2, 3, 5)
    with torch.no_grad():
        condition = model.condition(c)
        assert not close(model(z, T, condition, context=one), model(z, T, condition, context=other))
        assert not close(
            model(z, T, condition, context=one), model(z, T, condition, ALL.without("semantic"), context=one)
        )
    # our branch is added beside: attn2's own output stays what it was
    assert all(site.endswith("attn2") for site in model.semantic.index)


def test_positions_know_crops():
    whole = positions((8, 6, 4)).unflatten(1, (8, 6, 4))
    crop = whole[:, 4:8, 2:6, 0:4].flatten(1, 3)
    offset = torch.tensor([[6.0 - 4, 4.0 - 3, 2.0 - 2]])
    assert close(positions((4, 4, 4), offset=offset), crop)
    assert positions((8, 6, 4), level=1).shape[1] == 4 * 3 * 2
    model = tiny_demist(trained=True)
    z, c = latents()
    with torch.no_grad():
        here, there = model.condition(c), model.condition(c, offset=torch.tensor([[5.0, 0, 0], [0, 0, 0]]))
        a, b = model(z, T, here), model(z, T, there)
    assert not close(a[0], b[0])
    assert close(a[1], b[1])


# --------------------------------------------------------------------------- running it in many ways


@pytest.mark.parametrize("cross", [False, True])
def test_checkpointing_gives_the_same_gradients(cross):
    model = tiny_demist(trained=True, backbone=tiny_backbone(cross=cross)).train()
    context = torch.randn(2, 3, 5) if cross else None
    z, c = latents()
    gradients = []
    for model.checkpointing in (False, True):
        model.zero_grad()
        output = model(z, T, model.condition(c), context=context)
        model(z * 2, T, model.condition(c * 2), context=context)  # another pass in between leaves this one alone
        output.square().mean().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(close(gradients[0][n], gradients[1][n], 1e-7) for n in gradients[0])


def test_checkpointing_recomputes():
    model = tiny_demist(trained=True, checkpointing=True)
    calls = []
    model.backbone.middle_block.resnet_1.register_forward_hook(lambda *_: calls.append(1))
    z, c = latents()
    model(z, T, model.condition(c)).sum().backward()
    assert len(calls) == 2
    calls.clear()
    with torch.no_grad():
        model(z, T, model.condition(c))
    assert len(calls) == 1


def test_threads_do_not_see_each_other():
    backbone = tiny_backbone()
    models = [tiny_demist(trained=True, backbone=backbone), tiny_demist(trained=True, backbone=backbone)]
    z, c = latents()

    def run(i: int) -> torch.Tensor:
        model = models[i % 2]
        with torch.no_grad():
            return model(z, T, model.condition(c * (1 + i)))

    serial = [run(i) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        threaded = list(pool.map(run, [*range(6)] * 4))
    assert all(close(threaded[i], serial[i % 6]) for i in range(24))
    assert not close(serial[0], serial[1])


def test_bf16_autocast_stays_close():
    model = tiny_demist(trained=True)
    z, c = latents()
    with torch.no_grad():
        exact = model(z, T, model.condition(c))
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(z, T, model.condition(c))
    assert rough.dtype == torch.bfloat16
    assert F.mse_loss(rough.float(), exact) < 1e-2 * exact.var()


def test_model_runs_in_bf16_throughout():
    model = tiny_demist(trained=True).bfloat16()
    z, c = latents()
    with torch.no_grad():
        assert torch.isfinite(model(z.bfloat16(), T, model.condition(c.bfloat16()))).all()


def test_copies_are_independent():
    model = tiny_demist(trained=True)
    z, c = latents()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(z, T, model.condition(c))
        assert torch.equal(twin(z, T, twin.condition(c)), expected)
        for p in model.parameters():
            p.zero_()
        assert torch.equal(twin(z, T, twin.condition(c)), expected)


def test_stream_weights_are_a_delta():
    model = tiny_demist(trained=True)
    z, c = latents()
    state = model.streams_state_dict()
    assert not any(k.startswith("backbone") for k in state)
    assert all(v.is_contiguous() for v in state.values())
    other = tiny_demist(backbone=copy.deepcopy(model.backbone))
    other.load_streams_state_dict(state)
    with torch.no_grad():
        assert torch.equal(other(z, T, other.condition(c)), model(z, T, model.condition(c)))
    with pytest.raises(ValueError, match="do not fit"):
        other.load_streams_state_dict({k: v for k, v in state.items() if "alpha" not in k})
    with pytest.raises(ValueError, match="do not fit"):
        tiny_demist(lora_rank=3).load_streams_state_dict(state)


def test_wrong_shapes_are_refused():
    model = tiny_demist()
    z, c = latents()
    condition = model.condition(c)
    with pytest.raises(ValueError, match="multiple of 2"):
        model(z[..., :5], T, None)
    with pytest.raises(ValueError, match="multiple of 2"):
        model.condition(c[:, :, :3])
    with pytest.raises(ValueError, match="The condition is of extents"):
        model(z[..., :6], T, condition)
    with pytest.raises(ValueError, match=r"\(B, 4, x, y, z\)"):
        model.condition(c[:, :2])


def test_parameter_table():
    model = tiny_demist()
    rows = {line.split()[0]: line.split()[1:] for line in model.parameter_table().splitlines()}
    number = {name: [int(x.replace(",", "")) for x in row] for name, row in rows.items() if name != "part"}
    assert number["backbone"] == [count(model.backbone), 0]
    parameters = model.stream_parameters()
    for name in ("semantic", "spatial", "adaptive"):
        assert number[name] == [0, sum(p.numel() for p in parameters[name])]
    assert sum(number["total"]) == count(model)
    listed = [id(p) for ps in parameters.values() for p in ps]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_the_papers_network_runs_on_paper():
    with torch.device("meta"):
        model = build_demist(PRESETS["brats"])
        z, c = torch.empty(1, 8, 36, 44, 28), torch.empty(1, 8, 36, 44, 28)
        seen = model.mean.see(torch.empty(1, 2, 144, 176, 112), c, torch.empty(1, KNOWN_WIDTH))
        output = model(z, torch.empty(1, dtype=torch.long), model.condition(c, seen=seen))
    assert output.shape == z.shape
    # self-attention at two levels, two blocks each: 2 x 2 down, 1 middle, 2 x 3 up
    assert len(model.semantic.index) == 11
