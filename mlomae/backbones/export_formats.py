"""The formats of an export: what each writes, which models it has a place for, and the line that loads it."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mlomae.backbones.export_names import to_hugging_face, to_hugging_face_mae, to_openmmlab
from mlomae.backbones.export_source import Source
from mlomae.backbones.finetuned import CONFIG, WEIGHTS, timm_config
from mlomae.common.errors import BackendError, CheckpointError, reason_of
from mlomae.common.installing import install_command
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.models.layouts import State

PREPROCESSOR = "preprocessor_config.json"
TOLERANCE = 1e-4  # of a computed graph's output, relative to its largest value
Write = Callable[[Source, Path], None]


@dataclass(frozen=True)
class Format:
    """A format of an export.

    Attributes:
        suffix: of its file; "" for a folder.
        load: what a user types to load it, with {out} for the place.
        write: writes a source to a new path; raises CheckpointError for a model that it has no place for.
        names: the files of a folder.
        graph: whether it computes, and is compared by what it computes and not by its tensors.
    """

    suffix: str
    load: str
    write: Write
    names: tuple[str, ...] = ()
    graph: bool = False


FORMATS: dict[str, Format] = {}


def _format(
    name: str, suffix: str, load: str, names: tuple[str, ...] = (), graph: bool = False
) -> Callable[[Write], Write]:
    def register(write: Write) -> Write:
        FORMATS[name] = Format(suffix, load, write, names, graph)
        return write

    return register


def statistics(source: Source) -> dict[str, list[float]]:
    """mean and std of the images, ImageNet's if nothing says otherwise."""
    return {k: list(source.pixels.get(k, v)) for k, v in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))}


def _save(tensors: State, path: Path, metadata: dict[str, str]) -> None:
    path.write_bytes(save(tensors, metadata=metadata))  # its save_file would make it the owner's alone


def _metadata(source: Source) -> dict[str, str]:
    meta = source.meta.items()
    return {"format": "pt", **{f"mlomae.{k}": v if isinstance(v, str) else json.dumps(v) for k, v in meta}}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@_format("safetensors", ".safetensors", "safetensors.torch.load_file({out!r})")
def _safetensors(source: Source, out: Path) -> None:
    _save(source.state, out, _metadata(source))


@_format("timm", "", "timm.create_model({local!r}, pretrained=True{pool})", (CONFIG, WEIGHTS))
def _timm(source: Source, out: Path) -> None:
    out.mkdir()
    _write_json(
        out / CONFIG, timm_config(source.vit, source.classes, source.pixels, source.pooling if source.own else None)
    )
    _save(source.state, out / WEIGHTS, _metadata(source))


def _check_place(source: Source, library: str, *, scaled: bool = False) -> None:
    """Raise CheckpointError for a ViT with parts that ``library``'s has no place for."""
    vit: Any = source.vit
    rare = {
        "registers": vit.num_reg_tokens > 0,
        "positions of the patches alone": vit.no_embed_class,
        "layer scale": not scaled and not isinstance(vit.blocks[0].ls1, nn.Identity),
    }
    if found := [what for what, has in rare.items() if has]:
        raise CheckpointError(
            f"'{source.path}' is a ViT with {' and '.join(found)}, which {library}'s lacks; export it to timm"
        )


def _hugging_face_config(source: Source) -> dict[str, Any]:
    vit: Any = source.vit
    first = vit.blocks[0]
    height, width = vit.patch_embed.img_size
    return {
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": first.attn.num_heads,
        "intermediate_size": first.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "image_size": height if height == width else [height, width],
        "patch_size": vit.patch_embed.patch_size[0],
        "num_channels": 3,
        "qkv_bias": first.attn.qkv.bias is not None,
        "layer_norm_eps": first.norm1.eps,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
    }


def _write_hugging_face(source: Source, out: Path, config: dict[str, Any], tensors: State) -> None:
    out.mkdir()
    height, width = source.vit.patch_embed.img_size
    pixels = {f"image_{key}": value for key, value in statistics(source).items()}
    _write_json(out / CONFIG, {**config, **_hugging_face_config(source)})
    processor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "resample": 3, "do_rescale": True}
    processor |= {"size": {"height": height, "width": width}, "rescale_factor": 1 / 255, "do_normalize": True, **pixels}
    _write_json(out / PREPROCESSOR, processor)
    _save({key: value.contiguous() for key, value in tensors.items()}, out / WEIGHTS, {"format": "pt"})


@_format(
    "huggingface",
    "",
    "transformers.{model}.from_pretrained({out!r}{more})",
    (CONFIG, WEIGHTS, PREPROCESSOR),
)
def _hugging_face(source: Source, out: Path) -> None:
    _check_place(source, "Hugging Face")
    state = source.state
    if not source.classes:
        if "fc_norm.weight" in state:
            raise CheckpointError(f"'{source.path}' has a norm after the mean of its tokens; export it to timm or onnx")
        return _write_hugging_face(
            source, out, {"architectures": ["ViTModel"], "model_type": "vit"}, to_hugging_face(state)
        )
    if source.pooling != "token" or "norm.weight" not in state:
        raise CheckpointError(
            f"'{source.path}' classifies the mean of its tokens, and Hugging Face's ViTForImageClassification the "
            "class token; export it to timm or onnx, or fine-tune with backbone.global_pool='token'"
        )
    trunk = {key: value for key, value in state.items() if not key.startswith("head.")}
    tensors = {f"vit.{key}": value for key, value in to_hugging_face(trunk).items()}
    tensors |= {f"classifier.{kind}": state[f"head.{kind}"] for kind in ("weight", "bias")}
    labels = {
        "id2label": dict(enumerate(source.classes)),
        "label2id": {name: i for i, name in enumerate(source.classes)},
    }
    config = {"architectures": ["ViTForImageClassification"], "model_type": "vit", **labels}
    _write_hugging_face(source, out, config, tensors)


