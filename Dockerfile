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
# More packages, such as those of a storage block of Prefect.
ARG PACKAGES=""
RUN if [ "$PACKAGES" ]; then uv pip install --system --no-cache --constraints constraints.txt $PACKAGES; fi \
    && uv pip install --system --no-cache --no-deps --build-constraints constraints.txt --editable . \
    && useradd --no-create-home worker && mkdir /topn/results && chown worker /topn/results
USER worker
# Everything that a worker and its runs write by themselves is below /tmp, so that the rest can be read-only.
ENV HOME=/tmp TOPN_STATE=/tmp/topn

CMD ["prefect", "worker", "start", "--pool", "topn-pool", "--type", "process"]
