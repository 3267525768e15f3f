# The package on a CPU. `docker run --rm -v "$PWD/demo:/work" iq-offline` runs the demonstration;
# `docker run --rm -v "$PWD:/work" iq-offline train --dataset ...` any other command.
FROM python:3.12-slim
# A C++ compiler: long runs compile their updates.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY iq_offline iq_offline
COPY datasets datasets
COPY pipelines pipelines
RUN pip install --no-cache-dir -c constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cpu ".[export,pipeline,remote]"
ENV OMP_NUM_THREADS=1 MLFLOW_DISABLE_TELEMETRY=true IQ_OFFLINE_HOME=/work/home
WORKDIR /work
ENTRYPOINT ["iq-offline"]
CMD ["run", "demo", "--out", "/work/demo"]
