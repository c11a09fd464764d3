"""timm's names of a ViT's weights as other libraries have them; `mlomae.models.layouts` is the way back.

Whether a library's ViT has a place for all weights is for the caller to check.
"""

from mlomae.models.layouts import State

_HUGGING_FACE = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_OPENMMLAB = {
    "norm1": "ln1",
    "norm2": "ln2",
    "mlp.fc1": "ffn.layers.0.0",
    "mlp.fc2": "ffn.layers.1",
    "patch_embed.proj": "patch_embed.projection",
    "norm": "ln1",
    "fc_norm": "ln2",
}
_GAMMA = {"ls1.gamma": "attn.gamma1.weight", "ls2.gamma": "ffn.gamma2.weight"}


def _split(key: str) -> tuple[str, str, str]:
    """The number of a block or "", the part, and weight or bias."""
    block, _, rest = key.removeprefix("blocks.").partition(".") if key.startswith("blocks.") else ("", "", key)
    part, _, kind = rest.rpartition(".")
    return block, part, kind


def to_hugging_face(encoder: State, layers: str = "encoder.layer") -> State:
    """The names of ``ViTModel``, with separate queries, keys and values; ``layers``: the list of blocks."""
    out = {}
    for key, value in encoder.items():
        block, part, kind = _split(key)
        place = f"{layers}.{block}." if block else ""
        if part == "attn.qkv":
            for name, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[f"{place}attention.attention.{name}.{kind}"] = third.clone()
        elif key in ("cls_token", "pos_embed"):
            out[f"embeddings.{'cls_token' if key == 'cls_token' else 'position_embeddings'}"] = value
        else:
            out[f"{place}{_HUGGING_FACE[part]}.{kind}"] = value
    return out


def to_hugging_face_mae(encoder: State, decoder: State) -> State:
    """The names of ``ViTMAEForPreTraining``."""
    blocks = {key: value for key, value in decoder.items() if key.startswith("blocks.")}
    others = {key if key == "mask_token" else f"decoder_{key}": v for key, v in decoder.items() if key not in blocks}
    return {
        **{f"vit.{key}": value for key, value in to_hugging_face(encoder).items()},
        **{f"decoder.{key}": v for key, v in {**others, **to_hugging_face(blocks, "decoder_layers")}.items()},
    }


def to_openmmlab(encoder: State) -> State:
    """The names of mmpretrain's ``VisionTransformer``."""
    out = {}
    for key, value in encoder.items():
        block, part, kind = _split(key)
        place = f"layers.{block}." if block else ""
        if f"{part}.{kind}" in _GAMMA:
            out[f"{place}{_GAMMA[f'{part}.{kind}']}"] = value
        else:
            out[f"{place}{_OPENMMLAB.get(part, part)}.{kind}" if part else key] = value
    return out
