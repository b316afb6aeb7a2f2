"""Options and tasks with which commands take a moment."""

SMALL = (
    "--data.max_seq_len=512",
    "--data.batch_size=2",
    "--data.samples_per_epoch=16",
    "--data.num_workers=0",
    "--data.val_dataset=null",
    "--trainer.accelerator=cpu",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.limit_val_batches=0",
)
PAIR = {"input": [[0, 1], [1, 0]], "output": [[1, 0], [0, 1]]}
TASKS = {"a": {"train": [PAIR, PAIR], "test": [{"input": PAIR["input"]}]}}
