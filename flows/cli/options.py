"""What the options of a command describe: its files, the workload, and the nodes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tasks.azure.settings import AzureSettings
from tasks.model.inputs import LocalFiles
from tasks.model.pool import DEFAULT_SETUP, PoolOptions, read_pool_setup
from tasks.report.model import Price
from tasks.report.price import limited_minutes, price_of
from tasks.workload.word_counts import WordCountWorkload, word_count_workload


def local_files(options: argparse.Namespace, corpus_names: Sequence[str]) -> LocalFiles:
    """Return the inputs and outputs that the arguments name, and the documents of the corpus with these names."""
    return LocalFiles(
        inputs=options.inputs,
        roots=options.root,
        exclude=options.exclude,
        output_folder=options.output,
        table=options.table,
        report_folder=options.report,
        corpus_names=corpus_names,
    )


def workload_of(options: argparse.Namespace) -> WordCountWorkload:
    """Return the workload of a run.

    Raises:
        UsageError: The encoding is unknown.
    """
    return word_count_workload(
        options.num_words, options.ignore_case, options.encoding, options.max_expanded_mb, corpus=options.corpus
    )


def pool_options_of(options: argparse.Namespace) -> PoolOptions:
    """Return the options of the pool.

    Raises:
        ConfigurationError: The file of `--pool` cannot be read or is invalid, or the options contradict each other.
    """
    pool_options = PoolOptions(
        pool_id=options.pool_id,
        vm_size=options.vm_size,
        nodes=options.nodes,
        spot_nodes=options.spot_nodes,
        slots_per_node=options.slots_per_node,
        setup=DEFAULT_SETUP if options.pool is None else read_pool_setup(options.pool),
    )
    pool_options.check()
    return pool_options


def limit_of(options: argparse.Namespace, pool_options: PoolOptions, settings: AzureSettings) -> tuple[float, Price]:
    """Return the time limit of a run in minutes, and the price of its nodes.

    Raises:
        ConfigurationError: The cost cannot be limited, or the limit is too low for any work.
    """
    price = price_of(pool_options.vm_size, options.usd_per_node_hour, settings)
    return limited_minutes(options.timeout_minutes, options.max_usd, pool_options, price), price
