"""Transfer to image classification: fine-tuning, linear probe and k-NN of any backbone on any labelled data set."""

from mlomae.backbones.task import EmbeddedBench, Metric, PublishedProtocol, Task, register_task

register_task(
    Task(
        name="classification",
        title="Transfer to classification",
        metrics=(Metric("top1", "top-1"), Metric("top5", "top-5"), Metric("mean_per_class", "mean per class")),
        config=f"{__name__}.config:ClassificationConfig",
        steps=f"{__name__}.run:ClassificationSteps",
        outputs="record, predictions, confusion matrix",
        predictions=f"{__name__}.per_image:read_tested",
        published={
            "finetune_imagenet": PublishedProtocol("imagenet1k", {"top1": "finetune_top1"}),
            "linear_imagenet": PublishedProtocol("imagenet1k", {"top1": "linear_top1"}),
        },
        embedded=EmbeddedBench(
            recipes={
                "k-NN": ("knn_textures", 16),
                "linear": ("linear_textures", 17),
                "fine-tuning": ("finetune_textures", 52),
            },
            note="Top-1 on {test} that no pretraining saw, with the labels of {train}; chance 12.5 %. A pretraining "
            "with feedback has used the labels of its whole training set, more than are used here; MAE has used none.",
            outputs=(
                "confusion.png      which classes are taken for which",
                "predictions.npz    every test image; compare two runs on the same images:",
                "    python -m mlomae.classification.compare A/predictions.npz B/predictions.npz",
            ),
        ),
    )
)
