"""A driver that trains under Ray: `python train_driver.py STORE CONFIG`, of which the latter is JSON."""

import json
import logging
import sys

import ray

from faults.training_process import training
from retort.store import open_store
from retort.training.trainer import train

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ray.init(address="local", logging_level=logging.WARNING, include_dashboard=False)
    store = open_store(sys.argv[1])
    train(store, training(store, **json.loads(sys.argv[2])))
