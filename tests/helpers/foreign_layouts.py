"""A ViT's state dict as other libraries name it, written out independently of the code that reads it."""

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

State = dict[str, Tensor]
HUGGING_FACE = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
HUGGING_FACE_5 = {  # in memory, since transformers 5; files keep the older names
    **HUGGING_FACE,
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
OPENMMLAB = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "mlp.fc1": "ffn.layers.0.0",
    "mlp.fc2": "ffn.layers.1",
}
TORCHVISION = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.proj": "self_attention.out_proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def _blocks(state: State, name: str, parts: dict[str, str], qkv: Callable[[str, Tensor], State]) -> State:
    """All keys ``blocks.N.*`` of ``state`` under ``name`` with N for {}, their parts renamed."""
    out = {}
    for key, value in state.items():
        if key.startswith("blocks."):
            _, number, rest = key.split(".", 2)
            part, kind = rest.rsplit(".", 1)
            if part == "attn.qkv":
                out |= {f"{name.format(number)}.{new}": t for new, t in qkv(kind, value).items()}
            else:
                out[f"{name.format(number)}.{parts[part]}.{kind}"] = value
    return out


def hugging_face(state: State, prefix: str = "", blocks: str = "encoder.layer.{}", five: bool = False) -> State:
    names = ("q_proj", "k_proj", "v_proj") if five else tuple(f"attention.{n}" for n in ("query", "key", "value"))

    def qkv(kind: str, value: Tensor) -> State:
        return {f"attention.{n}.{kind}": t.clone() for n, t in zip(names, value.chunk(3), strict=True)}

    out = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
        **_blocks(state, blocks, HUGGING_FACE_5 if five else HUGGING_FACE, qkv),
    }
    return {prefix + key: value for key, value in out.items()}


def hugging_face_decoder(state: State, blocks: str) -> State:
    """Of a decoder with our names; ``blocks``: decoder_layers.{}, or as transformers 5 writes it."""
    of_blocks = hugging_face({**dict.fromkeys(_OTHERS, state["mask_token"]), **state}, "", blocks)
    out = {key: value for key, value in of_blocks.items() if key.startswith("decoder_")}
    out |= {key if key == "mask_token" else f"decoder_{key}": v for key, v in state.items() if "blocks." not in key}
    return {f"decoder.{key}": value for key, value in out.items()}


_OTHERS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias")


def openmmlab(state: State, prefix: str = "", final: str = "ln1") -> State:
    out = {
        "cls_token": state["cls_token"],
        "pos_embed": state["pos_embed"],
        "patch_embed.projection.weight": state["patch_embed.proj.weight"],
        "patch_embed.projection.bias": state["patch_embed.proj.bias"],
        f"{final}.weight": state["norm.weight"],
        f"{final}.bias": state["norm.bias"],
        **_blocks(state, "layers.{}", OPENMMLAB, lambda kind, value: {f"attn.qkv.{kind}": value}),
    }
    return {prefix + key: value for key, value in out.items()}


def openmmlab_decoder(state: State) -> State:
    """The neck of mmpretrain's MAE, of a decoder with our names."""
    blocks = _blocks(state, "decoder_blocks.{}", OPENMMLAB, lambda kind, value: {f"attn.qkv.{kind}": value})
    names = {"mask_token": "mask_token", "norm.weight": "ln1.weight", "norm.bias": "ln1.bias"}
    others = {names.get(key, f"decoder_{key}"): v for key, v in state.items() if "blocks." not in key}
    return {f"neck.{key}": value for key, value in {**blocks, **others}.items()}


def torchvision(state: State) -> State:
    return {
        "class_token": state["cls_token"],
        "encoder.pos_embedding": state["pos_embed"],
        "conv_proj.weight": state["patch_embed.proj.weight"],
        "conv_proj.bias": state["patch_embed.proj.bias"],
        "encoder.ln.weight": state["norm.weight"],
        "encoder.ln.bias": state["norm.bias"],
        **_blocks(
            state,
            "encoder.layers.encoder_layer_{}",
            TORCHVISION,
            lambda kind, value: {f"self_attention.in_proj_{kind}": value},
        ),
    }


def mmpretrain_vit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """mmpretrain's VisionTransformer, without the parts of it that want an older transformers."""
    for name in ("mmpretrain.models.multimodal", "mmpretrain.apis"):
        empty = types.ModuleType(name)
        empty.__all__ = []  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, empty)
    from mmpretrain.models.backbones import VisionTransformer

    return VisionTransformer
