"""Transfer to image classification: fine-tuning, linear probe and k-NN of any backbone on any labelled data set."""

from mlomae.backbones.task import Metric, PublishedProtocol, Task, register_task

register_task(
    Task(
        name="classification",
        title="Transfer to classification",
        metrics=(Metric("top1", "top-1"), Metric("top5", "top-5"), Metric("mean_per_class", "mean per class")),
        config=f"{__name__}.config:ClassificationConfig",
        steps=f"{__name__}.run:ClassificationSteps",
        outputs="record, predictions, confusion matrix",
        predictions=f"{__name__}.predictions:read_tested",
        published={
            "finetune_imagenet": PublishedProtocol("imagenet1k", {"top1": "finetune_top1"}),
            "linear_imagenet": PublishedProtocol("imagenet1k", {"top1": "linear_top1"}),
        },
    )
)
