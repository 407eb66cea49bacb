# A Prefect worker of the work pool `topn-pool` that includes topn. Set PREFECT_API_URL and, unless a Prefect block
# configures Azure, the TOPN_ settings.
FROM python:3.12-slim

WORKDIR /topn
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r constraints.txt
COPY flows flows
COPY tasks tasks
COPY task_script task_script
COPY data data
COPY prefect.yaml ./
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && useradd --create-home worker && mkdir /topn/.topn /topn/results && chown worker /topn/.topn /topn/results
USER worker

CMD ["prefect", "worker", "start", "--pool", "topn-pool", "--type", "process"]
