# A Prefect worker of the work pool `topn-pool` that includes topn. Set PREFECT_API_URL and, unless a Prefect block
# configures Azure, the TOPN_ settings.
FROM python:3.12-slim

WORKDIR /topn
COPY installer.txt constraints.txt pyproject.toml README.md LICENSE ./
# What topn imports: neither developer tools nor the local Azure.
RUN pip install --no-cache-dir --require-hashes -r installer.txt \
    && uv pip install --system --no-cache --compile-bytecode --require-hashes --constraints constraints.txt -r pyproject.toml
COPY flows flows
COPY tasks tasks
COPY task_script task_script
COPY data data
COPY prefect.yaml ./
RUN uv pip install --system --no-cache --no-deps --build-constraints constraints.txt --editable . \
    && useradd --create-home worker && mkdir /topn/.topn /topn/results && chown worker /topn/.topn /topn/results
USER worker

CMD ["prefect", "worker", "start", "--pool", "topn-pool", "--type", "process"]
