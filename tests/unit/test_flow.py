"""The flow and its deployments, without a run."""

from __future__ import annotations

import cloudpickle
import pytest
import yaml
from prefect import Flow
from tests_support import REPOSITORY
from topn_support import process_environment

from flows.sweep import sweep as sweep_flow
from flows.topn import topn as topn_flow
from tasks.errors import ConfigurationError


@pytest.mark.parametrize(
    "parameters",
    [{"num_words": 0}, {"inputs": []}, {"nodes": 0}, {"slots_per_node": 0}, {"timeout_minutes": 0}, {"pool_id": 7}],
)
def test_bad_parameter_is_rejected_before_run(parameters):
    with pytest.raises(Exception, match=next(iter(parameters))):
        topn_flow.validate_parameters(parameters)


def test_every_final_state_has_same_cleanup():
    hooks_of_states = (
        topn_flow.on_completion_hooks,
        topn_flow.on_failure_hooks,
        topn_flow.on_cancellation_hooks,
        topn_flow.on_crashed_hooks,
    )
    after_failure = ["clean_up", "report_failure"]
    names = [[hook.__name__ for hook in hooks] for hooks in hooks_of_states]
    assert names == [["clean_up"], after_failure, after_failure, after_failure]


@pytest.mark.parametrize(
    ("file", "pull"),
    [
        ("prefect.yaml", {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PWD }}"}}),
        (
            "deployments/git.yaml",
            {
                "prefect.deployments.steps.git_clone": {
                    "repository": "{{ repository.stdout }}",
                    "commit_sha": "{{ commit.stdout }}",
                }
            },
        ),
        ("deployments/image.yaml", {"prefect.deployments.steps.set_working_directory": {"directory": "/topn"}}),
    ],
)
def test_deployments_run_one_at_a_time_on_schedule(file, pull):
    document = yaml.safe_load((REPOSITORY / file).read_text())
    assert document["pull"] == [pull]
    [topn, sweep] = document["deployments"]
    assert topn_flow.validate_parameters(topn.get("parameters", {}))
    assert sweep_flow.validate_parameters(sweep.get("parameters", {}))
    versions = {deployment.get("version") for deployment in document["deployments"]}
    assert versions == ({None} if file == "prefect.yaml" else {"{{ commit.stdout }}"})
    found = {
        deployment["entrypoint"]: (deployment["schedules"][0]["cron"], deployment["schedules"][0]["timezone"])
        for deployment in document["deployments"]
    }
    assert found == {
        "flows/topn.py:topn": ("0 2 * * *", "Etc/UTC"),
        "flows/sweep.py:sweep": ("0 * * * *", "Etc/UTC"),
    }
    limits = [deployment["concurrency_limit"] for deployment in document["deployments"]]
    assert limits == [{"limit": 1, "collision_strategy": "CANCEL_NEW"}] * 2


@pytest.mark.parametrize("flow", [topn_flow, sweep_flow])
def test_flow_works_in_another_process(flow):
    """Prefect sends a served flow, and the flows that it calls, by value: without the names of their modules."""
    sent = cloudpickle.loads(cloudpickle.dumps(flow))
    assert sent.fn is not flow.fn
    assert isinstance(sent, Flow)
    assert sent.validate_parameters({}) == flow.validate_parameters({})


@pytest.mark.parametrize("url", [None, ""])
def test_call_without_server_says_how(empty_home, url):
    variables = {} if url is None else {"PREFECT_API_URL": url}
    with (
        process_environment(HOME=str(empty_home), **variables),
        pytest.raises(ConfigurationError, match=r"No Prefect server is configured.*flows\.api\.run"),
    ):
        topn_flow()
