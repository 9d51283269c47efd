"""An encoder of Hugging Face's with a conditional loss, trained by its Trainer on batches that are dictionaries.

pip install transformers accelerate
python examples/hf_trainer.py
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertModel, Trainer, TrainingArguments

from tunelater import LambdaSpace, Linear, LossConditional, OperatingGrid, loss_family, score

SEED = 0
SPACE = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))


class Messages(Dataset):
    """n messages of three to twelve tokens; one in ten is a positive, and has token 7, as some others have."""

    def __init__(self, n: int, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.labels = (torch.arange(n) % 10 == 0).long()
        self.ids = torch.randint(10, 50, (n, 12), generator=rng)
        self.mask = (torch.arange(12) < torch.randint(3, 13, (n, 1), generator=rng)).long()
        self.ids[(self.labels == 1) | (torch.rand(n, generator=rng) < 0.05), 1] = 7

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[i], "attention_mask": self.mask[i], "labels": self.labels[i]}


class ConditionalTrainer(Trainer):
    """Draws lambda for each step and calls the loss; all else is the Trainer's."""

    def __init__(self, *, class_counts: list[int], **options: Any) -> None:
        super().__init__(**options)
        self.family = loss_family("vs", class_counts=class_counts)

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        labels = inputs.pop("labels")
        # The Trainer restores global_step with a checkpoint, and counts steps rather than batches: so batches whose
        # gradients are accumulated share a lambda.
        lam = SPACE.draw(SEED, self.state.global_step)
        logits = model(inputs, lam)
        loss = self.family.loss(logits, labels, **lam).mean()
        return (loss, {"logits": logits}) if return_outputs else loss


def main(folder: Path | None = None) -> None:
    folder = folder or Path(tempfile.mkdtemp())
    train_set, validation_set = Messages(640, seed=1), Messages(640, seed=2)
    torch.manual_seed(SEED)
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    # In practice AutoModel.from_pretrained(...); tokens are averaged, so BERT's own pooling layer is left out.
    model = LossConditional.wrap(BertModel(config, add_pooling_layer=False), SPACE)

    def trainer(steps: int) -> ConditionalTrainer:
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=64,
            learning_rate=0.01,
            lr_scheduler_type="constant",
            save_steps=20,
            seed=SEED,
            remove_unused_columns=False,  # the Trainer would look for them, and for labels, in LossConditional.forward
            label_names=["labels"],
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        counts = torch.bincount(train_set.labels).tolist()
        return ConditionalTrainer(class_counts=counts, model=model, args=arguments, train_dataset=train_set)

    trainer(20).train()
    last = trainer(40)
    last.train(resume_from_checkpoint=True)  # goes on at step 20 with the lambda of step 20

    scores = score(model, DataLoader(validation_set, batch_size=128), SPACE.grid(5), last.family)
    point = OperatingGrid(scores).select(maximize="precision", subject_to="recall>=0.8")
    print(f"operating point: lambda {point.lam}, threshold {point.threshold:.3f}")
    print(f"recall {point.metrics['recall']}, precision {point.metrics['precision']}")


if __name__ == "__main__":
    main()
