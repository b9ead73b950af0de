"""Flower's FedAvg and a plain torch client, with the data of fedclust."""

import json
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedclust.participant import simulated

client = ClientApp()
server = ServerApp()


def network() -> nn.Module:
    """The MLP 64-64-10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@client.train()
def train(message: Message, context: Context) -> Message:
    """One epoch of SGD."""
    me = simulated(context.run_config, context.node_config, 0)
    model, training, samples = network(), me.config.training, me.data.train
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimiser = torch.optim.SGD(model.parameters(), training.lr)
    for x, y in DataLoader(TensorDataset(samples.x, samples.y), training.batch_size, shuffle=True):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    metrics = MetricRecord({"num-examples": len(samples)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


class Timed(FedAvg):
    """FedAvg that notes when rounds end."""

    def __init__(self, file: Path) -> None:
        super().__init__(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
        self._file, self._times = file, []

    def aggregate_train(self, server_round, replies):
        """The mean, and the time."""
        found = super().aggregate_train(server_round, replies)
        self._times.append(time.time())
        self._file.write_text(json.dumps(self._times))
        return found

    def configure_evaluate(self, server_round, arrays, config, grid):
        """Nothing to evaluate."""
        return []


@server.main()
def main(grid: Grid, context: Context) -> None:
    """The rounds."""
    Timed(Path(context.run_config["times"])).start(
        grid, ArrayRecord(network().state_dict()), num_rounds=context.run_config["rounds"], train_config=ConfigRecord())