@_format(
    "huggingface-mae",
    "",
    "transformers.ViTMAEForPreTraining.from_pretrained({out!r})",
    (CONFIG, WEIGHTS, PREPROCESSOR),
)
def _hugging_face_mae(source: Source, out: Path) -> None:
    _check_place(source, "Hugging Face")
    if not source.decoder:
        raise CheckpointError(f"'{source.path}' has no decoder; export the encoder alone, as huggingface")
    blocks = len({key.split(".")[1] for key in source.decoder if key.startswith("blocks.")})
    section, width = source.decoder_section, source.decoder["mask_token"].shape[-1]
    config = {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "decoder_hidden_size": width,
        "decoder_num_hidden_layers": blocks,
        "decoder_num_attention_heads": section.get("decoder_num_heads", 16),
        "decoder_intermediate_size": source.decoder["blocks.0.mlp.fc1.weight"].shape[0],
        "mask_ratio": 0.75,
        "norm_pix_loss": section.get("norm_pix_loss", True),
    }
    _write_hugging_face(source, out, config, to_hugging_face_mae(source.state, source.decoder))


def _prefixed(source: Source, out: Path, tensors: State, head: State | None = None) -> None:
    state = {**{f"backbone.{key}": value for key, value in tensors.items()}, **(head or {})}
    torch.save({"state_dict": state, "meta": source.meta}, out)


@_format("mmseg", ".pth", "dict(type='mlomae.FeatureViT', weights={out!r})  # backbone, after `import mlomae.mm`")
def _mmseg(source: Source, out: Path) -> None:
    _prefixed(source, out, {key: value for key, value in source.state.items() if not key.startswith("head.")})


FORMATS["mmdet"] = FORMATS["mmseg"]


@_format("openmmlab", ".pth", "init_cfg=dict(type='Pretrained', checkpoint={out!r}, prefix='backbone.')")
def _openmmlab(source: Source, out: Path) -> None:
    """For mmpretrain's VisionTransformer."""
    _check_place(source, "mmpretrain", scaled=True)
    names = to_openmmlab({key: value for key, value in source.state.items() if not key.startswith("head.")})
    head = {key.replace("head.", "head.fc."): t for key, t in source.state.items() if key.startswith("head.")}
    _prefixed(source, out, names, head)


# --- graphs -----------------------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """Images (B, 3, H, W) -> the logits of a classifier, else pooled features (B, D) after the final norm."""

    def __init__(self, vit: VisionTransformer, pooling: str) -> None:
        super().__init__()
        self.vit, self.pooling = vit, pooling

    def forward(self, images: Tensor) -> Tensor:
        if self.vit.num_classes or not isinstance(self.vit.fc_norm, nn.Identity):
            return self.vit(images)
        tokens = self.vit.forward_features(images)
        return tokens[:, 0] if self.pooling == "token" else tokens[:, self.vit.num_prefix_tokens :].mean(dim=1)


def example(source: Source, count: int = 2) -> Tensor:
    height, width = source.vit.patch_embed.img_size
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def check_same(source: Source, found: Tensor, what: str, images: Tensor) -> None:
    """Raise CheckpointError unless a graph computes what the model does."""
    with torch.no_grad():
        wanted = Pooled(source.vit, source.pooling)(images)
    if found.shape != wanted.shape or (found - wanted).abs().max() > TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise CheckpointError(f"{what} computes something else than the model; report it, and export to timm")


def _output(source: Source) -> str:
    return "logits" if source.classes else "features"


@_format("onnx", ".onnx", "onnxruntime.InferenceSession({out!r}).run(None, {{'images': images}})", graph=True)
def _onnx(source: Source, out: Path) -> None:
    """Checked in onnxruntime if it is installed."""
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Pooled(source.vit, source.pooling),
                (example(source),),
                str(out),
                input_names=["images"],
                output_names=[_output(source)],
                dynamic_shapes={"images": {0: batch}},
                external_data=False,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise BackendError(f"ONNX needs onnx and onnxscript ({reason_of(error)}); {install_command('onnx')}") from error
    try:
        import onnxruntime
    except ImportError:
        return
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for images in (example(source, 1), example(source, 3)):
        (found,) = session.run(None, {"images": images.numpy()})
        check_same(source, torch.from_numpy(found), f"'{out.name}' in onnxruntime", images)


@_format("torch-export", ".pt2", "torch.export.load({out!r}).module()(images)", graph=True)
def _torch_export(source: Source, out: Path) -> None:
    model = Pooled(source.vit, source.pooling).eval()
    with torch.no_grad():
        program = torch.export.export(
            model, (example(source),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
        )
    torch.export.save(program, str(out))
    images = example(source, 3)
    check_same(source, torch.export.load(str(out)).module()(images), f"'{out.name}'", images)
